// Package checkpoint reads model files: safetensors by mmap, one file or several with an index, and the JSON beside
// them. Nothing in a checkpoint is trusted: sizes, offsets, names and links are checked, and no code in it ever runs.
//
//	Open / OpenFS ──► Checkpoint ──► Config, GenerationConfig, AdapterConfig   config.go, adapter.go
//	                      └────────► Weights ──► Tensor                        weights.go, safetensors.go, mmap_*.go
package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json/jsontext"
)

// maxFile bounds the files that ReadFile takes whole; the largest tokenizers have some 40 MB.
const maxFile = 256 << 20

// Checkpoint is a folder of model files.
type Checkpoint struct {
	files fs.FS
	root  *os.Root // nil if the files are not on disk

	overrides map[string]jsontext.Value // keys of config.json
}

// Open opens a folder on disk. Links that leave it are refused, but for a snapshot in a hub cache, whose files are
// links into the blobs folder of the same repository.
func Open(path string) (*Checkpoint, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	base, sub := path, "."
	if repo := filepath.Dir(filepath.Dir(path)); filepath.Base(filepath.Dir(path)) == "snapshots" && isDir(repo, "blobs") {
		base, sub = repo, "snapshots/"+filepath.Base(path)
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint %s: %w", filepath.Base(path), cause(err))
	}
	files, err := fs.Sub(root.FS(), sub)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open checkpoint %s: %w", filepath.Base(path), err), root.Close())
	}
	return &Checkpoint{files: files, root: root}, nil
}

func isDir(path, name string) bool {
	info, err := os.Stat(filepath.Join(path, name))
	return err == nil && info.IsDir()
}

// OpenFS takes the files from fsys, for a model that is built into the program.
func OpenFS(fsys fs.FS) *Checkpoint { return &Checkpoint{files: fsys} }

// Close releases the folder. Open Weights stay valid.
func (c *Checkpoint) Close() error {
	if c.root == nil {
		return nil
	}
	return c.root.Close()
}

// ReadFile reads one of the small files whole. An absent one is fs.ErrNotExist.
func (c *Checkpoint) ReadFile(name string) ([]byte, error) {
	data, err := c.readFile(name)
	if err != nil || name != "config.json" {
		return data, err
	}
	return c.override(data)
}

func (c *Checkpoint) readFile(name string) ([]byte, error) {
	f, size, err := c.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxFile {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are read", name, size, maxFile)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("%s: %w", name, cause(err))
	}
	return data, nil
}

// open opens a regular file; anything else (a pipe would block) is refused before it is opened.
func (c *Checkpoint) open(name string) (f fs.File, size int64, err error) {
	info, err := fs.Stat(c.files, name)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, cause(err))
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: not a regular file", name)
	}
	f, err = c.files.Open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, cause(err))
	}
	return f, info.Size(), nil
}

// cause strips the path from a file error: messages name files by base name only.
func cause(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
