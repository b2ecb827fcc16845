package proxy

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// quickCases are chunks by whether they are read the quick way.
var quickCases = map[string]bool{
	`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{"content":"a b"},` +
		`"logprobs":null,"finish_reason":null,"token_ids":null}]}`: true, // vLLM
	`{"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":1,"delta":{"role":"assistant","content":"",` +
		`"reasoning_content":null,"tool_calls":null},"logprobs":null,"finish_reason":null,"matched_stop":null}],"usage":null}`: true, // SGLang
	`{"id":"1","object":"text_completion","choices":[{"index":0,"text":" \"é\\\n\u00e9\ud83d\ude00","finish_reason":null}],"x":true}`: true,
	` { "choices" : [ { "delta" : { "reasoning" : "r" , "refusal":"no" } , "index" : 12 } ] , "prompt_logprobs" : null } `:            true,
	`{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":` +
		`"a b","refusal":null,"annotations":null,"tool_calls":[],"reasoning":null},"logprobs":null,"finish_reason":"stop","stop_reason":null,` +
		`"token_ids":null}],"service_tier":null,"usage":{"prompt_tokens":10,"total_tokens":110,"completion_tokens":100,` +
		`"prompt_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,"kv_transfer_params":null}`: true, // vLLM
	`{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":128,"reasoning_tokens":3,"prompt_tokens_details":{"cached_tokens":7},` +
		`"completion_tokens_details":{"reasoning_tokens":2,"x":1}}}`: true, // SGLang
	`{"choices":[{"index":0,"delta":{},"finish_reason":"length","matched_stop":null}]}`: true,
	`{"choices":[{"delta":{"content":"a"},"message":{"refusal":"b"}}]}`:                 false,
	`{"usage":{"prompt_tokens":1},"usage":null}`:                                        false,
	`{"usage":{"prompt_tokens":-1}}`:                                                    false,
	`{"usage":{"prompt_tokens":null}}`:                                                  false,
	`{}`:                                                                                true,
	`{"choices":[]}`:                                                                    true,
	`{"choices":[{"index":0,"delta":{},"finish_reason":"stop","stop_reason":"x"}]}`:         false,
	`{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}`: false,
	`{"choices":[{"delta":{"content":"a","content":null}}]}`:                                false,
	`{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}`:                                  false,
	`{"choices":[{"delta":{"content":"a"},"delta":{"refusal":"b"}}]}`:                       false,
	`{"choices":[{"index":-1,"delta":{"content":"a"}}]}`:                                    false,
	`{"choices":[{"delta":{"content":"` + "\xff" + `"}}]}`:                                  false,
	`{"choices":[{"delta":{"content":"\ud800"}}]}`:                                          false,
	`{"choices":[{"delta":{"c\u006fntent":"a"}}]}`:                                          false,
	`{"object":"error","message":"broken"}`:                                                 false,
	`{"error":{"message":"broken"}}`:                                                        false,
	`{"choices":[{"delta":{"content":"a"}}]} {}`:                                            false,
	`{"choices":[{"delta":{"content":"a"}}],}`:                                              false,
	`{"choices":[{"delta":{"content":"a"}}],"n":01}`:                                        false,
	`{"choices":[{"delta":{"content":"a` + "\n" + `"}}]}`:                                   false,
	`{"choices":[{"delta":{"content":"a\"}}]}`:                                              false,
	`{"choices":[{"delta":{"content":"` + "\\":                                              false,
	`[]`: false,
	``:   false,
	`{"choices":[{"delta":{"content":"a"}}],"nullx":nul}`:                                                     false,
	`{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.5}]}}]}`: false,
}

// checkQuick compares the quick way with the other where it goes.
func checkQuick(t *testing.T, q *quickChunk, data string) (quick bool) {
	t.Helper()
	got := q.read([]byte(data))
	if got == nil {
		return false
	}
	var want chunk
	if err := decodeChunk([]byte(data), &want); err != nil {
		t.Fatalf("%s: read, but %v", data, err)
	}
	if want.Object == "error" {
		t.Fatalf("%s: read, but an error", data)
	}
	if want.Object, want.Error = "", nil; len(want.Choices) == 0 { // null and [] are the same as absent
		want.Choices = nil
	}
	for i := range want.Choices {
		want.Choices[i].StopReason, want.Choices[i].MatchedStop = nil, nil
		for _, m := range []*chunkMessage{want.Choices[i].Delta, want.Choices[i].Message} {
			if m != nil && len(m.ToolCalls) == 0 {
				m.ToolCalls = nil
			}
		}
	}
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("%s: %+v, want %+v", data, *got, want)
	}
	return true
}

func TestQuickChunk(t *testing.T) {
	for data, want := range quickCases {
		if quick := checkQuick(t, &quickChunk{}, data); quick != want {
			t.Errorf("%s: read the quick way: %v", data, quick)
		}
	}
}

// TestQuickStream: a chunk that is the last one but for its text is read alike, whatever the text is.
func TestQuickStream(t *testing.T) {
	for _, field := range []string{`"text":%s`, `"delta":{"content":%s}`, `"delta":{"role":"assistant","reasoning_content":%s}`,
		`"delta":{"content":"b","reasoning":%s}`, `"delta":{"content":"first","content":%s}`, `"delta":{"content":%s,"reasoning":"\\"}`} {
		q := quickChunk{stream: true}
		hits := 0
		for _, text := range []string{`"a"`, `"b c"`, `""`, `"d\n"`, `"e"`, `null`, `"f"`, `"g","refusal":"h"`, `"é"`, `"\""`, `"\\"`, `"i"`} {
			chunk := `{"id":"1","choices":[{"index":0,` + fmt.Sprintf(field, text) + `,"finish_reason":null}]}`
			if q.last.again([]byte(chunk)) {
				hits++
			}
			checkQuick(t, &q, chunk)
		}
		if hits == 0 {
			t.Errorf("%s: no chunk was like the one before", field)
		}
	}
}

// FuzzQuickChunk: whatever the quick way reads, the other reads alike; also what comes after it.
func FuzzQuickChunk(f *testing.F) {
	for data := range quickCases {
		f.Add(data, strings.Replace(data, "a", "b", 1))
	}
	f.Fuzz(func(t *testing.T, data, next string) {
		q := quickChunk{stream: true}
		checkQuick(t, &q, data)
		checkQuick(t, &q, next)
	})
}

// BenchmarkChunk decodes a chunk of a streamed chat both ways.
func BenchmarkChunk(b *testing.B) {
	data := []byte(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"mock","choices":[{"index":0,"delta":` +
		`{"content":" word"},"logprobs":null,"finish_reason":null}]}`)
	b.Run("like the last", func(b *testing.B) {
		q := quickChunk{stream: true}
		for b.Loop() {
			if q.read(data) == nil {
				b.Fatal("not read")
			}
		}
	})
	b.Run("quick", func(b *testing.B) {
		var q quickChunk
		for b.Loop() {
			if q.read(data) == nil {
				b.Fatal("not read")
			}
		}
	})
	b.Run("any", func(b *testing.B) {
		for b.Loop() {
			var c chunk
			if err := decodeChunk(data, &c); err != nil {
				b.Fatal(err)
			}
		}
	})
}
