package server

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"

	"pagoda/openapi"
)

// checkLifted decodes body with its long texts lifted and without.
func checkLifted[T any](t *testing.T, body []byte) {
	t.Helper()
	var got, want T
	gotErr := unmarshal(body, &got)
	wantErr := jsonv2.Unmarshal(body, &want, jsonv2.WithUnmarshalers(integers))
	if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || wantErr == nil && !reflect.DeepEqual(got, want) {
		t.Errorf("%.200s: %+v, %v; want %+v, %v", body, got, gotErr, want, wantErr)
	}
}

// TestLift: with long texts at any place, whatever is decoded is what it would be without lifting.
func TestLift(t *testing.T) {
	long := strings.Repeat("word ", liftedSize/5+1)
	for name, tc := range map[string]struct {
		body   string
		lifted int
	}{
		"content":    {`{"model":"m","messages":[{"role":"user","content":"` + long + `"},{"role":"user","content":"` + long + `2"}]}`, 2},
		"part":       {`{"messages":[{"role":"user","content":[{"type":"text","text":"` + long + `"}]}],"n":1e0,"stop":["a\n","b"]}`, 1},
		"prompt":     {`{"prompt":["` + long + `","b"],"stop":null}`, 1},
		"short":      {`{"messages":[{"content":"` + long[:liftedSize-1] + `"}]}`, 0},
		"escaped":    {`{"messages":[{"content":"` + long + `\n"}]}`, 0},
		"not ASCII":  {`{"messages":[{"content":"` + long + `é"}]}`, 0},
		"unknown":    {`{"messages":[{"content":"` + long + `"}],"other":"` + long + `"}`, 2},
		"tool":       {`{"tools":[{"type":"function","function":{"name":"f","description":"` + long + `"}}]}`, 1},
		"name":       {`{"` + long + `":1}`, 1},
		"twice":      {`{"user":"` + long + `","user":"` + long + `"}`, 2},
		"wrong type": {`{"messages":"` + long + `"}`, 1},
		"cut off":    {`{"messages":[{"content":"` + long, 0},
		"not JSON":   {`{"user":"` + long + `"x}`, 1},
		"metadata":   {`{"metadata":{"a":"` + long + `","b":"` + long + `"}}`, 2},
		"a mark":     {`{"user":"` + string(liftMark) + `0","messages":[{"content":"` + long + `"}]}`, 0},
		"as a mark":  {`{"user":"\u0070agoda-lifted-text-0","messages":[{"content":"` + long + `"}]}`, 1},
	} {
		if _, texts := lift([]byte(tc.body)); len(texts) != tc.lifted {
			t.Errorf("%s: %d texts lifted", name, len(texts))
		}
		checkLifted[openapi.ChatCompletionRequest](t, []byte(tc.body))
		checkLifted[openapi.CompletionRequest](t, []byte(tc.body))
	}
}

// FuzzLift: the same for anything, with a text in it made long.
func FuzzLift(f *testing.F) {
	for _, p := range chatParams {
		f.Add(strings.ReplaceAll(body(chatStart, p.members), "hi", "LONG"))
	}
	f.Add(`{"LONG":["LONG"],"messages":[{"content":"LONG"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		text = strings.ReplaceAll(text, "LONG", strings.Repeat("a", liftedSize))
		checkLifted[openapi.ChatCompletionRequest](t, []byte(text))
	})
}

// BenchmarkDecode decodes a chat with a prompt of 100 KB.
func BenchmarkDecode(b *testing.B) {
	content, err := json.Marshal(strings.Repeat("word ", 20<<10))
	if err != nil {
		b.Fatal(err)
	}
	data := fmt.Appendf(nil, `{"model":"m","messages":[{"role":"user","content":%s}]}`, content)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		var v openapi.ChatCompletionRequest
		if err := decodeBytes(data, &v); err != nil {
			b.Fatal(err)
		}
	}
}
