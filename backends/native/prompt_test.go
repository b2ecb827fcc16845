package native

import (
	"context"
	"strings"
	"testing"

	"pagoda/engine"
)

// A prompt of any size is refused quickly and by the right name.
func TestHugePrompts(t *testing.T) {
	e := open(t, Options{})
	huge := strings.Repeat("word ", 6<<20) // above all limits: template output, Tokenize, context
	chat := &engine.Chat{Messages: []engine.Message{{Role: "user", Content: &huge}}}
	generate := func(req *engine.Request) error {
		req.Model = "pagoda-demo"
		for _, err := range e.Generate(context.Background(), req) {
			return err
		}
		return nil
	}
	tokenize := func(req *engine.Request) error {
		req.Model = "pagoda-demo"
		_, err := e.Tokenize(context.Background(), req)
		return err
	}
	for _, c := range []struct {
		name, param string
		err         error
		code        engine.Code
	}{
		{"text", "prompt", generate(&engine.Request{Text: &huge}), engine.TooLong},
		{"chat", "messages", generate(&engine.Request{Chat: chat}), engine.TooLong},
		{"tokenize text", "prompt", tokenize(&engine.Request{Text: &huge}), engine.Invalid},
		{"tokenize chat", "messages", tokenize(&engine.Request{Chat: chat}), engine.Invalid},
	} {
		if got := engine.AsError(c.err); got == nil || got.Code != c.code || got.Param != c.param {
			t.Errorf("%s: %v", c.name, c.err)
		}
	}
}
