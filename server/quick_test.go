package server

import (
	"reflect"
	"slices"
	"testing"

	"github.com/go-json-experiment/json"
)

// quickChats are chats by whether they are read the quick way.
var quickChats = map[string]bool{
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

// quickCompletions are completions likewise.
var quickCompletions = map[string]bool{
	`{"model":"m","prompt":"hi","max_tokens":16,"temperature":0,"stream":true,"stream_options":{"include_usage":true},"ignore_eos":true}`: true,
	`{"prompt":""}`:               true,
	`{"prompt":"a","prompt":"b"}`: false,
	`{"prompt":["a"]}`:            false,
	`{"prompt":[1]}`:              false,
	`{"prompt":null}`:             false,
	`{"prompt":"a","echo":true}`:  false,
	`{"prompt":"a"`:               false,
	`{"model":"a","model":"a"}`:   false,
	`{"messages":[]}`:             false,
}

// checkQuick compares the quick way with the other where it goes.
func checkQuick[T any](t *testing.T, data string, read func([]byte, *T) bool) (quick bool) {
	t.Helper()
	var got, want T
	if !read([]byte(data), &got) {
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

func TestQuick(t *testing.T) {
	for data, want := range quickChats {
		if quick := checkQuick(t, data, readChat); quick != want {
			t.Errorf("%s: read the quick way: %v", data, quick)
		}
	}
	for data, want := range quickCompletions {
		if quick := checkQuick(t, data, readCompletion); quick != want {
			t.Errorf("%s: read the quick way: %v", data, quick)
		}
	}
	for _, p := range slices.Concat(sharedParams, chatParams, completionParams) {
		checkQuick(t, body(chatStart, p.members), readChat)
		checkQuick(t, body(completionStart, p.members), readCompletion)
	}
}

// FuzzQuick: whatever the quick way reads, the JSON library reads alike.
func FuzzQuick(f *testing.F) {
	for _, cases := range []map[string]bool{quickChats, quickCompletions} {
		for data := range cases {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data string) {
		checkQuick(t, data, readChat)
		checkQuick(t, data, readCompletion)
	})
}
