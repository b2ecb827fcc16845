package blackbox

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// TestAccessLog: one line a request, with its id, tokens and times, and nothing that a client said or was told.
func TestAccessLog(t *testing.T) {
	p := serve(t, "--log-level", "debug", "--api-key", "canary-key")
	p.key = "canary-key"
	const prompt = "canary-prompt"
	all := []struct {
		id     string
		path   string
		body   fields
		status int
		tokens bool
	}{
		{"chat", chatPath, say("shout", "hi").with(fields{"user": "canary-user", "metadata": fields{"canary": "canary-meta"},
			"stop": []string{"canary-stop"}, "cache_salt": "canary-salt"}), 200, true},
		{"stream", chatPath, say(demo, prompt).with(fields{"stream": true}), 200, true},
		{"completion", completionPath, fields{"model": demo, "prompt": prompt, "echo": true, "max_tokens": 4}, 200, true},
		{"tools", chatPath, say(demo, prompt).with(fields{"tools": []fields{{"type": "function",
			"function": fields{"name": "canary-tool", "parameters": fields{"type": "object"}}}}}), 200, true},
		{"tokenize", "/tokenize", fields{"prompt": prompt}, 200, false},
		{"bad", chatPath, say(demo, prompt).with(fields{"temperature": "canary-value"}), 400, false},
		{"role", chatPath, fields{"model": demo, "messages": []fields{{"role": "canary-role", "content": prompt}}}, 400, false},
		{"long", chatPath, say(demo, strings.Repeat(prompt+" ", 1000)), 400, false},
		{"model", chatPath, say("canary-model", prompt), 404, false},
		{"path", "/v1/canary-path?canary=canary-query", fields{}, 404, false},
		{"query", chatPath + "?api_key=canary-query", say(demo, prompt), 200, true},
	}
	for _, r := range all {
		resp, err := p.post(t.Context(), r.path, r.body, "X-Request-Id", "id-"+r.id, "User-Agent", "canary-agent",
			"Referer", "http://canary-referer/")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Errorf("%s: %v", r.id, err)
		}
		resp.Body.Close()
		if resp.StatusCode != r.status || resp.Header.Get("X-Request-Id") != "id-"+r.id {
			t.Errorf("%s: %s, %s", r.id, resp.Status, resp.Header.Get("X-Request-Id"))
		}
	}
	a, err := p.ask(t.Context(), chatPath, say(demo, prompt), "Authorization", "Bearer canary-wrong", "X-Request-Id",
		strings.Repeat("x", 500))
	if err != nil || a.status != http.StatusUnauthorized || len(a.requestID) > 128 || a.requestID == "" {
		t.Errorf("%+v, %v", a, err)
	}
	p.signal(t, syscall.SIGTERM)
	p.wantExit(t, limit, 0)

	entries := map[string]map[string]any{}
	for _, line := range p.lines() {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Errorf("not a JSON line: %s", line)
		}
		if id, ok := entry["request_id"].(string); ok {
			if entries[id] != nil {
				t.Errorf("two lines for %s", id)
			}
			entries[id] = entry
		}
		for _, secret := range []string{"canary", "HELP YOU", "don't know", "Bearer", "goroutine"} {
			if strings.Contains(line, secret) {
				t.Errorf("%q is in the log: %s", secret, line)
			}
		}
	}
	for _, r := range all {
		entry := entries["id-"+r.id]
		if entry["status"] != float64(r.status) || entry["method"] != "POST" || entry["time"] == nil || entry["tenant"] == nil {
			t.Errorf("%s: %v", r.id, entry)
		}
		for _, field := range []string{"duration_ms", "bytes"} {
			wantNumber(t, entry, field)
		}
		if r.tokens {
			for _, field := range []string{"prompt_tokens", "completion_tokens", "ttft_ms"} {
				wantNumber(t, entry, field)
			}
			if entry["model"] != r.body["model"] || fmt.Sprint(entry["finish"]) == "[]" || entry["queue_ms"] == nil ||
				entry["cached_tokens"] == nil {
				t.Errorf("%s: %v", r.id, entry)
			}
		}
	}
	if entry := entries[a.requestID]; entry["status"] != 401.0 {
		t.Errorf("wrong key: %v", entry)
	}
}

func wantNumber(t *testing.T, entry map[string]any, field string) {
	t.Helper()
	if v, ok := entry[field].(float64); !ok || !(v > 0) {
		t.Errorf("%v: %s is %v", entry["request_id"], field, entry[field])
	}
}

// TestNoAccessLog: the lines can be left out.
func TestNoAccessLog(t *testing.T) {
	p := serve(t, "--access-log", "false")
	p.must(t, chatPath, say(demo, "hi"))
	p.signal(t, syscall.SIGTERM)
	p.wantExit(t, limit, 0)
	for _, line := range p.lines() {
		if strings.Contains(line, "request_id") {
			t.Errorf("line %s", line)
		}
	}
}
