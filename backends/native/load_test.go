package native

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rs/zerolog"

	"pagoda/models/demo"
)

// demoFiles is the built-in model's folder, to be changed.
func demoFiles(t *testing.T) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	for _, name := range []string{"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} {
		data, err := fs.ReadFile(demo.FS(), name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: data}
	}
	return files
}

// TestLoadNamesTheBadFile breaks one file or two: the error is of the tokenizer where that is broken, although it is
// read beside the weights, and everything is given back (goleak, and the device's own count).
func TestLoadNamesTheBadFile(t *testing.T) {
	for name, c := range map[string]struct {
		change func(fstest.MapFS)
		want   string
	}{
		"tokenizer":  {func(f fstest.MapFS) { f["tokenizer.json"].Data = []byte(`{"version":"7"}`) }, "tokenizer"},
		"no file":    {func(f fstest.MapFS) { delete(f, "tokenizer.json") }, "tokenizer.json"},
		"weights":    {func(f fstest.MapFS) { f["model.safetensors"].Data = []byte("12345678") }, "model.safetensors"},
		"no weights": {func(f fstest.MapFS) { delete(f, "model.safetensors") }, "model.safetensors"},
		"both": {func(f fstest.MapFS) {
			f["tokenizer.json"].Data = []byte("[")
			delete(f, "model.safetensors")
		}, "tokenizer"},
	} {
		t.Run(name, func(t *testing.T) {
			files := demoFiles(t)
			c.change(files)
			_, err := New(Options{Files: files, Name: "m", Log: zerolog.Nop()})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "still held") {
				t.Errorf("error is %v, want one that names %s", err, c.want)
			}
		})
	}
}

// TestRopeScaling: the option doubles how long sequences may be.
func TestRopeScaling(t *testing.T) {
	for kind, want := range map[string]int{"": 1024, "none": 1024, "linear": 2048, "dynamic": 2048, "yarn": 2048, "llama3": 2048} {
		e := open(t, Options{RopeScaling: kind, KVCacheBytes: 64 << 20})
		if e.maxLen != want {
			t.Errorf("rope_scaling %q: sequences of %d tokens, want %d", kind, e.maxLen, want)
		}
	}
	if _, err := New(Options{Files: demoFiles(t), Name: "m", RopeScaling: "longrope", Log: zerolog.Nop()}); err == nil ||
		!strings.Contains(err.Error(), "rope_scaling") {
		t.Errorf("error %v", err)
	}
}
