package blackbox

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// output runs pagoda to its end and returns what it printed.
func output(t *testing.T, code int, args ...string) string {
	t.Helper()
	p := command(t, nil, args...)
	p.wantExit(t, limit, code)
	return p.stdout.String()
}

func TestCommands(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		want []string // patterns, each on a line of its own
	}{
		{[]string{"version"}, 0, []string{`^pagoda \S+, commit \S+, go1\.\S+ linux/\w+$`}},
		{[]string{"help"}, 0, []string{`^  serve `, `^  chat `, `^  flags `, `^  doctor `, `^  version `}},
		{nil, 0, []string{`^  serve `}},
		{[]string{"doctor"}, 0, []string{`^build +pagoda `, `^cpu +\S`, `^threads +\d`, `^memory +.* GiB`,
			`^kernels portable +runs here`, `^kernels neon +\S`, `^kernels .*, the default$`, `^cuda +not in this build`}},
		{[]string{"flags"}, 0, []string{`^  --port +int +`, `^  --drain_timeout +duration +.*default 30s`, `PAGODA|API_KEY`}},
		{[]string{"serve", "--help"}, 0, []string{`^  pagoda serve \[config\.yaml\]`, `^  --port +int +`}},
		{[]string{"api", "--help"}, 0, []string{`^  --port +int +`}},
		{[]string{"chat", "--help"}, 0, []string{`^  --url +text +`}},
		{[]string{"health", "--port", "1"}, 1, nil},
		{[]string{"frobnicate"}, 2, nil},
		{[]string{"version", "frobnicate"}, 2, nil},
		{[]string{"flags", "--frobnicate"}, 2, nil},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			got := output(t, tt.code, tt.args...)
			for _, pattern := range tt.want {
				if !regexp.MustCompile(`(?m)` + pattern).MatchString(got) {
					t.Errorf("no line like %s in\n%s", pattern, got)
				}
			}
		})
	}
}

func TestHealthCommand(t *testing.T) {
	p := serve(t)
	if got := output(t, 0, "health", "--port", p.url[strings.LastIndex(p.url, ":")+1:]); got != "ready\n" {
		t.Errorf("got %q", got)
	}
}

// TestChatCommand: lines on standard input are answered, by a model in the process or by a server.
func TestChatCommand(t *testing.T) {
	for _, args := range [][]string{{"chat"}, {"chat", "--url", serve(t).url + "/v1"}} {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		cmd := exec.CommandContext(ctx, program(t), args...)
		cmd.Env = []string{"HOME=" + t.TempDir()}
		cmd.Stdin = strings.NewReader("hi\nWhat is 12 + 7?\n")
		got, err := cmd.Output()
		if err != nil || string(got) != "Hi! How can I help you?\n12 + 7 = 19.\n" {
			t.Errorf("%v: %q, %v", args, got, err)
		}
	}
}

// TestPrintConfig: where each value comes from, weaker sources first; keys are never shown.
func TestPrintConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "serve.yaml")
	if err := os.WriteFile(file, []byte("port: 1001\nmax_queue: 7\nthreads: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := command(t, []string{"API_PORT=1002", "PAGODA_THREADS=4", "API_KEY=canary"}, "serve", file, "host=localhost",
		"--port", "1003", "--print-config")
	p.wantExit(t, limit, 0)
	got := p.stdout.String()
	for _, want := range []string{`^port +1003 +--port$`, `^threads +4 +PAGODA_THREADS$`, `^max_queue +7 +\S*serve\.yaml:2$`,
		`^host +localhost +\S+`, `^max_num_seqs +64 +default$`, `^api_key +\*+ +API_KEY$`} {
		if !regexp.MustCompile(`(?m)` + want).MatchString(got) {
			t.Errorf("no line like %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, "canary") {
		t.Error("the key is shown")
	}
}

// TestOptionsTable: the README's table of options is what the program prints.
func TestOptionsTable(t *testing.T) {
	_, rest, begins := strings.Cut(readme(t), "<!-- options:begin -->\n")
	got, _, ends := strings.Cut(rest, "<!-- options:end -->")
	if !begins || !ends {
		t.Fatal("README.md lacks the lines <!-- options:begin --> and <!-- options:end -->")
	}
	if want := output(t, 0, "flags", "--markdown"); strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Error("README.md's table of options is not what pagoda flags --markdown prints; put that between its markers")
	}
}
