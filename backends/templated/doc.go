// Package templated makes what a configuration says of prompts and sampling count for a model that another server computes.
//
//	engine.Request ──► defaults ──► prompt, with the native engine's code ──► tokens ──► package proxy ──► upstream
//	engine.Event   ◄── stop strings, thoughts, tool calls, likewise       ◄── tokens ◄──
//
// The upstream gets completions of token ids and sends token ids; that text means nothing to it. Where nothing is said but what a
// request can say too, requests go on as they are, with that filled in, and the upstream makes the prompts.
package templated
