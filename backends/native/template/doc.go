// Package template holds the chat templates that LlamaFactory calls by name (`template: qwen3`): data, not programs. A
// model that was fine-tuned with one of them expects its prompts cut into tokens as the training did it.
//
//	table.go   the templates: what stands around each kind of turn
//	tools.go   how tools and calls are written, by tool format
//	render.go  messages → pieces, each to be tokenized apart
//
// A turn is written as a slot, such as "<|user|>\n@{eos}": @ stands for the content, {idx} for the number of the pair of
// turns, {bos}, {eos} and {tok:NAME} for a single token. What lies between those and {+} is one piece: the content is
// tokenized together with the text around it, as LlamaFactory does.
//
// Source: github.com/hiyouga/LlamaFactory, src/llamafactory/data/template.py and tool_utils.py, at v0.9.4 and, for what only
// later versions have, at ff6d4d12e. The strings were taught to models and are facts of them.
package template
