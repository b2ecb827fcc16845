package encoder

// Bytes is the memory that the engine holds.
func (e *Engine) Bytes() int64 { return e.dev.Allocated() }
