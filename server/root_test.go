package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"pagoda/engine/fake"
)

func serverOf(t *testing.T, cfg Config) *httptest.Server {
	t.Helper()
	s, err := New(fake.New(), cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	s.SetReady(true)
	web := httptest.NewServer(s.Handler())
	t.Cleanup(web.Close)
	return web
}

func fetchText(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestRootPath: a proxy may take the path off or leave it on.
func TestRootPath(t *testing.T) {
	web := serverOf(t, Config{RootPath: "/llm"})
	for path, want := range map[string]string{
		"/llm/v1/models": `"object":"list"`, "/v1/models": `"object":"list"`, "/llm/docs": "ui/docs.js", "/llm/ui/docs.js": "import",
		"/llm/openapi.json": `"servers":[{"url":"/llm/"}]`, "/llm/": "ui/chat.js",
	} {
		if status, body := fetchText(t, "GET", web.URL+path, ""); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.200s, want %q", path, status, body, want)
		}
	}
	if status, _ := fetchText(t, "GET", web.URL+"/llmx/v1/models", ""); status != 404 {
		t.Errorf("another path: %d", status)
	}
	for _, page := range []string{"/", "/docs"} {
		if _, body := fetchText(t, "GET", web.URL+page, ""); strings.Contains(body, `="/`) {
			t.Errorf("%s has links that a root path breaks", page)
		}
	}
}

func TestDefaultModel(t *testing.T) {
	const chat = `{"messages":[{"role":"user","content":"hi"}]`
	web := serverOf(t, Config{DefaultModel: "fake"})
	for _, body := range []string{chat + `,"model":"gpt-3.5-turbo"}`, chat + `}`, chat + `,"model":""}`} {
		if status, text := fetchText(t, "POST", web.URL+"/v1/chat/completions", body); status != 200 || !strings.Contains(text, `"model":"fake"`) {
			t.Errorf("%s: %d %s", body, status, text)
		}
	}
	strict := serverOf(t, Config{})
	if status, text := fetchText(t, "POST", strict.URL+"/v1/chat/completions", chat+`,"model":"gpt-3.5-turbo"}`); status != 404 {
		t.Errorf("without a default: %d %s", status, text)
	}
}
