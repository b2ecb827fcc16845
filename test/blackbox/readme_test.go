package blackbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// The README's examples are run word for word, against a server with default options. A block is run if the line
// <!-- run --> stands right above its fence; if <!-- output --> and a block of text stand right below, that is what it
// must print, where … stands for anything within a line.

const (
	runMark    = "<!-- run -->"
	outputMark = "<!-- output -->"
	readmeURL  = "localhost:8000"
)

// example is a block of code with what it prints.
type example struct {
	line     int // of the mark
	language string
	code     string
	want     *string // nil: not told
}

func readme(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(root + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// examples finds the marked blocks of a Markdown text.
func examples(text string) ([]example, error) {
	lines := strings.Split(text, "\n")
	var out []example
	for i := 0; i < len(lines); i++ {
		switch lines[i] {
		case outputMark:
			return nil, fmt.Errorf("line %d: %s is not right below a block that is run", i+1, outputMark)
		case runMark:
		default:
			continue
		}
		e := example{line: i + 1}
		var err error
		if e.language, e.code, i, err = fenced(lines, i+1); err != nil {
			return nil, err
		}
		if i < len(lines) && lines[i] == outputMark {
			language, want, after, err := fenced(lines, i+1)
			if err != nil {
				return nil, err
			}
			if language != "text" {
				return nil, fmt.Errorf("line %d: the output is a block of %q, not text", i+2, language)
			}
			e.want, i = &want, after
		}
		i-- // the line after the block is looked at too
		out = append(out, e)
	}
	return out, nil
}

// fenced reads the block whose fence is line i, and returns the number of the line after it.
func fenced(lines []string, i int) (language, code string, after int, err error) {
	if i >= len(lines) || !strings.HasPrefix(lines[i], "```") {
		return "", "", 0, fmt.Errorf("line %d: a block of code must follow at once", i+1)
	}
	language = strings.TrimPrefix(lines[i], "```")
	for end := i + 1; end < len(lines); end++ {
		if lines[end] == "```" {
			return language, strings.Join(lines[i+1:end], "\n"), end + 1, nil
		}
	}
	return "", "", 0, fmt.Errorf("line %d: the block has no end", i+1)
}

// matches says whether a program printed what the README says.
func matches(want, got string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(want)), "…", ".*")
	return regexp.MustCompile("^" + pattern + "$").MatchString(strings.TrimSpace(got))
}

func TestReadme(t *testing.T) {
	all, err := examples(readme(t))
	if err != nil {
		t.Fatal("README.md: ", err)
	}
	if len(all) == 0 {
		t.Fatalf("README.md has no block marked %s", runMark)
	}
	address := readmeServer(t)
	for _, e := range all {
		t.Run(fmt.Sprintf("%s in line %d", e.language, e.line), func(t *testing.T) {
			e.run(t, address)
		})
	}
}

// readmeServer serves where the README says, or on a free port if that one is taken.
func readmeServer(t *testing.T) string {
	t.Helper()
	args := []string{"--port", "8000"}
	if l, err := net.Listen("tcp", "127.0.0.1:8000"); err != nil {
		args = nil
	} else {
		l.Close()
	}
	return strings.Replace(strings.TrimPrefix(serve(t, args...).url, "http://"), "127.0.0.1", "localhost", 1)
}

// run runs the example and compares what it prints.
func (e example) run(t *testing.T, address string) {
	code := strings.ReplaceAll(e.code, readmeURL, address)
	if strings.Contains(strings.ReplaceAll(code, address, ""), "8000") && address != readmeURL {
		t.Fatalf("the example names port 8000 other than as %s", readmeURL)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
	defer cancel()
	cmd := e.command(t, ctx, code)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program(t))+":"+os.Getenv("PATH"), "NO_PROXY=localhost")
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that what a shell started ends with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, stdout.String(), stderr.String())
	}
	if e.want != nil && !matches(*e.want, stdout.String()) {
		t.Errorf("it printed\n%s\nbut README.md says\n%s", stdout.String(), *e.want)
	}
}

// command runs code in its language, with the packages that the suites of test/python and test/node have installed.
func (e example) command(t *testing.T, ctx context.Context, code string) *exec.Cmd {
	t.Helper()
	var cmd *exec.Cmd
	switch e.language {
	case "sh":
		need(t, "bash")
		need(t, "curl")
		cmd = exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-c", code)
		cmd.Dir = root
	case "python":
		python := root + "/build/venv-clients/bin/python"
		needFile(t, python, "sh test/python/run.sh clients")
		cmd = exec.CommandContext(ctx, python, "-c", code)
	case "js":
		need(t, "node")
		needFile(t, root+"/build/node/node_modules/openai", "sh test/node/run.sh")
		cmd = exec.CommandContext(ctx, "node", "--input-type=module", "-e", code)
		cmd.Dir = root + "/build/node"
	case "go":
		file := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd = exec.CommandContext(ctx, "go", "run", file)
		cmd.Dir = root
	default:
		t.Fatalf("no way to run a block of %q", e.language)
	}
	return cmd
}

func need(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
}

func needFile(t *testing.T, path, made string) {
	t.Helper()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s is not there; %s makes it", strings.TrimPrefix(path, root+"/"), made)
	}
}

func TestExamples(t *testing.T) {
	const block = "```sh\necho 1\n```\n"
	all, err := examples("a\n```sh\nnot run\n```\n" + runMark + "\n" + block + outputMark + "\n```text\n1\n2\n```\n" +
		runMark + "\n```js\n```\n" + runMark + "\n" + block)
	if err != nil || len(all) != 3 || all[0].code != "echo 1" || *all[0].want != "1\n2" || all[0].line != 5 ||
		all[1].language != "js" || all[1].want != nil || all[2].code != "echo 1" {
		t.Errorf("%+v, %v", all, err)
	}
	for _, bad := range []string{runMark + "\n\n" + block, runMark, runMark + "\n```sh\necho", outputMark + "\n```text\n```",
		runMark + "\n" + block + "\n" + outputMark + "\n```text\n```", runMark + "\n" + block + outputMark + "\n```sh\n```"} {
		if all, err := examples(bad); err == nil {
			t.Errorf("%q: %+v", bad, all)
		}
	}
	for _, tt := range []struct {
		want, got string
		matches   bool
	}{
		{"a\nb", "\na\nb\n", true}, {"a…c", "abbc", true}, {"a…c", "ac", true}, {"a…c", "a\nc", false}, {"…b…", "abc", true},
		{"a.c", "abc", false}, {"a", "aa", false}, {"a\n…\nc", "a\nbb\nc", true},
	} {
		if got := matches(tt.want, tt.got); got != tt.matches {
			t.Errorf("%q and %q: %t", tt.want, tt.got, got)
		}
	}
}
