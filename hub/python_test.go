package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// library is Hugging Face's own library on one cache, in front of s.
type library struct {
	t      *testing.T
	python string
	env    []string
}

func newLibrary(t *testing.T, env ...string) *library {
	t.Helper()
	python, err := filepath.Abs("../build/venv-hub/bin/python")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(python); err != nil {
		t.Skip("the hubs' own libraries are not installed (make hub-python does that)")
	}
	return &library{t, python, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "HF_HUB_DISABLE_PROGRESS_BARS=1", "HF_HUB_DISABLE_XET=1"}, env...)}
}

// do runs a function of test/python/hub.py. An error has the name of the exception.
func (l *library) do(to any, what map[string]any) (exception, message string) {
	l.t.Helper()
	in, err := json.Marshal(what)
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.CommandContext(l.t.Context(), l.python, "../test/python/hub.py")
	cmd.Env, cmd.Stdin = l.env, bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	answer := struct {
		Answer         any
		Error, Message string
	}{Answer: to}
	if err != nil || json.Unmarshal(out, &answer) != nil {
		l.t.Fatalf("%v, %s\n%s", err, out, stderr.Bytes())
	}
	return answer.Error, answer.Message
}

func (l *library) pull(revision string, more map[string]any) (dir string) {
	l.t.Helper()
	what := map[string]any{"do": "pull", "id": "o/m", "revision": revision}
	maps.Copy(what, more)
	if exception, message := l.do(&dir, what); exception != "" {
		l.t.Fatalf("%s: %s", exception, message)
	}
	return dir
}

// TestPython: what Hugging Face's library has downloaded is used here, and the other way round, with nothing downloaded twice.
func TestPython(t *testing.T) {
	for _, xet := range []bool{false, true} {
		s := newHubServer(t)
		s.xet = xet
		o := s.options(t, HuggingFace)
		l := newLibrary(t, "HF_ENDPOINT="+s.web.URL, "HF_HUB_CACHE="+o.Cache)
		theirs := l.pull("main", map[string]any{"allow_patterns": wanted})
		before := s.contents()
		ours, err := Pull(context.Background(), o)
		if err != nil || ours != theirs {
			t.Fatalf("%s, %v, theirs is %s", ours, err, theirs)
		}
		s.hasAll(t, ours)
		if !maps.Equal(before, s.contents()) {
			t.Errorf("downloaded again: %v after %v", s.contents(), before)
		}

		o = s.options(t, HuggingFace)
		l = newLibrary(t, "HF_ENDPOINT="+s.web.URL, "HF_HUB_CACHE="+o.Cache)
		if ours, err = Pull(context.Background(), o); err != nil {
			t.Fatal(err)
		}
		before = s.contents()
		for _, local := range []bool{true, false} {
			if theirs := l.pull("main", map[string]any{"local_files_only": local, "allow_patterns": wanted}); theirs != ours {
				t.Errorf("local %t: theirs is %s, ours %s", local, theirs, ours)
			}
		}
		if !maps.Equal(before, s.contents()) {
			t.Errorf("they downloaded again: %v after %v", s.contents(), before)
		}
		s.hasAll(t, ours)
		var scan struct {
			Warnings  []string
			Revisions []struct {
				ID, Commit  string
				Refs, Files []string
			}
		}
		if exception, message := l.do(&scan, map[string]any{"do": "scan"}); exception != "" || len(scan.Warnings) > 0 || len(scan.Revisions) != 1 {
			t.Fatalf("%s: %s; %+v", exception, message, scan)
		}
		if r := scan.Revisions[0]; r.ID != "o/m" || r.Commit != s.commit || !slices.Equal(r.Refs, []string{"main"}) || len(r.Files) != len(wanted) {
			t.Errorf("%+v", r)
		}
		s.web.Close() // the rest is offline
		var path string
		offline := newLibrary(t, "HF_HUB_OFFLINE=1", "HF_HUB_CACHE="+o.Cache)
		if exception, message := offline.do(&path, map[string]any{"do": "load", "id": "o/m", "file": "config.json"}); exception != "" ||
			path != filepath.Join(ours, "config.json") {
			t.Errorf("offline: %s, %s: %s", path, exception, message)
		}
	}
}

// TestPythonMoves: a branch that moves on does so for both, and what has not changed is not downloaded again.
func TestPythonMoves(t *testing.T) {
	s := newHubServer(t)
	o := s.options(t, HuggingFace)
	l := newLibrary(t, "HF_ENDPOINT="+s.web.URL, "HF_HUB_CACHE="+o.Cache)
	first := l.pull("main", map[string]any{"allow_patterns": wanted})
	move := func(commit string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.commit = strings.Repeat(commit, 20)
		s.files = maps.Clone(s.files)
		s.files["config.json"] = []byte(`{"architectures":["LlamaForCausalLM"],"at":"` + commit + `"}`)
	}
	move("b2")
	second, err := Pull(context.Background(), o)
	if err != nil || second == first {
		t.Fatal(second, err)
	}
	s.hasAll(t, second)
	if theirs := l.pull("main", map[string]any{"local_files_only": true}); theirs != second {
		t.Errorf("they are at %s, we at %s", theirs, second)
	}
	move("c3")
	third := l.pull("main", map[string]any{"allow_patterns": wanted})
	offline := o
	offline.Offline = true
	if ours, err := Pull(context.Background(), offline); err != nil || ours != third {
		t.Errorf("we are at %s, they at %s, %v", ours, third, err)
	}
	if n := s.contents()["model.safetensors"]; n != 1 {
		t.Errorf("the weights were downloaded %d times", n)
	}
}

// TestPythonTogether: both at once download each file once: they hold the same locks.
func TestPythonTogether(t *testing.T) {
	s := newHubServer(t)
	o := s.options(t, HuggingFace)
	l := newLibrary(t, "HF_ENDPOINT="+s.web.URL, "HF_HUB_CACHE="+o.Cache)
	arrived, met := make(chan string, 1), make(chan struct{})
	s.fault = func(_ http.ResponseWriter, _ *http.Request, name string, try int) bool {
		if name == "model.safetensors" && try == 1 {
			arrived <- name
			<-met // until the other has asked for everything else
		}
		return false
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.pull("main", map[string]any{"allow_patterns": wanted}) })
	<-arrived
	wg.Go(func() {
		if dir, err := Pull(context.Background(), o); err != nil {
			t.Error(err)
		} else {
			s.hasAll(t, dir)
		}
	})
	time.Sleep(250 * time.Millisecond) // nothing tells that somebody waits for a lock
	close(met)
	wg.Wait()
	if n := s.contents()["model.safetensors"]; n != 1 {
		t.Errorf("the weights were downloaded %d times", n)
	}
}

// TestPythonRefused: both give up on the same.
func TestPythonRefused(t *testing.T) {
	s := newHubServer(t)
	for _, tt := range []struct {
		id, revision, token string // the token that is wanted
		exception, ours     string
	}{
		{"o/other", "main", "", "RepositoryNotFoundError", "no such model"},
		{"o/m", "v9", "", "RevisionNotFoundError", `no revision "v9"`},
		{"o/m", "main", "secret", "GatedRepoError", "licence"},
	} {
		s.token = tt.token
		o := s.options(t, HuggingFace)
		o.ID, o.Revision = tt.id, tt.revision
		l := newLibrary(t, "HF_ENDPOINT="+s.web.URL, "HF_HUB_CACHE="+o.Cache)
		exception, message := l.do(nil, map[string]any{"do": "pull", "id": tt.id, "revision": tt.revision})
		if exception != tt.exception {
			t.Errorf("%+v: %s: %s", tt, exception, message)
		}
		if _, err := Pull(context.Background(), o); err == nil || !strings.Contains(err.Error(), tt.ours) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// TestPythonEnvironment: the same variables mean the same.
func TestPythonEnvironment(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"token": "from-file\n", "home/.cache/huggingface/token": " from-home "} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	home := filepath.Join(dir, "home")
	var envs []map[string]string
	for _, env := range []map[string]string{
		{},
		{"HF_HOME": "/x"},
		{"HF_HOME": "~/x"},
		{"HF_HOME": "$HOME/y", "HF_ENDPOINT": "https://mirror/"},
		{"XDG_CACHE_HOME": "/c"},
		{"HF_HUB_CACHE": "~/z"},
		{"HUGGINGFACE_HUB_CACHE": "/old"},
		{"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_CACHE": "/new"},
		{"HF_TOKEN": "t"},
		{"HF_TOKEN": " t\n"},
		{"HUGGING_FACE_HUB_TOKEN": "old"},
		{"HF_TOKEN_PATH": filepath.Join(dir, "token")},
		{"HF_TOKEN_PATH": filepath.Join(dir, "nowhere")},
		{"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"},
		{"HF_HUB_OFFLINE": "1"},
		{"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
		{"HF_HUB_OFFLINE": "YES"},
		{"HF_HUB_OFFLINE": "2"},
		{"TRANSFORMERS_OFFLINE": "on"},
	} {
		env["HOME"] = home
		envs = append(envs, env)
	}
	var theirs []struct {
		Endpoint, Cache, Token string
		Offline                bool
	}
	if exception, message := newLibrary(t).do(&theirs, map[string]any{"do": "environments", "list": envs}); exception != "" {
		t.Fatalf("%s: %s", exception, message)
	}
	for i, env := range envs {
		o := Options{}.FromEnvironment(func(name string) string { return env[name] })
		if want := theirs[i]; o.Endpoint != want.Endpoint || o.Cache != want.Cache || o.Token != want.Token || o.Offline != want.Offline {
			t.Errorf("%v: %+v, theirs %+v", env, o, want)
		}
	}
}

// TestPythonModelScope: what ModelScope's library has downloaded is not downloaded again.
func TestPythonModelScope(t *testing.T) {
	s := newHubServer(t)
	o := s.options(t, ModelScope)
	l := newLibrary(t, "MODELSCOPE_ENDPOINT="+s.web.URL)
	var theirs string
	if exception, message := l.do(&theirs, map[string]any{"do": "modelscope", "id": "o/m", "revision": "master", "cache": o.Cache}); exception != "" {
		t.Fatalf("%s: %s", exception, message)
	}
	before := s.contents()
	ours, err := Pull(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	s.hasAll(t, ours)
	if !maps.Equal(before, s.contents()) {
		t.Errorf("downloaded again: %v after %v", s.contents(), before)
	}
	o.Offline = true
	if err := os.RemoveAll(filepath.Join(o.Cache, "models--o--m")); err != nil {
		t.Fatal(err)
	}
	if dir, err := Pull(context.Background(), o); err != nil || dir != theirs {
		t.Errorf("offline: %s, %v, theirs is %s", dir, err, theirs)
	}
}
