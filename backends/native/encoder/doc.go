// Package encoder serves models that turn texts into numbers: bidirectional encoders of BERT's kind as embedders, pooled as
// sentence-transformers' files say, or as cross-encoders that score pairs of texts.
//
// A request's way, with the goroutine it runs on:
//
//	Embed, Score (caller's)   texts → tokens → submit                engine.go, text.go
//	loop (one, owner)         choose texts → one step → results      runner.go
//	                          layers → pooling → head                forward.go, head.go
//
// A step computes whole texts of many requests, laid end to end without padding. No kernel's result for a token depends
// on the other texts, so a vector is the same, bit for bit, whatever it is computed with.
package encoder
