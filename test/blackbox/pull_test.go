package blackbox

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	builtin "pagoda/models/demo"
)

// modelHub serves the built-in model as pagoda/demo the way Hugging Face does. The first download of the weights never ends
// after their first half; begun is closed once it is there.
func modelHub(t *testing.T) (url string, begun chan struct{}, ranged *atomic.Bool) {
	begun, ranged = make(chan struct{}), new(atomic.Bool)
	const commit = "0123456789abcdef0123456789abcdef01234567"
	files := map[string][]byte{}
	for _, name := range []string{"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"} {
		data, err := fs.ReadFile(builtin.FS(), name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	var first atomic.Bool
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/models/pagoda/demo/revision/") {
			var siblings []any
			for name, data := range files {
				git, large := sha1.New(), sha256.Sum256(data)
				fmt.Fprintf(git, "blob %d\x00%s", len(data), data)
				f := map[string]any{"rfilename": name, "size": len(data), "blobId": hex.EncodeToString(git.Sum(nil))}
				if name == "model.safetensors" {
					f["lfs"] = map[string]any{"sha256": hex.EncodeToString(large[:]), "size": len(data)}
				}
				siblings = append(siblings, f)
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"sha": commit, "siblings": siblings})
			return
		}
		name := strings.TrimPrefix(r.URL.Path, "/pagoda/demo/resolve/"+commit+"/")
		data, ok := files[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if name == "model.safetensors" && first.CompareAndSwap(false, true) {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data[:len(data)/2])
			w.(http.Flusher).Flush()
			close(begun)
			<-r.Context().Done()
			return
		}
		if name == "model.safetensors" && r.Header.Get("Range") != "" {
			ranged.Store(true)
		}
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(web.Close)
	return web.URL, begun, ranged
}

// TestPull: a pull that is killed goes on where it was, and the model is then served by its id, with the hub and without.
func TestPull(t *testing.T) {
	url, begun, ranged := modelHub(t)
	cache := t.TempDir()
	env := []string{"HF_ENDPOINT=" + url}
	killed := command(t, env, "pull", "pagoda/demo", "--cache-dir", cache)
	<-begun
	eventually(t, limit, "half of the weights", func() bool {
		parts, err := filepath.Glob(filepath.Join(cache, "models--pagoda--demo", "blobs", "*.incomplete"))
		if err != nil || len(parts) != 1 {
			return false
		}
		info, err := os.Stat(parts[0])
		return err == nil && info.Size() > 3<<20
	})
	if err := killed.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-killed.ended

	again := command(t, env, "pull", "pagoda/demo", "--cache-dir", cache, "--revision", "main")
	again.wantExit(t, limit, 0)
	dir := strings.TrimSpace(again.stdout.String())
	if _, err := os.Stat(filepath.Join(dir, "model.safetensors")); err != nil || !ranged.Load() {
		t.Errorf("in %q: %v; continued: %t", dir, err, ranged.Load())
	}

	p := serveIn(t, env, "--model", "pagoda/demo", "--cache-dir", cache)
	p.wantText(t, say("pagoda/demo", "hi"), "Hi! How can I help you?")
	offline := serve(t, "--model", "pagoda/demo", "--cache-dir", cache, "--hub-offline")
	offline.wantText(t, say("pagoda/demo", "hi"), "Hi! How can I help you?")

	for _, tt := range []struct {
		want string
		args []string
	}{
		{"no such model", []string{"pull", "pagoda/other", "--cache-dir", cache}},
		{"downloads are turned off", []string{"pull", "pagoda/other", "--cache-dir", cache, "--hub-offline"}},
		{"which model?", []string{"pull"}},
		{"not the id of a model", []string{"chat", "--model", "./no/such/folder"}},
	} {
		bad := command(t, env, tt.args...)
		<-bad.ended
		if bad.err == nil || !strings.Contains(bad.tail(3), tt.want) {
			t.Errorf("%q: %v, %s", tt.args, bad.err, bad.tail(3))
		}
	}
}
