package server

import (
	"errors"
	"net/http/httptest"
	"testing"

	"pagoda/engine"
	"pagoda/engine/fake"
	"pagoda/openapi"
)

// checkFuzzed holds what every request leads to: a request for the engine, or an error that names the field at fault
// unless the body as a whole is.
func checkFuzzed(t *testing.T, data []byte, err error) bool {
	if err == nil {
		return true
	}
	e, ok := errors.AsType[*engine.Error](err)
	if !ok || e.Message == "" || e.Code != engine.Invalid && e.Code != engine.NotFound {
		t.Fatalf("%q: %#v", data, err)
	}
	if e.Code == engine.NotFound && e.Param != "model" {
		t.Fatalf("%q: %#v", data, e)
	}
	return false
}

func checkSampling(t *testing.T, req *engine.Request) {
	s := &req.Sampling
	if s.N < 1 || s.N > 128 || len(s.Stop) > maxStops || s.MinTokens < 0 ||
		s.Temperature != nil && !(*s.Temperature >= 0 && *s.Temperature <= 2) ||
		s.TopP != nil && !(*s.TopP > 0 && *s.TopP <= 1) || s.MaxTokens != nil && *s.MaxTokens < 0 {
		t.Fatalf("out of range: %+v", s)
	}
	for _, id := range s.StopTokenIDs {
		if id < 0 {
			t.Fatalf("negative token: %v", s.StopTokenIDs)
		}
	}
}

func FuzzChatRequest(f *testing.F) {
	for _, params := range [][]param{sharedParams, chatParams} {
		for _, p := range params {
			f.Add([]byte(body(chatStart, p.members)))
		}
	}
	for _, refusals := range [][]refusal{sharedRefusals, chatRefusals} {
		for _, r := range refusals {
			f.Add([]byte(body(chatStart, r.members)))
		}
	}
	s, _ := newTest(f, fake.New(), Config{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var b openapi.ChatCompletionRequest
		err := decodeBytes(data, &b)
		var req *engine.Request
		if err == nil {
			req, _, err = s.chatRequest(httptest.NewRecorder(), &b)
		}
		if !checkFuzzed(t, data, err) {
			return
		}
		if req.Chat == nil || len(req.Chat.Messages) == 0 {
			t.Fatalf("%q: no messages", data)
		}
		checkSampling(t, req)
		if err := verdict("ChatCompletionRequest", string(data)); err != nil {
			t.Fatalf("%q: served, but the contract says %v", data, err)
		}
	})
}

func FuzzCompletionRequest(f *testing.F) {
	for _, params := range [][]param{sharedParams, completionParams} {
		for _, p := range params {
			f.Add([]byte(body(completionStart, p.members)))
		}
	}
	for _, refusals := range [][]refusal{sharedRefusals, completionRefusals} {
		for _, r := range refusals {
			f.Add([]byte(body(completionStart, r.members)))
		}
	}
	for _, prompt := range []string{`["a","b"]`, `[1,2]`, `[[1],[2]]`, `[]`, `[[]]`, `null`, `{}`, `[1,"a"]`} {
		f.Add([]byte(`{"model":"fake","prompt":` + prompt + `}`))
	}
	s, _ := newTest(f, fake.New(), Config{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var b openapi.CompletionRequest
		err := decodeBytes(data, &b)
		var reqs []*engine.Request
		if err == nil {
			reqs, _, err = s.completionRequests(httptest.NewRecorder(), &b)
		}
		if !checkFuzzed(t, data, err) {
			return
		}
		for _, req := range reqs {
			if (req.Text == nil) == (req.Tokens == nil) {
				t.Fatalf("%q: not one prompt", data)
			}
			checkSampling(t, req)
		}
		if err := verdict("CompletionRequest", string(data)); err != nil {
			t.Fatalf("%q: served, but the contract says %v", data, err)
		}
	})
}
