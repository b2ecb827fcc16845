// Package engine is the vocabulary that the HTTP server and every backend share: a [Request] goes in, a sequence of
// [Event] comes out, failures are an [*Error], and an [Engine] turns one into the other. It imports nothing of ours
// and nothing of the network, so that a dialect (chat completions, completions, ...) and a backend (native, vLLM, ...)
// never need to know each other.
package engine
