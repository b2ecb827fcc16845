// Package encoder serves models that turn texts into numbers: bidirectional encoders of BERT's kind, and decoders, as embedders,
// pooled as sentence-transformers' files say, or as rerankers that score pairs of texts.
//
// A request's way, with the goroutine it runs on:
//
//	Embed, Score (caller's)   texts → tokens → submit                engine.go, text.go, pairs.go
//	loop (one, owner)         choose texts → one step → results      runner.go
//	                          trunk → pooling → head                 workspace.go, head.go
//
// A trunk (trunk.go) is what makes hidden states of tokens: bidirectional (forward.go) computes whole texts, decoder (decoder.go)
// pieces of them, of many requests in one step, laid end to end without padding. No kernel's result for a token depends on the
// other texts, so a vector is the same, bit for bit, whatever it is computed with.
package encoder
