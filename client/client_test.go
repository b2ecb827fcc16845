package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestReadEvents(t *testing.T) {
	const hi = `data: {"choices":[{"delta":{"content":"hi"}}]}` + "\n\n"
	cases := []struct {
		name, stream, text, err string
	}{
		{"plain", hi + "data: [DONE]\n\n", "hi", ""},
		{"no space, CRLF, comment, event name", ": ping\r\n\r\nevent: x\r\ndata:" + hi[6:len(hi)-2] + "\r\n\r\ndata:[DONE]\r\n\r\n", "hi", ""},
		{"nothing after the end is read", hi + "data: [DONE]\n\ndata: broken\n\n", "hi", ""},
		{"thoughts by two names", `data: {"choices":[{"delta":{"reasoning_content":"a","reasoning":"a"}},{"delta":{"reasoning":"b"}}]}` +
			"\n\ndata: [DONE]\n\n", "<a><b>", ""},
		{"cut off", hi, "hi", "unexpected EOF"},
		{"cut off in a line", hi + hi[:20], "hi", "unexpected EOF"},
		{"error in the stream", hi + `data: {"error":{"message":"it broke","code":500}}` + "\n\n", "hi", "it broke"},
		{"no JSON", "data: {\n\n", "", "unexpected end of JSON"},
		{"a line without end", "data: " + strings.Repeat("x", maxLineBytes), "", "too long"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			var text strings.Builder
			err := readEvents(strings.NewReader(tc.stream), func(c Chunk) bool {
				for _, choice := range c.Choices {
					if thought := choice.Thought(); thought != "" {
						text.WriteString("<" + thought + ">")
					}
					text.WriteString(choice.Delta.Content)
				}
				return true
			})
			if text.String() != tc.text {
				t.Errorf("text %q, want %q", text.String(), tc.text)
			}
			if (err == nil) != (tc.err == "") || (err != nil && !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	answers := map[string]func(http.ResponseWriter){
		"/v1/openai": func(w http.ResponseWriter) {
			w.WriteHeader(404)
			io.WriteString(w, `{"error":{"message":"no such model","type":"x"}}`)
		},
		"/v1/plain": func(w http.ResponseWriter) {
			w.WriteHeader(502)
			io.WriteString(w, "<html>")
		},
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer k" {
			t.Errorf("key %q", r.Header.Get("Authorization"))
		}
		answers[r.URL.Path](w)
	}))
	defer web.Close()
	for path, want := range map[string]StatusError{"/openai": {404, "no such model"}, "/plain": {502, "Bad Gateway"}} {
		n := 0
		for _, err := range New(web.URL+"/", "k").Stream(context.Background(), path, map[string]any{}) {
			var status *StatusError
			if n++; !errors.As(err, &status) || *status != want {
				t.Errorf("%s: %v, want %v", path, err, want)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d results, want one error", path, n)
		}
	}
	web.Close()
	_, err := New(web.URL, "k").Models(context.Background())
	if err == nil || !strings.HasPrefix(err.Error(), "no server answers at "+web.URL+"/v1: ") {
		t.Errorf("nobody listens: %v", err)
	}
}

// TestLeave: a caller that stops ranging closes the connection, which the server sees.
func TestLeave(t *testing.T) {
	left := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "data: {\"choices\":[{\"text\":\"a\"}]}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(left)
	}))
	defer web.Close()
	for chunk, err := range New(web.URL, "").Stream(context.Background(), "/completions", map[string]any{}) {
		if err != nil || chunk.Choices[0].Text != "a" {
			t.Fatalf("%+v, %v", chunk, err)
		}
		break
	}
	<-left
}
