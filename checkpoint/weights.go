package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// File names of the usual layouts.
const (
	weightsFile = "model.safetensors"
	indexFile   = "model.safetensors.index.json"
	adapterFile = "adapter_model.safetensors"
	maxShards   = 4096
)

// Weights are the tensors of one or several safetensors files. Files on disk are mapped: a tensor's bytes are read
// when they are touched, so a file must not shrink while it is open.
type Weights struct {
	tensors map[string]Tensor
	mapped  [][]byte
	bytes   int64
}

// Weights opens model.safetensors or, without it, the shards that model.safetensors.index.json lists.
func (c *Checkpoint) Weights() (*Weights, error) {
	if _, err := fs.Stat(c.files, weightsFile); !errors.Is(err, fs.ErrNotExist) {
		return c.openFiles([]string{weightsFile}, nil)
	}
	shards, index, err := c.readIndex()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: no such file, nor %s%s", weightsFile, indexFile, c.otherWeights())
	}
	if err != nil {
		return nil, err
	}
	if err := c.haveAll(shards); err != nil {
		return nil, err
	}
	return c.openFiles(shards, index)
}

// otherWeights names files that look like weights although nothing reads them.
func (c *Checkpoint) otherWeights() string {
	var found []string
	for _, pattern := range []string{"*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf"} {
		names, _ := fs.Glob(c.files, pattern) // the patterns are good
		found = append(found, names...)
	}
	if len(found) == 0 {
		return ""
	}
	return fmt.Sprintf("; not read: %s", some(found))
}

// haveAll reports all shards that are not there.
func (c *Checkpoint) haveAll(shards []string) error {
	var missing []string
	for _, name := range shards {
		if _, err := fs.Stat(c.files, name); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%s: no such file, though %s lists it", some(missing), indexFile)
}

// some lists names, but not very many.
func some(names []string) string {
	const most = 8
	if n := len(names) - most; n > 0 {
		names = append(slices.Clone(names[:most]), fmt.Sprintf("and %d more", n))
	}
	return strings.Join(names, ", ")
}

// AdapterWeights opens adapter_model.safetensors.
func (c *Checkpoint) AdapterWeights() (*Weights, error) {
	return c.openFiles([]string{adapterFile}, nil)
}

// readIndex returns the shards in order and, per tensor, its shard.
func (c *Checkpoint) readIndex() (shards []string, index map[string]string, err error) {
	data, err := c.ReadFile(indexFile)
	if err != nil {
		return nil, nil, err
	}
	var file struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", indexFile, plain(err))
	}
	if len(file.WeightMap) == 0 {
		return nil, nil, fmt.Errorf("%s: no weight_map", indexFile)
	}
	shards = slices.Compact(slices.Sorted(maps.Values(file.WeightMap)))
	if len(shards) > maxShards {
		return nil, nil, fmt.Errorf("%s: %d shards, at most %d are read", indexFile, len(shards), maxShards)
	}
	for _, name := range shards {
		if !fs.ValidPath(name) || path.Base(name) != name || name == "." {
			return nil, nil, fmt.Errorf("%s: shard %.120q is not a file of this folder", indexFile, name)
		}
	}
	return shards, file.WeightMap, nil
}

// openFiles opens the files and joins their tensors. With an index each tensor must be where the index says, if it says.
func (c *Checkpoint) openFiles(names []string, index map[string]string) (*Weights, error) {
	w := &Weights{tensors: map[string]Tensor{}}
	for _, name := range names {
		if err := w.add(c, name, index); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	for tensor, name := range index {
		if _, ok := w.tensors[tensor]; !ok {
			return nil, errors.Join(fmt.Errorf("%s: tensor %.120q is not in %s", indexFile, tensor, name), w.Close())
		}
	}
	return w, nil
}

func (w *Weights) add(c *Checkpoint, name string, index map[string]string) error {
	f, size, err := c.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := w.load(f, size)
	if err != nil {
		return fmt.Errorf("%s: %w", name, cause(err))
	}
	tensors, err := parseSafetensors(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for tensor, t := range tensors {
		if listed, ok := index[tensor]; ok && listed != name {
			return fmt.Errorf("%s: has tensor %.120q, which %s has in %s", name, tensor, indexFile, listed)
		}
		if _, ok := w.tensors[tensor]; ok {
			return fmt.Errorf("%s: tensor %.120q is in another file too", name, tensor)
		}
		w.tensors[tensor] = t
		w.bytes += int64(len(t.Data))
	}
	return nil
}

// load maps a file of the operating system and reads any other.
func (w *Weights) load(f fs.File, size int64) ([]byte, error) {
	if size < 8 || int64(int(size)) != size {
		return nil, fmt.Errorf("truncated: %d bytes", size)
	}
	if file, ok := f.(*os.File); ok {
		data, err := mapFile(file, int(size))
		if err == nil {
			w.mapped = append(w.mapped, data)
			return data, nil
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			return nil, err
		}
	}
	data := make([]byte, size)
	_, err := io.ReadFull(f, data)
	return data, err
}

// Names lists the tensors, sorted.
func (w *Weights) Names() []string { return slices.Sorted(maps.Keys(w.tensors)) }

// Bytes is the size of all tensors.
func (w *Weights) Bytes() int64 { return w.bytes }

// Tensor returns the named tensor. Its data is valid until Close.
func (w *Weights) Tensor(name string) (Tensor, bool) {
	t, ok := w.tensors[name]
	return t, ok
}

// Release gives the memory that a mapped tensor's pages occupy back to the system. The tensor stays readable: touched
// again, it is read from the file again.
func (w *Weights) Release(name string) {
	if t, ok := w.tensors[name]; ok && len(w.mapped) > 0 {
		releasePages(t.Data)
	}
}

// Close unmaps the files; no tensor may be used after it.
func (w *Weights) Close() error {
	var errs []error
	for _, data := range w.mapped {
		errs = append(errs, unmapFile(data))
	}
	w.mapped, w.tensors = nil, nil
	return errors.Join(errs...)
}
