package server

import (
	"reflect"
	"testing"

	"github.com/go-json-experiment/json"

	"pagoda/openapi"
)

// quickCases are chats by whether they are read the quick way.
var quickCases = map[string]bool{
	`{"model":"m","messages":[{"role":"user","content":"hi"}]}`:                                                                     true,
	` { "messages" : [ { "content" : "a\n\"é\u00e9\ud83d\ude00" , "role" : "user" , "name" : "x" } ] , "model" : "m" } `:            true,
	`{"model":"m","messages":[{"role":"system","content":""},{"role":"user","content":[{"type":"text","text":"a"},{"type":"b"}]}]}`: true,
	`{"model":"m","stream":true,"stream_options":{"include_usage":false},"max_tokens":16,"max_completion_tokens":0,"n":2,` +
		`"temperature":0.7,"top_p":1,"frequency_penalty":-1.5e-1,"presence_penalty":-0,"user":"u","messages":[{}]}`: true,
	`{"top_k":5,"min_p":0.1,"ignore_eos":true,"repetition_penalty":1.1}`: true,
	`{}`:                                                 true,
	`{"max_tokens":16.0}`:                                false,
	`{"max_tokens":-1}`:                                  false,
	`{"max_tokens":"1"}`:                                 false,
	`{"n":99999999999999999999}`:                         false,
	`{"temperature":01}`:                                 false,
	`{"temperature":.5}`:                                 false,
	`{"temperature":+1}`:                                 false,
	`{"temperature":1e999}`:                              false,
	`{"temperature":null}`:                               false,
	`{"temperature":1,"top_p":1e}`:                       false,
	`{"stream":true,"stream":false}`:                     false,
	`{"model":"a","model":"b"}`:                          false,
	`{"model":"","model":"b"}`:                           false,
	`{"messages":[{"role":"a"}],"messages":[]}`:          false,
	`{"messages":[]}`:                                    false,
	`{"messages":[{"role":"a","role":"b"}]}`:             false,
	`{"messages":[{"content":"a","content":["b"]}]}`:     false,
	`{"messages":[{"content":[]}]}`:                      false,
	`{"messages":[{"content":null}]}`:                    false,
	`{"messages":[{"content":[{"text":1}]}]}`:            false,
	`{"messages":[{"content":"a"},]}`:                    false,
	`{"messages":[{"content":"a" "name":"b"}]}`:          false,
	`{"messages":[{"content":"` + "\xff" + `"}]}`:        false,
	`{"messages":[{"content":"\ud800"}]}`:                false,
	`{"messages":[{"content":"a` + "\n" + `"}]}`:         false,
	`{"messages":[{"c\u006fntent":"a"}]}`:                false,
	`{"messages":[{"content":"a"}],"tools":[]}`:          false,
	`{"messages":[{"content":"a"}]} {}`:                  false,
	`{"messages":[{"content":"a"}]`:                      false,
	`{"stream_options":{"continuous_usage_stats":true}}`: false,
	`{"stream":truefalse}`:                               false,
	`[]`:                                                 false,
	``:                                                   false,
}

// checkQuick compares the quick way with the other where it goes.
func checkQuick(t *testing.T, data string) (quick bool) {
	t.Helper()
	var got, want openapi.ChatCompletionRequest
	if !readChat([]byte(data), &got) {
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: not read, but something stays: %+v", data, got)
		}
		return false
	}
	if err := json.Unmarshal([]byte(data), &want, json.WithUnmarshalers(integers)); err != nil {
		t.Fatalf("%s: read, but %v", data, err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %+v, want %+v", data, got, want)
	}
	return true
}

func TestQuickChat(t *testing.T) {
	for data, want := range quickCases {
		if quick := checkQuick(t, data); quick != want {
			t.Errorf("%s: read the quick way: %v", data, quick)
		}
	}
	for _, params := range [][]param{sharedParams, chatParams} {
		for _, p := range params {
			checkQuick(t, body(chatStart, p.members))
		}
	}
}

// FuzzQuickChat: whatever the quick way reads, the JSON library reads alike.
func FuzzQuickChat(f *testing.F) {
	for data := range quickCases {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data string) { checkQuick(t, data) })
}
