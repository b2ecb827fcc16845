// Package proxy is the engine that stands in front of other servers of OpenAI's API: vLLM, SGLang, KTransformers. What is
// particular to each is data, a [Dialect], which the packages backends/vllm, sglang and ktransformers fill in.
//
//	Engine.Generate ─► encode   engine.Request → the upstream's JSON
//	                   pool     which of the model's upstreams: up, not refused by its breaker, least loaded, same prefix
//	                   post     one HTTP/1.1 request; its context is the client's
//	                   answer   server-sent events or one JSON body → engine.Event, in one form whatever the upstream
//
// An upstream is one URL of a running server, or a process that we start, watch and end (child). A request is sent again,
// to another upstream if there is one, only as long as none of its answer was handed on.
package proxy
