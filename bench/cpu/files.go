package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"pagoda/backends/native/model"
)

// writeCheckpoint makes a folder that pagoda serves: the shape's configuration, random weights and a tokenizer of the
// size that the vocabulary needs. One that is there already stays.
func writeCheckpoint(dir, configFile string, spec *model.Spec) error {
	weights := filepath.Join(dir, "model.safetensors")
	if _, err := os.Stat(weights); err == nil { // written last
		return nil
	}
	config, err := os.ReadFile(configFile)
	if err != nil {
		return err
	}
	tokenizer, err := json.Marshal(newTokenizer(spec.Vocab))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "tokenizer.json"), tokenizer, 0o644)
	}
	if err != nil {
		return err
	}
	file, err := os.Create(weights + ".part")
	if err != nil {
		return err
	}
	if err := errors.Join(model.WriteDummy(file, spec, 1), file.Close()); err != nil {
		return err
	}
	return os.Rename(weights+".part", weights)
}

type object = map[string]any

// newTokenizer is a byte-level BPE whose tokens are the bytes and, made by as many merges, words of two to four letters:
// as large and as slow to load as a real one. It has the size's last token for the end of a text.
func newTokenizer(size int) object {
	var tokens []string
	var merges [][2]string
	for b := range 256 {
		tokens = append(tokens, byteToken(b))
	}
	merge := func(a, b string) {
		if len(tokens) < size-1 {
			tokens, merges = append(tokens, a+b), append(merges, [2]string{a, b})
		}
	}
	var letters, pairs []string
	for c := 'a'; c <= 'z'; c++ {
		letters = append(letters, string(c))
	}
	for _, a := range letters {
		for _, b := range letters {
			merge(a, b)
			pairs = append(pairs, a+b)
		}
	}
	for _, a := range pairs {
		for _, b := range letters {
			merge(a, b)
		}
	}
	for _, a := range pairs {
		for _, b := range pairs {
			merge(a, b)
		}
	}
	for len(tokens) < size-1 {
		tokens = append(tokens, fmt.Sprint("filler ", len(tokens)))
	}
	vocab := object{}
	for id, token := range tokens {
		vocab[token] = id
	}
	byteLevel := object{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true}
	return object{
		"version": "1.0", "truncation": nil, "padding": nil, "normalizer": nil,
		"pre_tokenizer": byteLevel, "post_processor": nil, "decoder": byteLevel,
		"added_tokens": []object{{"id": size - 1, "content": "<|end|>", "single_word": false, "lstrip": false,
			"rstrip": false, "normalized": false, "special": true}},
		"model": object{"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil,
			"end_of_word_suffix": nil, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
			"vocab": vocab, "merges": merges},
	}
}

// byteToken is the printable character that stands for a byte in byte-level vocabularies: itself where it has one, else
// the next of those from 256 on.
func byteToken(b int) string {
	printable := func(b int) bool { return b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae }
	if printable(b) {
		return string(rune(b))
	}
	n := 0
	for c := range b {
		if !printable(c) {
			n++
		}
	}
	return string(rune(256 + n))
}
