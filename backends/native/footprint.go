package native

// Footprint says what the engine computes with and which memory it holds, in bytes.
type Footprint struct {
	Variant string // of the CPU kernels
	Threads int
	DType   string // computed in
	Weights string // what the weights are kept as: DType, or int8 or int4

	LayerParams int64 // weights that each token is multiplied with in the layers
	HeadParams  int64 // weights that each token with logits is multiplied with

	WeightBytes int64 // the base model's weights
	StepBytes   int64 // of them, what a step reads at least when it computes logits
	KVBytes     int64
	KVTokens    int   // tokens that the KV cache holds
	OtherBytes  int64 // adapters, draft model and work buffers
}

// Footprint reports sizes that do not change while the engine serves.
func (e *Engine) Footprint() Footprint {
	spec := e.model.Spec()
	f := Footprint{
		Variant: e.device.Variant(), Threads: e.device.Threads(), DType: string(e.model.DType()), Weights: e.model.Weights(),
		HeadParams:  int64(spec.Vocab) * int64(spec.Hidden),
		WeightBytes: e.model.Bytes(), StepBytes: e.model.StepBytes(),
		KVBytes: e.kv.Bytes(), KVTokens: e.kv.NumBlocks() * BlockSize,
	}
	for _, m := range spec.Modules() {
		f.LayerParams += int64(m.In) * int64(m.Out)
	}
	f.OtherBytes = e.device.Allocated() - f.WeightBytes - f.KVBytes
	return f
}
