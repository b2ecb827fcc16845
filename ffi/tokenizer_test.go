package ffi

import (
	"os"
	"testing"
)

func demo(t testing.TB) *Tokenizer {
	t.Helper()
	data, err := os.ReadFile("../models/demo/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	tok, err := LoadTokenizer(data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tok.Close() })
	return tok
}

func TestEncode(t *testing.T) {
	tok := demo(t)
	ids, err := tok.Encode("hello\x00world", false)
	t.Log(ids, err, tok.VocabSize(), tok.ByteLevel())
	s, err := tok.Decode(ids, false)
	t.Logf("%q %v", s, err)
}
