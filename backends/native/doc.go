// Package native is the engine of our own: it serves a checkpoint in this process.
//
// A request's way, with the goroutine it runs on:
//
//	Generate (caller's)  chat template → tokens → submit            request.go, codec
//	loop (one, owner)    admit → schedule → one step → publish      runner.go, executor.go
//	Generate (caller's)  mailbox → text, stops, parsing → events    answer.go, codec
//
// The loop owns scheduler, KV blocks and device; nothing else touches them, so none of them has a lock. It never waits
// for a client: results go into an unbounded mailbox per request, whose size the request's own token limit bounds.
package native
