package hub

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// hubServer speaks the three hubs' dialects for one model, with its large files on another host, as Hugging Face has them.
type hubServer struct {
	t        *testing.T
	web, cdn *httptest.Server

	mu     sync.Mutex // guards what follows
	commit string
	files  map[string][]byte
	token  string // wanted, if any
	xet    bool   // large files are in Xet's store too, as the newest repositories' are; it is not there
	leaked bool   // the token reached the other host
	served map[string]int
	bytes  map[string]int
	// fault may answer a request for a file in place of the server; it says whether it has.
	fault func(w http.ResponseWriter, r *http.Request, name string, try int) bool
}

const large = 64 << 10 // bytes from which a file is on the other host

func newHubServer(t *testing.T) *hubServer {
	s := &hubServer{t: t, commit: strings.Repeat("a1", 20), served: map[string]int{}, bytes: map[string]int{}}
	random := make([]byte, 3<<20)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	s.files = map[string][]byte{
		"config.json":           []byte(`{"architectures":["LlamaForCausalLM"]}`),
		"tokenizer.json":        random[:200_000],
		"model.safetensors":     random,
		"README.md":             []byte("not needed"),
		"pytorch_model.bin":     []byte("not needed"),
		"onnx/model.onnx":       []byte("not needed"),
		"1_Pooling/config.json": []byte(`{}`),
	}
	s.cdn = httptest.NewServer(http.HandlerFunc(s.serveCDN))
	s.web = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.cdn.Close)
	t.Cleanup(s.web.Close)
	return s
}

func sha256Of(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func gitOf(data []byte) string {
	sum := sha1.New()
	fmt.Fprintf(sum, "blob %d\x00%s", len(data), data)
	return hex.EncodeToString(sum.Sum(nil))
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (s *hubServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	token, commit := s.token, s.commit
	s.mu.Unlock()
	if token != "" && r.Header.Get("Authorization") != "Bearer "+token {
		w.Header().Set("X-Error-Code", "GatedRepo")
		w.Header().Set("X-Error-Message", "Access to model is restricted")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	at := r.URL.Path
	switch {
	case strings.HasPrefix(at, "/api/models/o/m/revision/"):
		s.huggingFaceList(w, strings.TrimPrefix(at, "/api/models/o/m/revision/"))
	case at == "/api/models/o/m/tree/"+commit: // which Python's library asks for
		s.huggingFaceTree(w)
	case strings.HasPrefix(at, "/o/m/resolve/"+commit+"/"):
		s.resolve(w, r, strings.TrimPrefix(at, "/o/m/resolve/"+commit+"/"))
	case at == "/api/v1/models/o/m/repo/files" && r.URL.Query().Get("Revision") == "master":
		s.modelScopeFiles(w, r.URL.Query())
	case at == "/api/v1/models/o/m/repo":
		s.content(w, r, r.URL.Query().Get("FilePath"))
	case at == "/api/v1/file/o/m":
		s.modelersTree(w, r.URL.Query().Get("path"))
	case at == "/api/v1/file/o/m/info":
		data := s.all()[r.URL.Query().Get("path")]
		etag := gitOf(data)
		if len(data) >= large {
			etag = sha256Of(data)
		}
		reply(w, 200, map[string]any{"data": map[string]any{"branch_last_commit": commit, "etag": `"` + etag + `"`, "size": len(data)}})
	case strings.HasPrefix(at, "/api/v1/file/o/m/"+commit+"/media/"):
		s.content(w, r, strings.TrimPrefix(at, "/api/v1/file/o/m/"+commit+"/media/"))
	default:
		w.Header().Set("X-Error-Code", "RepoNotFound")
		reply(w, 404, map[string]any{"error": "Repository not found"})
	}
}

func (s *hubServer) all() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files
}

func (s *hubServer) huggingFaceList(w http.ResponseWriter, revision string) {
	if revision != "main" && revision != s.commit {
		w.Header().Set("X-Error-Code", "RevisionNotFound")
		reply(w, 404, map[string]any{"error": "Invalid rev id: " + revision})
		return
	}
	var siblings []any
	for name, data := range s.all() {
		f := map[string]any{"rfilename": name, "size": len(data), "blobId": gitOf(data)}
		if len(data) >= large {
			f["lfs"] = map[string]any{"sha256": sha256Of(data), "size": len(data), "pointerSize": 134}
		}
		siblings = append(siblings, f)
	}
	reply(w, 200, map[string]any{"id": "o/m", "sha": s.commit, "siblings": siblings, "gated": false})
}

func (s *hubServer) huggingFaceTree(w http.ResponseWriter) {
	tree := []any{map[string]any{"type": "directory", "path": "onnx", "oid": gitOf(nil), "size": 0}}
	for name, data := range s.all() {
		f := map[string]any{"type": "file", "path": name, "oid": gitOf(data), "size": len(data)}
		if len(data) >= large {
			f["lfs"] = map[string]any{"oid": sha256Of(data), "size": len(data), "pointerSize": 134}
			if s.xet {
				f["xetHash"] = sha256Of([]byte(name))
			}
		}
		tree = append(tree, f)
	}
	reply(w, 200, tree)
}

// modelScopeFiles lists a folder, or all, and of many the first.
func (s *hubServer) modelScopeFiles(w http.ResponseWriter, query url.Values) {
	root, folders := query.Get("Root"), map[string]bool{}
	var files []any
	for _, name := range slices.Sorted(maps.Keys(s.all())) {
		data := s.all()[name]
		dir := path.Dir(name)
		if dir != "." && !folders[dir] && root == "" {
			folders[dir] = true
			files = append(files, map[string]any{"Path": dir, "Type": "tree", "Size": 0})
		}
		if query.Get("Recursive") == "True" || dir == cmp.Or(root, ".") {
			files = append(files, map[string]any{"Path": name, "Type": "blob", "Size": len(data), "Sha256": sha256Of(data)})
		}
	}
	files = files[:min(len(files), modelScopeLimit)]
	reply(w, 200, map[string]any{"Code": 200, "Success": true, "Data": map[string]any{"Files": files}})
}

func (s *hubServer) modelersTree(w http.ResponseWriter, folder string) {
	var tree []any
	seen := map[string]bool{}
	for name := range s.all() {
		rest := name
		if folder != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(name, folder+"/"); !ok {
				continue
			}
		}
		if dir, _, ok := strings.Cut(rest, "/"); !ok {
			tree = append(tree, map[string]any{"type": "file", "path": name})
		} else if !seen[dir] {
			seen[dir] = true
			tree = append(tree, map[string]any{"type": "dir", "path": dir})
		}
	}
	reply(w, 200, map[string]any{"data": map[string]any{"tree": tree}})
}

func (s *hubServer) resolve(w http.ResponseWriter, r *http.Request, name string) {
	data, ok := s.all()[name]
	if !ok {
		w.Header().Set("X-Error-Code", "EntryNotFound")
		reply(w, 404, map[string]any{"error": "Entry not found"})
		return
	}
	w.Header().Set("X-Repo-Commit", s.commit)
	if len(data) < large {
		w.Header().Set("ETag", `"`+gitOf(data)+`"`)
		s.content(w, r, name)
		return
	}
	if s.xet {
		w.Header().Set("X-Xet-Hash", sha256Of([]byte(name)))
		w.Header().Set("Link", `<`+s.web.URL+`/api/models/o/m/xet-read-token/`+s.commit+`>; rel="xet-auth"`)
	}
	w.Header().Set("X-Linked-Etag", `"`+sha256Of(data)+`"`)
	w.Header().Set("X-Linked-Size", strconv.Itoa(len(data)))
	http.Redirect(w, r, s.cdn.URL+"/"+name+"?signature=x", http.StatusFound)
}

func (s *hubServer) serveCDN(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
		s.mu.Lock()
		s.leaked = true
		s.mu.Unlock()
	}
	s.content(w, r, strings.TrimPrefix(r.URL.Path, "/"))
}

// content serves a file, or its fault.
func (s *hubServer) content(w http.ResponseWriter, r *http.Request, name string) {
	if r.Method == http.MethodHead {
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(s.all()[name]))
		return
	}
	s.mu.Lock()
	s.served[name]++
	try, fault, data := s.served[name], s.fault, s.files[name]
	s.mu.Unlock()
	if fault != nil && fault(w, r, name, try) {
		return
	}
	counted := &counting{ResponseWriter: w}
	http.ServeContent(counted, r, name, time.Time{}, bytes.NewReader(data))
	s.mu.Lock()
	s.bytes[name] += counted.n
	s.mu.Unlock()
}

type counting struct {
	http.ResponseWriter
	n int
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n += n
	return n, err
}

// contents are how often each file was downloaded.
func (s *hubServer) contents() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.served)
}
