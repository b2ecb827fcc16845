package blackbox

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

// root is the repository.
const root = "../.."

// scratch holds the program under test.
var scratch string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "pagoda-blackbox")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	go starter()
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// program is the path of pagoda, built as the tests are: with the race detector if they have it.
func program(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var build = sync.OnceValues(func() (string, error) {
	if err := touchSources(); err != nil {
		return "", err
	}
	path := filepath.Join(scratch, "pagoda")
	args := []string{"build", "-o", path}
	if raceDetector() {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/pagoda")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// touchSources reads all folders of the program's sources. go test takes a result from its cache while the files that a
// test looked at are the same; it does not know what the go command that we start looks at.
func touchSources() error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && path != root {
			switch name := d.Name(); {
			case strings.HasPrefix(name, "."), name == "bin", name == "build", name == "node_modules":
				return fs.SkipDir
			}
		}
		return err
	})
}

func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// limit is how long something that takes moments may take on a busy machine before a test calls it stuck.
const limit = 30 * time.Second

// start is a command on its way to the starter.
type start struct {
	cmd *exec.Cmd
	err chan error
}

var starts = make(chan start)

// starter starts all processes from one thread that lives as long as the tests: the kernel ends a process when the
// thread that started it ends (Pdeathsig), so none outlives the tests, however they end.
func starter() {
	runtime.LockOSThread()
	for s := range starts {
		s.err <- s.cmd.Start()
	}
}

// eventually waits until cond holds. It asks again and again, because what it waits for is another process's doing.
func eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(within)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !cond() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// parallel runs f(0) to f(n-1) on that many goroutines.
func parallel(workers, n int, f func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
