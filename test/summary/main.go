// Command summary runs go test with the arguments given and prints one line a package, the full output of what
// failed, and a count. Reasons of skipped tests are appended to the file named by -skips, one line each.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
)

// event is a line of go test -json (go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output events
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

func main() {
	args := os.Args[1:]
	skipsPath := ""
	if len(args) > 1 && args[0] == "-skips" {
		skipsPath, args = args[1], args[2:]
	}
	if err := run(skipsPath, args); err != nil {
		fmt.Fprintln(os.Stderr, "test:", err)
		os.Exit(1)
	}
}

func run(skipsPath string, args []string) error {
	cmd := exec.Command(cmp.Or(os.Getenv("GO"), "go"), append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s := summary{output: map[string]*strings.Builder{}, failedIn: map[string]bool{}}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			s.line(line)
		}
		if err != nil {
			break
		}
	}
	waitErr := cmd.Wait()
	if skipsPath != "" {
		if err := appendLines(skipsPath, s.skips); err != nil {
			return err
		}
	}
	fmt.Printf("%d tests passed, %d failed, %d skipped\n", s.passed, len(s.failed), len(s.skips))
	for _, name := range s.failed {
		fmt.Println("failed:", name)
	}
	if waitErr != nil {
		return fmt.Errorf("go test: %w", waitErr)
	}
	return nil
}

type summary struct {
	output   map[string]*strings.Builder // by package and test
	passed   int
	failed   []string // tests, and packages without a failed test
	failedIn map[string]bool
	skips    []string
}

func (s *summary) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		os.Stdout.Write(line) // not an event: a message of go itself
		return
	}
	key := e.Package + "\x00" + e.Test
	switch e.Action {
	case "build-output":
		fmt.Print(e.Output)
	case "output":
		if s.output[key] == nil {
			s.output[key] = &strings.Builder{}
		}
		s.output[key].WriteString(e.Output)
	case "pass", "fail", "skip":
		s.done(e, key)
	}
}

func (s *summary) done(e event, key string) {
	var text string
	if b := s.output[key]; b != nil {
		text = b.String()
		delete(s.output, key)
	}
	switch {
	case e.Test == "" && e.Action == "skip": // no test files
	case e.Test == "":
		fmt.Printf("%-5s %s (%.1fs)\n", e.Action, e.Package, e.Elapsed)
		if e.Action == "fail" {
			fmt.Print(text)
			if !s.failedIn[e.Package] {
				s.failed = append(s.failed, e.Package) // it did not build, or ended outside a test
			}
		}
	case e.Action == "skip":
		s.skips = append(s.skips, fmt.Sprintf("%s %s: %s", path.Base(e.Package), e.Test, reason(text)))
	case e.Action == "fail":
		s.failedIn[e.Package] = true
		s.failed = append(s.failed, path.Base(e.Package)+" "+e.Test)
		fmt.Print(text)
	default:
		s.passed++
	}
}

// reason finds the message of t.Skip in a test's output: the line before the verdict, without its file name.
func reason(text string) string {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if file, rest, ok := strings.Cut(line, ": "); ok && strings.Contains(file, ".go:") {
			return strings.TrimPrefix(rest, "skipped: ")
		}
		return line
	}
	return "no reason given"
}

func appendLines(name string, lines []string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	for _, l := range lines {
		fmt.Fprintln(f, l)
	}
	return f.Close()
}
