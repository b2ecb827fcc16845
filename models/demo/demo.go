// Package demo is the built-in model: small, really trained, embedded in the program. The README beside it says what
// it can do; recipe/ made it, and cases.jsonl (both not embedded) holds answers to test against.
package demo

import (
	"embed"
	"io/fs"
)

//go:embed LICENSE config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json
//go:embed adapters/*/adapter_config.json adapters/*/adapter_model.safetensors
var files embed.FS

// FS holds the model in the usual Hugging Face layout, with its LoRA adapters under adapters/.
func FS() fs.FS { return files }
