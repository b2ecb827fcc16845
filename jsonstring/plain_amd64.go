package jsonstring

// plainBlocks is how many bytes b begins with that are plain, in whole blocks of 64.
//
//go:noescape
func plainBlocks(b []byte) (n int)
