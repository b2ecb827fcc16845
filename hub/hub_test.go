package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// options pull from s into a new cache, with short pauses.
func (s *hubServer) options(t *testing.T, h Hub) Options {
	return Options{Hub: h, Endpoint: s.web.URL, Cache: t.TempDir(), ID: "o/m", Pause: time.Millisecond, Stall: 300 * time.Millisecond}
}

var wanted = []string{"1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"}

// hasAll holds a snapshot to the server's files.
func (s *hubServer) hasAll(t *testing.T, dir string) {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		names = append(names, name)
		if data, readErr := os.ReadFile(path); readErr != nil || !bytes.Equal(data, s.all()[filepath.ToSlash(name)]) {
			t.Errorf("%s: %d bytes, %v", name, len(data), readErr)
		}
		return err
	})
	if err != nil || !slices.Equal(names, wanted) {
		t.Fatalf("%s holds %q, want %q, %v", dir, names, wanted, err)
	}
}

func TestPull(t *testing.T) {
	for _, h := range []Hub{HuggingFace, ModelScope, Modelers} {
		t.Run(string(h), func(t *testing.T) {
			s := newHubServer(t)
			o := s.options(t, h)
			var last Progress
			o.Progress = func(p Progress) { last = p }
			dir, err := Pull(context.Background(), o)
			if err != nil {
				t.Fatal(err)
			}
			s.hasAll(t, dir)
			if last.Done != last.Total || last.Files != len(wanted) || last.Total != 3<<20+200_000+int64(len(s.files["config.json"]))+2 {
				t.Errorf("progress %+v", last)
			}
			before := s.served["model.safetensors"]
			again, err := Pull(context.Background(), o)
			if err != nil || again != dir || s.served["model.safetensors"] != before {
				t.Errorf("a second pull: %s, %v, %d downloads", again, err, s.served["model.safetensors"]-before)
			}
			o.Offline = true
			if again, err = Pull(context.Background(), o); err != nil || again != dir {
				t.Errorf("offline: %s, %v", again, err)
			}
			o.Cache = t.TempDir()
			if _, err = Pull(context.Background(), o); err == nil || !strings.Contains(err.Error(), "offline") {
				t.Errorf("offline and not there: %v", err)
			}
		})
	}
}

// TestTextOnly: a pull without weights is complete for those who want none, and for nobody else.
func TestTextOnly(t *testing.T) {
	s := newHubServer(t)
	o := s.options(t, HuggingFace)
	o.TextOnly = true
	dir, err := Pull(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "tokenizer.json")); err != nil || s.served["model.safetensors"] != 0 {
		t.Errorf("%v, weights were served %d times", err, s.served["model.safetensors"])
	}
	o.Offline = true
	if again, err := Pull(context.Background(), o); err != nil || again != dir {
		t.Errorf("offline: %s, %v", again, err)
	}
	o.TextOnly = false
	if _, err := Pull(context.Background(), o); err == nil {
		t.Error("a model without weights is taken for complete")
	}
	o.Offline = false
	if dir, err = Pull(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	s.hasAll(t, dir)
}

// TestLayout is the one that huggingface_hub 2.4 writes and reads (file_download.py).
func TestLayout(t *testing.T) {
	s := newHubServer(t)
	o := s.options(t, HuggingFace)
	dir, err := Pull(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(o.Cache, "models--o--m")
	if dir != filepath.Join(root, "snapshots", s.commit) {
		t.Errorf("snapshot at %s", dir)
	}
	if ref, err := os.ReadFile(filepath.Join(root, "refs", "main")); err != nil || string(ref) != s.commit {
		t.Errorf("refs/main is %q, %v", ref, err)
	}
	for name, etag := range map[string]string{"config.json": gitOf(s.files["config.json"]), "model.safetensors": sha256Of(s.files["model.safetensors"])} {
		if to, err := os.Readlink(filepath.Join(dir, name)); err != nil || to != "../../blobs/"+etag {
			t.Errorf("%s links to %q, %v", name, to, err)
		}
	}
}

// TestFaults: every broken connection is mended by going on, and nothing wrong is ever kept.
func TestFaults(t *testing.T) {
	part := func(w http.ResponseWriter, data []byte, from, to int, status int) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
		w.Header().Set("Content-Length", fmt.Sprint(len(data)-from))
		w.WriteHeader(status)
		_, _ = w.Write(data[from:to])
	}
	for _, tt := range []struct {
		name  string
		fault func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool
		want  string // in the error; "" is success
		most  int    // bytes served whole beyond one copy; 0: not looked at
	}{
		{"cut in the middle", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			if try == 1 {
				part(w, s.files["model.safetensors"], 0, 1<<20, 200)
			}
			return try == 1
		}, "", 2<<20 + 1000},
		{"cut again and again", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			from := 0
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			if to := from + 200_000; to < len(s.files["model.safetensors"]) {
				status := 206
				if from == 0 {
					status = 200
				}
				part(w, s.files["model.safetensors"], from, to, status)
				return true
			}
			return false
		}, "", 0},
		{"errors that pass", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			switch try {
			case 1:
				w.WriteHeader(500)
			case 2:
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(429)
			case 3:
				w.WriteHeader(503)
			}
			return try <= 3
		}, "", 0},
		{"errors that stay", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			w.WriteHeader(502)
			return true
		}, "6 times in a row: HTTP status 502", 0},
		{"another range than asked for", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			switch try {
			case 1:
				part(w, s.files["model.safetensors"], 0, 1<<20, 200)
			case 2:
				part(w, s.files["model.safetensors"], 5, 1<<20, 206)
			}
			return try <= 2
		}, "", 0},
		{"a range is not satisfiable", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			switch try {
			case 1:
				part(w, s.files["model.safetensors"], 0, 1<<20, 200)
			case 2:
				w.WriteHeader(416)
			}
			return try <= 2
		}, "", 0},
		{"ranges are not known", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			if try == 1 {
				part(w, s.files["model.safetensors"], 0, 1<<20, 200)
			} else {
				_, _ = w.Write(s.files["model.safetensors"])
			}
			return true
		}, "", 0},
		{"stalled", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			if try == 1 {
				w.Header().Set("Content-Length", fmt.Sprint(len(s.files["model.safetensors"])))
				_, _ = w.Write(s.files["model.safetensors"][:1000])
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
			return try == 1
		}, "", 0},
		{"wrong contents once", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			if try == 1 {
				_, _ = w.Write(make([]byte, len(s.files["model.safetensors"])))
			}
			return try == 1
		}, "", 0},
		{"wrong contents", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			_, _ = w.Write(make([]byte, len(s.files["model.safetensors"])))
			return true
		}, "has the hash", 0},
		{"longer than announced", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			_, _ = w.Write(append(slices.Clone(s.files["model.safetensors"]), 1))
			return true
		}, "longer than the", 0},
		{"a page in place of the file", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			_, _ = w.Write([]byte("<html>please log in</html>"))
			return true
		}, "of 3145728 bytes", 0},
		{"redirected for ever", func(s *hubServer, w http.ResponseWriter, r *http.Request, try int) bool {
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
			return true
		}, "10 redirects", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newHubServer(t)
			s.fault = func(w http.ResponseWriter, r *http.Request, name string, try int) bool {
				return name == "model.safetensors" && tt.fault(s, w, r, try)
			}
			o := s.options(t, HuggingFace)
			dir, err := Pull(context.Background(), o)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				s.hasAll(t, dir)
				if got := s.bytes["model.safetensors"]; tt.most > 0 && got > tt.most {
					t.Errorf("%d bytes served after the fault, want the rest only", got)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(o.Cache, "models--o--m", "blobs", sha256Of(s.files["model.safetensors"]))); err == nil {
				t.Error("a file that is not whole was kept")
			}
		})
	}
}

// TestResume: a cancelled pull goes on where it was.
func TestResume(t *testing.T) {
	s := newHubServer(t)
	ctx, cancel := context.WithCancel(context.Background())
	s.fault = func(w http.ResponseWriter, r *http.Request, name string, try int) bool {
		if name != "model.safetensors" || try > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(s.files[name])))
		_, _ = w.Write(s.files[name][:2<<20])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	o := s.options(t, HuggingFace)
	o.Progress = func(p Progress) {
		if p.Done >= 2<<20 {
			cancel()
		}
	}
	if _, err := Pull(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	o.Progress = nil
	dir, err := Pull(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	s.hasAll(t, dir)
	if got := s.bytes["model.safetensors"]; got >= 3<<20 {
		t.Errorf("%d bytes served again", got)
	}
}

// TestTogether: pulls of one model at the same time download each file once.
func TestTogether(t *testing.T) {
	s := newHubServer(t)
	o := s.options(t, HuggingFace)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if dir, err := Pull(context.Background(), o); err != nil {
				t.Error(err)
			} else {
				s.hasAll(t, dir)
			}
		})
	}
	wg.Wait()
	if n := s.served["model.safetensors"]; n != 1 {
		t.Errorf("%d downloads", n)
	}
}

func TestToken(t *testing.T) {
	s := newHubServer(t)
	s.token = "secret"
	o := s.options(t, HuggingFace)
	if _, err := Pull(context.Background(), o); err == nil || !strings.Contains(err.Error(), "licence") || !strings.Contains(err.Error(), "hf_hub_token") {
		t.Errorf("without a token: %v", err)
	}
	o.Token = "secret"
	dir, err := Pull(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	s.hasAll(t, dir)
	if s.leaked {
		t.Error("the token went to another host")
	}
}

// TestUnreachable: what was downloaded before is used while the hub is away.
func TestUnreachable(t *testing.T) {
	s := newHubServer(t)
	o := s.options(t, HuggingFace)
	dir, err := Pull(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	s.web.Close()
	var note string
	o.Note = func(message string) { note = message }
	if again, err := Pull(context.Background(), o); err != nil || again != dir || !strings.Contains(note, "cannot be reached") {
		t.Errorf("%s, %v, note %q", again, err, note)
	}
	o.Cache = t.TempDir()
	if _, err := Pull(context.Background(), o); err == nil {
		t.Error("pulled from nowhere")
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(s *hubServer, o *Options)
		want   string
	}{
		{"no such model", func(_ *hubServer, o *Options) { o.ID = "o/other" }, "no such model"},
		{"no such revision", func(_ *hubServer, o *Options) { o.Revision = "v9" }, `no revision "v9"`},
		{"no id", func(_ *hubServer, o *Options) { o.ID = "../etc" }, "not the id of a model"},
		{"revision that leaves", func(_ *hubServer, o *Options) { o.Revision = "a/../../b" }, "is no revision"},
		{"name that leaves", func(s *hubServer, _ *Options) { s.files["../../x.json"] = []byte("{}") }, "which is no name"},
		{"absolute name", func(s *hubServer, _ *Options) { s.files["/etc/x.json"] = []byte("{}") }, "which is no name"},
		{"commit that leaves", func(s *hubServer, _ *Options) { s.commit = "../../../x" }, "names the commit"},
		{"only pickled weights", func(s *hubServer, _ *Options) { delete(s.files, "model.safetensors") }, "not in safetensors but in pytorch_model.bin"},
		{"no weights", func(s *hubServer, _ *Options) {
			delete(s.files, "model.safetensors")
			delete(s.files, "pytorch_model.bin")
		}, "no weights in safetensors"},
		{"no address", func(_ *hubServer, o *Options) { o.Endpoint = "huggingface.co" }, "is not like"},
		{"no hub", func(_ *hubServer, o *Options) { o.Hub = "git" }, "no hub is named"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newHubServer(t)
			o := s.options(t, HuggingFace)
			tt.change(s, &o)
			if _, err := Pull(context.Background(), o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			entries, err := os.ReadDir(filepath.Dir(o.Cache))
			if err != nil || len(entries) != 1 {
				t.Errorf("beside the cache: %v, %v", entries, err)
			}
		})
	}
}

// TestModelScopesLibrary: what ModelScope's own library has downloaded is used: offline as it is, else file by file if it is what the hub has.
func TestModelScopesLibrary(t *testing.T) {
	for _, at := range []string{"models/o--m/snapshots/master", "models/o/m", "hub/models/o/m"} {
		s := newHubServer(t)
		o := s.options(t, ModelScope)
		theirs := filepath.Join(o.Cache, at)
		for _, name := range wanted {
			path := filepath.Join(theirs, name)
			data := s.files[name]
			if name == "tokenizer.json" {
				data = bytes.Repeat([]byte("x"), len(data)) // of another revision
			}
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		offline := o
		offline.Offline = true
		if dir, err := Pull(context.Background(), offline); err != nil || dir != theirs {
			t.Errorf("%s, offline: %s, %v", at, dir, err)
		}
		dir, err := Pull(context.Background(), o)
		if err != nil || dir == theirs {
			t.Fatal(at, dir, err)
		}
		s.hasAll(t, dir)
		if want := map[string]int{"tokenizer.json": 1}; !maps.Equal(s.contents(), want) {
			t.Errorf("%s: downloaded %v", at, s.contents())
		}
		s.web.Close()
		if err := os.RemoveAll(filepath.Join(o.Cache, "models--o--m")); err != nil {
			t.Fatal(err)
		}
		if dir, err := Pull(context.Background(), o); err != nil || dir != theirs {
			t.Errorf("%s, with the hub away: %s, %v", at, dir, err)
		}
	}
}

// TestModelScopeMany: the hub lists no more than so many files at once.
func TestModelScopeMany(t *testing.T) {
	s := newHubServer(t)
	for i := range modelScopeLimit {
		s.files[fmt.Sprintf("0/%d.txt", i)] = nil
	}
	dir, err := Pull(context.Background(), s.options(t, ModelScope))
	if err != nil {
		t.Fatal(err)
	}
	s.hasAll(t, dir)
}

func TestFromEnvironment(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		o    Options
		env  map[string]string
		want Options
	}{
		{"nothing", Options{}, map[string]string{"HOME": "/h"},
			Options{Hub: HuggingFace, Endpoint: "https://huggingface.co", Cache: "/h/.cache/huggingface/hub"}},
		{"all", Options{}, map[string]string{"HF_HOME": "/x", "HF_ENDPOINT": "https://mirror", "HF_TOKEN": "t", "HF_HUB_OFFLINE": "1"},
			Options{Hub: HuggingFace, Endpoint: "https://mirror", Cache: "/x/hub", Token: "t", Offline: true}},
		{"token file", Options{}, map[string]string{"HF_HUB_CACHE": "/c", "HF_TOKEN_PATH": token},
			Options{Hub: HuggingFace, Endpoint: "https://huggingface.co", Cache: "/c", Token: "from-file"}},
		{"options first", Options{Cache: "/mine", Token: "own"}, map[string]string{"HF_HUB_CACHE": "/c", "HF_TOKEN": "t"},
			Options{Hub: HuggingFace, Endpoint: "https://huggingface.co", Cache: "/mine", Token: "own"}},
		{"modelscope", Options{Hub: ModelScope}, map[string]string{"MODELSCOPE_CACHE": "/m", "MODELSCOPE_API_TOKEN": "t", "HF_TOKEN": "no"},
			Options{Hub: ModelScope, Endpoint: "https://www.modelscope.cn", Cache: "/m", Token: "t"}},
		{"modelscope's address", Options{Hub: ModelScope}, map[string]string{"MODELSCOPE_ENDPOINT": "modelscope.ai/", "MODELSCOPE_CACHE": "~/m", "HOME": "/h"},
			Options{Hub: ModelScope, Endpoint: "https://modelscope.ai", Cache: "/h/m"}},
		{"what shells do", Options{}, map[string]string{"HOME": "/h", "HF_HOME": "~/x/$Y/$Z", "Y": "y", "HF_TOKEN": "t\n", "HF_ENDPOINT": "https://mirror/"},
			Options{Hub: HuggingFace, Endpoint: "https://mirror", Cache: "/h/x/y/${Z}/hub", Token: "t"}},
		{"no token by itself", Options{}, map[string]string{"HF_HOME": "/x", "HF_TOKEN": "t", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"},
			Options{Hub: HuggingFace, Endpoint: "https://huggingface.co", Cache: "/x/hub"}},
		{"online after all", Options{}, map[string]string{"HF_HOME": "/x", "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
			Options{Hub: HuggingFace, Endpoint: "https://huggingface.co", Cache: "/x/hub"}},
		{"modelers", Options{Hub: Modelers}, map[string]string{"XDG_CACHE_HOME": "/c"},
			Options{Hub: Modelers, Endpoint: "https://modelers.cn", Cache: "/c/openmind/hub"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.o.FromEnvironment(func(name string) string { return tt.env[name] })
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", tt.want) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}
