package engine_test

import (
	"context"
	"strings"
	"testing"

	"pagoda/engine"
	"pagoda/engine/fake"
)

// named returns a fake engine with one model.
func named(id, answer string) *fake.Engine {
	e := fake.New()
	e.ModelList = []engine.Model{{ID: id, MaxLen: 100}}
	e.Scripts = map[string]fake.Script{id: fake.Text(answer)}
	return e
}

func answer(t *testing.T, e engine.Engine, model string) (string, error) {
	t.Helper()
	var text strings.Builder
	for ev, err := range e.Generate(context.Background(), &engine.Request{Model: model, Text: new("hi")}) {
		if err != nil {
			return "", err
		}
		text.WriteString(ev.Text)
	}
	return text.String(), nil
}

func TestRouter(t *testing.T) {
	var r engine.Router
	if _, err := answer(t, &r, "a"); engine.AsError(err) == nil || engine.AsError(err).Code != engine.Unavailable ||
		engine.AsError(err).RetryAfter <= 0 {
		t.Errorf("empty: %v, want Unavailable with a time to come back", err)
	}
	for _, e := range []engine.Engine{named("a", "from a"), named("b", "from b")} {
		if err := r.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"a", "b"} {
		if got, err := answer(t, &r, id); err != nil || got != "from "+id {
			t.Errorf("%s answers %q, %v", id, got, err)
		}
		if _, err := r.Detokenize(context.Background(), id, nil); err != nil {
			t.Errorf("detokenize with %s: %v", id, err)
		}
	}
	if _, err := answer(t, &r, "c"); engine.AsError(err) == nil || engine.AsError(err).Code != engine.NotFound ||
		!strings.Contains(err.Error(), "a, b") {
		t.Errorf("unknown: %v, want NotFound that names a and b", err)
	}
	if _, err := r.Tokenize(context.Background(), &engine.Request{Model: "c"}); err == nil {
		t.Error("tokenize with an unknown model is no error")
	}
	if n := len(r.Models()); n != 2 {
		t.Errorf("%d models, want 2", n)
	}
	if err := r.Add(named("b", "")); err == nil {
		t.Error("a second b is no error")
	}
	if err := r.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := answer(t, &r, "a"); err == nil {
		t.Error("a closed engine answers")
	}
	if err := r.Add(named("d", "")); err == nil {
		t.Error("a closed router takes an engine")
	}
}
