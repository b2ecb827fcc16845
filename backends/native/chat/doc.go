// Package chat stands between messages and text, on both sides of the model.
//
//	engine.Chat ──► Prompter: context as ordered JSON ──► template ──► Prompt: text, cuts        prompt.go
//	generated text ──► Output: stop strings ──► Parser: thoughts, tool calls, content ──► Delta  output.go
//
// It knows neither tokens nor the template language: a [Renderer] fills the template in, and the caller turns tokens
// into text. Everything on the answer's side gives the same result however the text is cut into pieces, in time
// proportional to its length.
package chat
