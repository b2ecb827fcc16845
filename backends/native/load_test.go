package native

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/rs/zerolog"

	"pagoda/engine"
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
		"tokenizer":          {func(f fstest.MapFS) { f["tokenizer.json"].Data = []byte(`{"version":"7"}`) }, "tokenizer"},
		"no file":            {func(f fstest.MapFS) { delete(f, "tokenizer.json") }, "tokenizer.json"},
		"weights":            {func(f fstest.MapFS) { f["model.safetensors"].Data = []byte("12345678") }, "model.safetensors"},
		"no weights":         {func(f fstest.MapFS) { delete(f, "model.safetensors") }, "model.safetensors"},
		"template":           {func(f fstest.MapFS) { f["chat_template.jinja"] = &fstest.MapFile{Data: []byte("{% for x %}")} }, "chat template: template line 1"},
		"template's bytes":   {func(f fstest.MapFS) { f["chat_template.jinja"] = &fstest.MapFile{Data: []byte("\xff")} }, "chat template: not UTF-8"},
		"processor template": {func(f fstest.MapFS) { f["chat_template.json"] = &fstest.MapFile{Data: []byte("[]")} }, "chat_template.json"},
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
// TestOverrides: a key of no model is refused, one that changes nothing is told, one that counts is neither.
func TestOverrides(t *testing.T) {
	load := func(key string) string {
		var log bytes.Buffer
		e, err := New(Options{Files: demoFiles(t), Name: "m", Log: zerolog.New(&log), Overrides: map[string]jsontext.Value{key: jsontext.Value("5")}})
		if err != nil {
			return err.Error()
		}
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
		return log.String()
	}
	if got := load("rope_thet"); got != `load m: hf_overrides: no model has a key "rope_thet"; did you mean "rope_theta"?` {
		t.Errorf("unknown: %s", got)
	}
	if got := load("use_cache"); !strings.Contains(got, `"keys":["use_cache"]`) {
		t.Errorf("without effect: %s", got)
	}
	if got := load("rope_theta"); strings.Contains(got, "overrides") {
		t.Errorf("with effect: %s", got)
	}
}

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

// TestProcessorTemplate: the template of chat_template.json counts where the checkpoint has no other.
func TestProcessorTemplate(t *testing.T) {
	files := demoFiles(t)
	files["chat_template.json"] = &fstest.MapFile{Data: []byte(`{"chat_template":"P{{ messages[0].content }}"}`)}
	render := func() string {
		t.Helper()
		e, err := New(Options{Files: files, Name: "m", Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		content := "q"
		ids, err := e.Tokenize(t.Context(), &engine.Request{Model: "m", Chat: &engine.Chat{Messages: []engine.Message{{Role: "user", Content: &content}}}})
		text := e.tok.Decode(ids, false)
		if err := errors.Join(err, e.Close(t.Context())); err != nil {
			t.Fatal(err)
		}
		return text
	}
	if got := render(); got == "Pq" {
		t.Error("it counts beside another one")
	}
	files["tokenizer_config.json"] = &fstest.MapFile{Data: []byte("{}")}
	if got := render(); got != "Pq" {
		t.Errorf("prompt %q", got)
	}
}

// TestEndsOutsideVocabulary: the log tells of end tokens that the model cannot give.
func TestEndsOutsideVocabulary(t *testing.T) {
	for ids, want := range map[string]string{"[2041,9999]": "does not have", "-1": "", "[]": ""} {
		var log bytes.Buffer
		files := demoFiles(t)
		files["generation_config.json"] = &fstest.MapFile{Data: []byte(`{"eos_token_id":` + ids + `}`)}
		if want == "" { // nothing else names one
			want = "no token ends answers"
			files["tokenizer_config.json"] = &fstest.MapFile{Data: []byte(`{"eos_token":null}`)}
			config := strings.Replace(string(files["config.json"].Data), `"eos_token_id": 2041`, `"eos_token_id": null`, 1)
			files["config.json"] = &fstest.MapFile{Data: []byte(config)}
		}
		e, err := New(Options{Files: files, Name: "m", Log: zerolog.New(&log)})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), want) {
			t.Errorf("eos_token_id %s: the log has %s, want %s", ids, &log, want)
		}
	}
}
