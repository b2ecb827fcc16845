package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"pagoda/config"
	"pagoda/engine"
	"pagoda/engine/fake"
	"pagoda/server"
)

// talkTo runs a conversation with these lines and returns what is printed.
func talkTo(t *testing.T, c *conversation, lines ...string) string {
	t.Helper()
	var out strings.Builder
	c.in, c.out = strings.NewReader(strings.Join(lines, "\n")+"\n"), &out
	if err := c.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestChatLocal(t *testing.T) {
	eng := fake.New()
	c := &conversation{talker: newLocalTalker(eng, &config.Config{LlamaFactory: config.LlamaFactory{Temperature: new(0.5), MaxTokens: 7}}), system: "be kind"}
	if got := talkTo(t, c, "hi", "", "again"); got != "Hello!\nHello!\n" {
		t.Errorf("printed %q", got)
	}
	req := eng.Last()
	var roles []string
	for _, m := range req.Chat.Messages {
		roles = append(roles, m.Role+":"+*m.Content)
	}
	if got := strings.Join(roles, " "); got != "system:be kind user:hi assistant:Hello! user:again" {
		t.Errorf("messages %s", got)
	}
	if *req.Sampling.Temperature != 0.5 || *req.Sampling.MaxTokens != 7 || req.Model != "fake" {
		t.Errorf("request %+v", req)
	}
}

func TestChatCommands(t *testing.T) {
	eng := fake.New()
	c := &conversation{talker: newLocalTalker(eng, &config.Config{})}
	got := talkTo(t, c, "one", "/model", "/model nobody", "/model fake-adapter", "two", "clear", "/system be brief",
		"/think maybe", "/think off", "three", "/nonsense", "/help", "exit", "never sent")
	for _, want := range []string{"* fake\n", "  fake-adapter\n", "HELLO!\n", "no command /nonsense", "/clear",
		"error: no model nobody here; there is fake, fake-adapter\n", "error: /think on, /think off"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	requests := eng.Requests()
	if len(requests) != 3 {
		t.Fatalf("%d requests, want 3", len(requests))
	}
	if n := len(requests[1].Chat.Messages); n != 3 {
		t.Errorf("another model: %d messages, want the conversation so far (3)", n)
	}
	last := requests[2]
	if n := len(last.Chat.Messages); n != 2 || last.Chat.Messages[0].Role != "system" || last.Model != "fake-adapter" {
		t.Errorf("after /system: %d messages to %s", n, last.Model)
	}
	if first := requests[0].Chat.TemplateKwargs; len(first) != 0 || string(last.Chat.TemplateKwargs["enable_thinking"]) != "false" {
		t.Errorf("thinking: %s, after /think off %s", first, last.Chat.TemplateKwargs)
	}
	c = &conversation{talker: newLocalTalker(eng, &config.Config{}), model: "nobody", in: strings.NewReader("hi\n")}
	if err := c.run(context.Background()); err == nil || !strings.Contains(err.Error(), "no model nobody here") {
		t.Errorf("unknown model at the start: %v", err)
	}
}

// TestChatRemote talks to a real server of ours over HTTP.
func TestChatRemote(t *testing.T) {
	eng := fake.New()
	srv, err := server.New(eng, server.Config{Keys: []string{"k"}}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	srv.SetReady(true)
	web := httptest.NewServer(srv.Handler())
	defer web.Close()
	for _, url := range []string{web.URL, web.URL + "/v1/"} {
		remote, err := newRemoteTalker(&config.Config{URL: url, APIKey: []string{"k"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := talkTo(t, &conversation{talker: remote}, "hi"); got != "Hello!\n" {
			t.Errorf("%s: printed %q", url, got)
		}
	}
	noKey, err := newRemoteTalker(&config.Config{URL: web.URL})
	if err != nil {
		t.Fatal(err)
	}
	// A server without a list of models is believed to have the one that is named.
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/chat/completions" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, "data: {\"choices\":[{\"delta\":{\"content\":\"Hi.\"}}]}\n\ndata: [DONE]\n\n")
	}))
	defer plain.Close()
	unlisted, err := newRemoteTalker(&config.Config{URL: plain.URL})
	if err != nil {
		t.Fatal(err)
	}
	if got := talkTo(t, &conversation{talker: unlisted, model: "m"}, "hi"); got != "Hi.\n" {
		t.Errorf("printed %q", got)
	}
	if _, err := noKey.models(context.Background()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("without a key: %v, want 401", err)
	}
	eng.Scripts["fake"] = func(*engine.Request) []fake.Step {
		return []fake.Step{{Event: engine.Event{Prompt: &engine.Prompt{}}}, {Event: engine.Event{Text: "He"}},
			{Err: engine.Errorf(engine.Unavailable, "it broke")}}
	}
	remote, err := newRemoteTalker(&config.Config{URL: web.URL, APIKey: []string{"k"}})
	if err != nil {
		t.Fatal(err)
	}
	c := &conversation{talker: remote, in: strings.NewReader("hi\n"), out: &strings.Builder{}}
	if err := c.run(context.Background()); err == nil || !strings.Contains(err.Error(), "it broke") {
		t.Errorf("a failed stream: %v", err)
	}
}

// TestChatStop: an interrupt ends the answer, keeps what was said and leaves the conversation open.
func TestChatStop(t *testing.T) {
	eng := fake.New()
	started, never := make(chan struct{}), make(chan struct{})
	eng.Scripts["fake"] = func(*engine.Request) []fake.Step {
		return []fake.Step{{Event: engine.Event{Prompt: &engine.Prompt{}}}, {Event: engine.Event{Text: "He"}},
			{Wait: never}}
	}
	c := &conversation{talker: newLocalTalker(eng, &config.Config{}), model: "fake"}
	c.out = writerFunc(func(p []byte) (int, error) {
		if string(p) == "He" {
			close(started)
		}
		return len(p), nil
	})
	done := make(chan error)
	go func() { done <- c.say(context.Background(), "hi") }()
	<-started
	if !c.interrupt() {
		t.Error("nothing to stop")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := len(c.messages); n != 2 || c.messages[1].Content != "He" {
		t.Errorf("messages %v", c.messages)
	}
	if c.interrupt() {
		t.Error("something to stop after the answer")
	}
	if eng.Canceled() != 1 {
		t.Error("the request was not canceled")
	}
}

// TestChatInterrupt: without an answer the first Ctrl-C explains, the second leaves; an answer in between counts anew.
func TestChatInterrupt(t *testing.T) {
	var out strings.Builder
	c := &conversation{talker: newLocalTalker(fake.New(), &config.Config{}), model: "fake", out: &out, tty: true}
	if !c.interrupt() || !strings.Contains(out.String(), "/exit leaves") {
		t.Errorf("the first: printed %q", out.String())
	}
	if err := c.say(context.Background(), "hi"); err != nil {
		t.Fatal(err)
	}
	if !c.interrupt() || c.interrupt() {
		t.Error("want a hint again, then the end")
	}
	if c = (&conversation{}); c.interrupt() {
		t.Error("over a pipe the first one is the end")
	}
}

func TestChatThoughts(t *testing.T) {
	eng := fake.New()
	eng.Scripts["fake"] = fake.Thought("\nhmm", "\n\nYes.")
	for _, tc := range []struct {
		name     string
		tty, dim bool
		want     string
	}{
		{"terminal", true, true, "\x1b[2mhmm\x1b[0m\nYes.\n"},
		{"without colour", true, false, "hmm\nYes.\n"},
		{"pipe", false, false, "Yes.\n"},
	} {
		var out strings.Builder
		c := &conversation{talker: newLocalTalker(eng, &config.Config{}), model: "fake", out: &out, tty: tc.tty, dim: tc.dim}
		if err := c.say(context.Background(), "hi"); err != nil {
			t.Fatal(err)
		}
		if out.String() != tc.want {
			t.Errorf("%s: printed %q, want %q", tc.name, out.String(), tc.want)
		}
	}
}

// An answer that ends at a limit says so on a terminal.
func TestChatCutOff(t *testing.T) {
	var out strings.Builder
	c := &conversation{talker: newLocalTalker(fake.New(), &config.Config{LlamaFactory: config.LlamaFactory{MaxTokens: 2}}), model: "fake", out: &out, tty: true}
	if err := c.say(context.Background(), "hi"); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "He\n(cut off") {
		t.Errorf("printed %q", out.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
