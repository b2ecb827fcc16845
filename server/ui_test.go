package server

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"pagoda/engine"
	"pagoda/engine/fake"
)

// browser returns a tab, or skips. PAGODA_CHROMIUM names the program. Errors on a page's console fail the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	program := os.Getenv("PAGODA_CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if program == "" {
			program, _ = exec.LookPath(name)
		}
	}
	if program == "" {
		t.Skip("skipped: no chromium, chromium-browser or google-chrome found; PAGODA_CHROMIUM may name one")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true))
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Log(err)
		}
		stop()
	})
	err := chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("script: %s %v", ev.ExceptionDetails.Text, ev.ExceptionDetails.Exception)
		case *log.EventEntryAdded: // refused by the content security policy, say; failed requests are the tests' matter
			if ev.Entry.Level == log.EntryLevelError && ev.Entry.Source != log.EntrySourceNetwork {
				t.Errorf("console: %s", ev.Entry.Text)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return ctx
}

type (
	action = chromedp.Action[chromedp.Void]
	css    = chromedp.CSS
)

// steps runs the actions and fails with the page's text.
func steps(t *testing.T, ctx context.Context, actions ...action) {
	t.Helper()
	for i, a := range actions {
		if err := chromedp.Do(ctx, a); err != nil {
			text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
			t.Fatalf("step %d: %v; the page says:\n%s", i+1, err, text)
		}
	}
}

// js runs a script that returns nothing.
func js(format string, args ...any) action {
	return chromedp.Evaluate[chromedp.Void](fmt.Sprintf(format, args...))
}

// until waits for a JavaScript condition. (chromedp.Poll makes functions from strings, which our pages' policy forbids.)
func until(format string, args ...any) action {
	condition := fmt.Sprintf(format, args...)
	look := chromedp.Evaluate[bool](`new Promise(r => setTimeout(r, 10)).then(() => Boolean(`+condition+`))`,
		chromedp.EvalAwaitPromise)
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
			if ok, err := look(ctx, target); ok || err != nil {
				return err
			}
		}
		return fmt.Errorf("never came: %s", condition)
	})
}

// says waits until the last element of selector contains text.
func says(selector, text string) action {
	return until(`[...document.querySelectorAll(%q)].at(-1)?.textContent.includes(%q)`, selector, text)
}

// typed types text and Enter, as one key event that a page can prevent (SendKeys' is two).
func typed(selector, text string) action {
	return chromedp.Steps(chromedp.SendKeys(css(selector), text),
		chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, input.DispatchKeyEvent, input.DispatchKeyEventParams{
				Type: input.DispatchKeyEventTypeKeyDown, Text: "\r", Key: "Enter", Code: "Enter", WindowsVirtualKeyCode: 13})
			return err
		}))
}

// screenshot writes the page to a file if PAGODA_SCREENSHOTS names a folder.
func screenshot(name string, width, height int64, scheme string) action {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		dir := os.Getenv("PAGODA_SCREENSHOTS")
		if dir == "" {
			return nil
		}
		params := emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
		if _, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, params); err != nil {
			return err
		}
		if _, err := chromedp.EmulateViewport(width, height)(ctx, target); err != nil {
			return err
		}
		png, err := chromedp.CaptureScreenshot()(ctx, target)
		if err != nil {
			return err
		}
		if _, err := chromedp.EmulateViewport(1280, 800)(ctx, target); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	})
}

// uiEngine has a model for each thing that the page shows.
func uiEngine(gate chan struct{}) *hooked {
	eng := newHooked()
	add := func(id string, script fake.Script) {
		eng.ModelList = append(eng.ModelList, engine.Model{ID: id, Root: "built-in", Created: fake.Created, MaxLen: 4096})
		eng.Scripts[id] = script
	}
	add("slow", gated(gate))
	add("endless", gated(make(chan struct{})))
	add("thinker", fake.Thought("17 and 25 make 42.", "The answer is 42."))
	add("caller", fake.ToolCall("call_1", "get_weather", `{"city":`, `"Paris"}`))
	add("broken", func(*engine.Request) []fake.Step {
		return []fake.Step{{Err: &engine.Error{Code: engine.Busy, Message: "the queue is full", RetryAfter: 2 * time.Second}}}
	})
	add("cut", fake.Fail(engine.Errorf(engine.Upstream, "upstream failed"), "Hel"))
	add("markup", fake.Text("<img src=x onerror=document.title='owned'> and `code`:\n\n```go\nx := \"<b>1</b>\"\n```\n\nDone."))
	return eng
}

func TestChatPage(t *testing.T) {
	ctx := browser(t)
	gate := make(chan struct{})
	eng := uiEngine(gate)
	s, _ := newTest(t, eng, Config{})
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()

	choose := func(model string) action {
		return js(`(m => { m.value = %q; m.dispatchEvent(new Event("change")) })(document.getElementById("model"))`, model)
	}
	ask := func(text string) action {
		return typed("#input", text)
	}
	idle := until(`document.getElementById("send").textContent === "Send"`)

	steps(t, ctx,
		chromedp.Navigate(srv.URL+"/"),
		until(`document.querySelectorAll("#model option").length === 9`),
		until(`document.querySelector("#model optgroup option")?.value === "fake-adapter"`),
		screenshot("chat-empty", 1280, 800, "light"),
		screenshot("chat-narrow-empty", 390, 780, "light"),

		// An answer streams: its beginning is there before its end.
		choose("slow"), ask("Say hello"),
		says(".turn.user .body", "Say hello"), says(".turn.assistant .body", "Hel"),
		until(`document.getElementById("send").textContent === "Stop"`),
		chromedp.Func(func(context.Context, *chromedp.Target) error { close(gate); return nil }),
		says(".turn.assistant .body", "Hello"), says(".turn.assistant .stats", "tokens/s"),
		says(".turn.assistant .stats", "first token"), idle, until(`document.getElementById("input").value === ""`),

		// The next request carries the conversation and the settings.
		chromedp.SetValue(css("#system"), "Be brief."), chromedp.SetValue(css("#temperature"), "0.5"),
		chromedp.SetValue(css("#max_tokens"), "99"), chromedp.SetValue(css("#seed"), "7"),
		chromedp.SetValue(css("#thinking"), "off"),
		choose("fake-adapter"), ask("Again"), says(".turn.assistant .body", "HELLO!"), idle,
	)
	last := eng.Last()
	if len(last.Chat.Messages) != 4 || last.Chat.Messages[0].Role != "system" || *last.Chat.Messages[2].Content != "Hello" ||
		last.Model != "fake-adapter" || *last.Sampling.Temperature != 0.5 || *last.Sampling.MaxTokens != 99 ||
		*last.Sampling.Seed != 7 || string(last.Chat.TemplateKwargs["enable_thinking"]) != "false" {
		t.Errorf("request %+v", last)
	}

	canceled := eng.Canceled()
	steps(t, ctx,
		// Stop, by the button and by Escape.
		choose("endless"), ask("Never end"), says(".turn.assistant .body", "Hel"),
		chromedp.Click(css("#send")), idle, says(".turn.assistant .foot", "stopped"),
		ask("Once more"), until(`document.querySelectorAll(".turn.assistant .body").length === 4`),
		says(".turn.assistant .body", "Hel"), chromedp.KeyEvent("\u001b"), idle,
	)
	for eng.Canceled() != canceled+2 { // the server hears of it a moment later
	}

	steps(t, ctx,
		choose("thinker"), ask("17 + 25?"), idle, says(".turn.assistant .body", "The answer is 42."),
		says("details.thinking div", "17 and 25"), until(`![...document.querySelectorAll("details.thinking")].at(-1).open`),

		choose("markup"), ask("Show code"), idle, says(".turn.assistant .body", "<img src=x"),
		says(".turn.assistant .code code", `x := "<b>1</b>"`), says(".turn.assistant code.inline", "code"),
		until(`document.title === "Pagoda" && !document.querySelector("#log img, #log b:not(.call b):not(#welcome-model)")`),

		choose("broken"), ask("Fail"), idle, says(".turn.assistant .error", "The queue is full. Try again in 2 s."),
		choose("cut"), ask("Fail late"), idle, says(".turn.assistant .body", "Hel"), says(".turn.assistant .error", "Upstream failed"),

		choose("caller"), ask("Weather?"), idle, says(".call b", "get_weather"), says(".call pre", `{"city":"Paris"}`),
		screenshot("chat", 1280, 800, "light"), screenshot("chat-dark", 1280, 800, "dark"), screenshot("chat-narrow", 390, 780, "light"),
		choose("thinker"), typed(".call form input", "sunny"),
		says(".turn.tool .body", "sunny"), idle, says(".turn.assistant .body", "The answer is 42."),
	)
	messages := eng.Last().Chat.Messages
	if n := len(messages); messages[n-1].Role != "tool" || messages[n-1].ToolCallID != "call_1" ||
		len(messages[n-2].ToolCalls) != 1 || messages[n-2].ToolCalls[0].Arguments != `{"city":"Paris"}` {
		t.Errorf("tool result: %+v", messages)
	}

	requests := len(eng.Requests())
	steps(t, ctx,
		// A setting that is wrong is said, not sent.
		chromedp.SetValue(css("#temperature"), "9"), ask("Too hot"), says(".turn.assistant .error", "Temperature"), idle,
		chromedp.SetValue(css("#temperature"), ""),
		chromedp.Click(css("#reset")), until(`document.querySelectorAll(".turn").length === 0`),
		chromedp.WaitVisible(css("#welcome")),
		choose("fake"), chromedp.Click(css(".chips button")), says(".turn.assistant .body", "Hello!"), idle,
		js(`[...document.querySelectorAll(".turn.assistant button")].at(-1).click()`), // retry
		until(`document.querySelectorAll(".turn").length === 2`), idle, says(".turn.assistant .body", "Hello!"),
	)
	if got := len(eng.Requests()) - requests; got != 2 {
		t.Errorf("%d requests, want 2", got)
	}
	if n := len(eng.Last().Chat.Messages); n != 2 { // system and user
		t.Errorf("%d messages after a reset and a retry", n)
	}
}

func TestChatPageAsksForKey(t *testing.T) {
	ctx := browser(t)
	s, _ := newTest(t, fake.New(), Config{Keys: []string{"right-key"}})
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	typeKey := func(key string) action {
		return js(`(k => { k.value = %q; k.dispatchEvent(new Event("change")) })(document.getElementById("key"))`, key)
	}
	steps(t, ctx,
		// The browser's own prompt is Basic; a URL can carry the answer, which is then kept for the whole server.
		chromedp.Navigate(strings.Replace(srv.URL, "http://", "http://me:right-key@", 1)+"/version"),
		chromedp.Navigate(srv.URL+"/"),
		until(`document.querySelectorAll("#model option").length === 2`),
		typeKey("wrong"), says(".error", "API key"),
		typeKey("right-key"), until(`!document.querySelector(".error")`),
		typed("#input", "Hi"), says(".turn.assistant .body", "Hello!"),
		until(`sessionStorage.getItem("pagoda-key") === "right-key" && localStorage.length === 0`),
	)
}

func TestDocsPage(t *testing.T) {
	ctx := browser(t)
	s, _ := newTest(t, fake.New(), Config{})
	srv := httptest.NewServer(s.Handler())
	defer srv.Close()
	steps(t, ctx,
		chromedp.EmulateViewport(390, 780), chromedp.Navigate(srv.URL+"/docs"),
		until(`!document.getElementById("nav").open`),
		chromedp.EmulateViewport(1280, 900), until(`document.getElementById("nav").open`),
		until(`document.querySelectorAll(".operation").length >= 13`),
		says("#post-v1-chat-completions .props", "5XX"),
		until(`document.getElementById("post-v1-chat-completions").textContent.includes("temperature")`),
		says("#post-v1-completions .code code", `-d '{ "model": "fake", "prompt": "Once upon a time" }'`),
		says("#get-v1-models-model- .code code", "/v1/models/fake"),
		until(`[...document.querySelectorAll("main a[href^='#']")].every(a => document.getElementById(a.hash.slice(1)))`),
		screenshot("docs", 1280, 900, "light"), screenshot("docs-dark", 1280, 900, "dark"), screenshot("docs-narrow", 390, 780, "light"),
	)
}
