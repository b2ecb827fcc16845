package checkpoint

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestWeights(t *testing.T) {
	index := `{"weight_map":{"a":"one.safetensors","b":"two.safetensors"}}`
	files := map[string][]byte{
		"model.safetensors.index.json": []byte(index),
		"one.safetensors":              byteTensor("a", 7),
		"two.safetensors":              byteTensor("b", 8),
	}
	memory := fstest.MapFS{}
	for name, data := range files {
		memory[name] = &fstest.MapFile{Data: data}
	}
	for name, c := range map[string]*Checkpoint{"disk": folder(t, files), "memory": OpenFS(memory)} {
		t.Run(name, func(t *testing.T) {
			w, err := c.Weights()
			if err != nil {
				t.Fatal(err)
			}
			if names := w.Names(); !slices.Equal(names, []string{"a", "b"}) || w.Bytes() != 2 {
				t.Errorf("names %v, %d bytes", names, w.Bytes())
			}
			w.Release("b")
			if b, ok := w.Tensor("b"); !ok || b.Data[0] != 8 {
				t.Errorf("b = %+v, %v", b, ok)
			}
			if _, ok := w.Tensor("c"); ok {
				t.Error("found a tensor that is not there")
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestBadFolders(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret.safetensors")
	if err := os.WriteFile(secret, byteTensor("a", 1), 0o600); err != nil {
		t.Fatal(err)
	}
	index := func(shard string) map[string][]byte {
		return map[string][]byte{"model.safetensors.index.json": []byte(`{"weight_map":{"a":"` + shard + `"}}`)}
	}
	tests := []struct {
		name  string
		files map[string][]byte
		link  string // target of model.safetensors
		want  string
	}{
		{"nothing there", nil, "", "model.safetensors: no such file, nor model.safetensors.index.json"},
		{"other formats", map[string][]byte{"pytorch_model.bin": nil, "m-q4.gguf": nil}, "", "not read: pytorch_model.bin, m-q4.gguf"},
		{"broken file", map[string][]byte{"model.safetensors": []byte("123456789")}, "", "model.safetensors: header of"},
		{"short file", map[string][]byte{"model.safetensors": []byte("1234")}, "", "model.safetensors: truncated"},
		{"link that leaves", nil, secret, "model.safetensors: path escapes"},
		{"link to itself", nil, "model.safetensors", "model.safetensors: "},
		{"folder as file", nil, ".", "not a regular file"},
		{"index with parent", index("../secret.safetensors"), "", "is not a file of this folder"},
		{"index with absolute path", index(secret), "", "is not a file of this folder"},
		{"index with dot", index("."), "", "is not a file of this folder"},
		{"index with empty name", index(""), "", "is not a file of this folder"},
		{"index without shard", index("one.safetensors"), "", "one.safetensors: no such file"},
		{"index without many shards", map[string][]byte{"model.safetensors.index.json": []byte(`{"weight_map":{"a":"1","b":"2","c":"3"}}`), "2": nil},
			"", "1, 3: no such file, though model.safetensors.index.json lists it"},
		{"index is not JSON", map[string][]byte{"model.safetensors.index.json": []byte("{")}, "", "index.json: "},
		{"index without map", map[string][]byte{"model.safetensors.index.json": []byte("{}")}, "", "no weight_map"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.link != "" {
				if err := os.Symlink(tt.link, filepath.Join(dir, "model.safetensors")); err != nil {
					t.Fatal(err)
				}
			}
			_, err := open(t, dir).Weights()
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), dir) {
				t.Errorf("error %v, want one with %q and without the folder", err, tt.want)
			}
		})
	}
}

func TestIndexAndFilesMustAgree(t *testing.T) {
	tests := []struct{ name, index, want string }{
		{"tensor not in file", `{"a":"s","x":"s"}`, `tensor "x" is not in s`},
		{"tensor elsewhere", `{"x":"s","a":"t"}`, `s: has tensor "a", which model.safetensors.index.json has in t`},
		{"tensor twice", `{"x":"s","y":"t"}`, `t: tensor "a" is in another file too`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := folder(t, map[string][]byte{
				"model.safetensors.index.json": []byte(`{"weight_map":` + tt.index + `}`), "s": byteTensor("a", 1), "t": byteTensor("a", 1)})
			if _, err := c.Weights(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestBriefIndex: what a shard has counts, listed or not, as it does for the reference.
func TestBriefIndex(t *testing.T) {
	both := file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 1, 2)
	w, err := folder(t, map[string][]byte{"s": both, "model.safetensors.index.json": []byte(`{"weight_map":{"a":"s"}}`)}).Weights()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if names := w.Names(); !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("tensors %v", names)
	}
}

// TestStaleIndex: a single file goes before the index of shards that a folder may still have from before.
func TestStaleIndex(t *testing.T) {
	w, err := folder(t, map[string][]byte{"model.safetensors": byteTensor("a", 1),
		"model.safetensors.index.json": []byte(`{"weight_map":{"b":"gone"}}`)}).Weights()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if names := w.Names(); !slices.Equal(names, []string{"a"}) {
		t.Errorf("tensors %v", names)
	}
}

// TestHubCache: the files of a snapshot are links to blobs of the same repository, which is allowed; a link that
// leaves the repository is not.
func TestHubCache(t *testing.T) {
	repo := filepath.Join(t.TempDir(), "models--a--b")
	snapshot := filepath.Join(repo, "snapshots", "0123")
	for _, dir := range []string{filepath.Join(repo, "blobs"), snapshot} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(filepath.Dir(repo), "outside")
	if err := errors.Join(
		os.WriteFile(filepath.Join(repo, "blobs", "beef"), byteTensor("a", 3), 0o600),
		os.WriteFile(outside, byteTensor("a", 3), 0o600),
		os.Symlink("../../blobs/beef", filepath.Join(snapshot, "model.safetensors")),
		os.Symlink(outside, filepath.Join(snapshot, "adapter_model.safetensors"))); err != nil {
		t.Fatal(err)
	}
	c := open(t, snapshot)
	w, err := c.Weights()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if a, _ := w.Tensor("a"); a.Data[0] != 3 {
		t.Errorf("a = %+v", a)
	}
	if _, err := c.AdapterWeights(); err == nil {
		t.Error("followed a link out of the repository")
	}
}

func TestReadFile(t *testing.T) {
	c := folder(t, map[string][]byte{"x.json": []byte("{}")})
	if data, err := c.ReadFile("x.json"); err != nil || string(data) != "{}" {
		t.Errorf("%q, %v", data, err)
	}
	for _, name := range []string{"y.json", "../x.json", "/etc/hostname"} {
		if _, err := c.ReadFile(name); err == nil {
			t.Errorf("read %s", name)
		}
	}
	if _, err := c.ReadFile("y.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent folder: %v", err)
	}
}
