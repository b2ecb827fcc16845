package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cache is one model's part of the cache.
type cache struct {
	root   string // of all models
	folder string // "models--ORG--NAME"
}

func (c cache) path(parts ...string) string {
	return filepath.Join(append([]string{c.root, c.folder}, parts...)...)
}

func (c cache) snapshot(commit string) string { return c.path("snapshots", commit) }

// ref reads the commit that a revision was at when it was last asked for; "" if it never was.
func (c cache) ref(revision string) string {
	if isCommit.MatchString(revision) {
		return revision
	}
	data, err := os.ReadFile(c.path("refs", revision))
	if commit := strings.TrimSpace(string(data)); err == nil && isCommit.MatchString(commit) {
		return commit
	}
	return ""
}

func (c cache) setRef(revision, commit string) error {
	if isCommit.MatchString(revision) {
		return nil
	}
	path := c.path("refs", revision)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return writeFile(path, []byte(commit))
}

// writeFile replaces a file at once.
func writeFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

// tokenizers are the files that a model's tokenizer may be in.
var tokenizers = []string{"tokenizer.json", "tekken.json", "tokenizer.model", "tiktoken.model", "spiece.model",
	"sentencepiece.bpe.model", "vocab.txt", "vocab.json", "qwen.tiktoken"}

// complete says whether a folder has what serving needs: its configuration and all weights that it names, with textOnly a
// tokenizer in their place.
func complete(dir string, textOnly bool) bool {
	has := func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}
	if has("adapter_config.json") {
		return has("adapter_model.safetensors")
	}
	if !has("config.json") {
		return false
	}
	if textOnly {
		return slices.ContainsFunc(tokenizers, has)
	}
	data, err := os.ReadFile(filepath.Join(dir, "model.safetensors.index.json"))
	if err != nil {
		return has("model.safetensors")
	}
	var index struct {
		Weights map[string]string `json:"weight_map"`
	}
	if json.Unmarshal(data, &index) != nil || len(index.Weights) == 0 {
		return false
	}
	for _, shard := range index.Weights {
		if checkName(shard) != nil || !has(shard) {
			return false
		}
	}
	return true
}

// lock waits until no other process downloads the blob. Where the file system has no locks, blobs may be downloaded twice.
func (c cache) lock(ctx context.Context, etag string) (unlock func(), err error) {
	path := filepath.Join(c.root, ".locks", c.folder, etag+".lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		switch err := tryLock(f); {
		case err == nil || errors.Is(err, errors.ErrUnsupported):
			return func() { _ = f.Close() }, nil // which unlocks
		case !errors.Is(err, errLocked):
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
}

// link puts a blob into a snapshot: by a link, or by a copy where there are none.
func (c cache) link(commit, name, etag string) error {
	path := filepath.Join(c.snapshot(commit), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	blob := c.path("blobs", etag)
	to, err := filepath.Rel(filepath.Dir(path), blob)
	if err != nil {
		return err
	}
	if now, err := os.Readlink(path); err == nil && now == to {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(to, path); err == nil || errors.Is(err, fs.ErrExist) {
		return nil
	}
	return copyFile(path, blob)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
