// Package bench measures how fast a model answers: an engine in this process, or any server that speaks OpenAI's API.
//
//	Target (EngineTarget, URLTarget) ──► Drive: some requests at once ──► Load: throughput, TTFT, ITL
//	                       └───────────► Rates: prefill and batched decode, in rounds ──► Rate: min, median, max
//
// Prompts are random and new for each request, so a prefix cache finds at most the beginning of the chat template.
// Answers are greedy and of full length.
package bench
