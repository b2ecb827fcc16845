package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pagoda/engine"
	"pagoda/kernels"
)

// TestUsage: mistakes of the command line end with exit code 2, all else does not.
func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args  string
		usage bool
	}{
		{"nosuch", true}, {"help nosuch", true}, {"help serve more", true}, {"doctor more", true}, {"flags --nosuch", true},
		{"serve --prot 3", true}, {"chat --port 3", true}, {"bench --requests 0", true}, {"health stray", true},
		{"", false}, {"help", false}, {"help serve", false}, {"help api", false}, {"help health", false}, {"chat --help", false},
		{"--version", false}, {"version", false}, {"flags", false}, {"doctor", false}, {"bench --print-config", false},
	} {
		root := rootCommand()
		root.SetArgs(strings.Fields(tc.args))
		if err := root.Execute(); errors.Is(err, errUsage) != tc.usage || (err != nil && !tc.usage) {
			t.Errorf("pagoda %s: %v", tc.args, err)
		}
	}
}

func TestDoctor(t *testing.T) {
	var out strings.Builder
	if err := doctor(&out); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, v := range variants {
		known[v.name] = true
	}
	for i, name := range kernels.Variants() {
		want := "runs here\n"
		if i == 0 {
			want = "runs here, the default\n"
		}
		line := ""
		for l := range strings.Lines(out.String()) {
			if f := strings.Fields(l); f[0] == "kernels" && f[1] == name {
				line = l
			}
		}
		if name == "avx512bf16" && i > 0 {
			want = "runs here; not the default, as Intel's bfloat16 dot products are the slower ones\n"
		}
		if !known[name] || !strings.HasSuffix(line, want) {
			t.Errorf("variant %s: %q", name, line)
		}
	}
	for _, want := range []string{"threads ", "memory ", "cuda ", "Qwen3ForCausalLM", "ModernBertModel"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

func TestHealth(t *testing.T) {
	status := http.StatusOK
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ready" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		w.WriteHeader(status)
	}))
	address := strings.TrimPrefix(web.URL, "http://")
	if err := checkReady(address); err != nil {
		t.Error(err)
	}
	status = http.StatusServiceUnavailable
	if err := checkReady(address); err == nil || !strings.Contains(err.Error(), "not ready: 503") {
		t.Errorf("not ready: %v", err)
	}
	web.Close()
	if err := checkReady(address); err == nil || !strings.Contains(err.Error(), "no server answers at "+address) {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestDefaultModel(t *testing.T) {
	models := []engine.Model{{ID: "m"}, {ID: "sql", Parent: "m"}}
	for name, want := range map[string]string{"": "", "m": "", "sql": "", "sqll": `default_model: there is no model or adapter "sqll", only m, sql`} {
		got := ""
		if err := checkDefaultModel(name, models); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
