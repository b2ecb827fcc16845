package adapter_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"pagoda/backends/native/adapter"
	"pagoda/backends/native/model"
	"pagoda/checkpoint"
	"pagoda/kernels"
	"pagoda/models/demo"
)

// newRegistry loads the built-in model. All memory must be free again when the test ends.
func newRegistry(t *testing.T) (*adapter.Registry, *kernels.Device) {
	t.Helper()
	dev, err := kernels.OpenCPU(kernels.CPUOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ck := checkpoint.OpenFS(demo.FS())
	config, err := ck.Config()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := model.NewSpec(config)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.LoadDummy(dev, spec, 1, model.Options{DType: model.Float32})
	if err != nil {
		t.Fatal(err)
	}
	r := adapter.NewRegistry(dev, m)
	t.Cleanup(func() {
		if err := errors.Join(r.Close(), m.Close(), dev.Close()); err != nil {
			t.Error(err)
		}
	})
	return r, dev
}

func builtIn(t *testing.T, name string) *checkpoint.Checkpoint {
	t.Helper()
	files, err := fs.Sub(demo.FS(), "adapters/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return checkpoint.OpenFS(files)
}

// Targets of the built-in model's layers.
const q, k, v, down = 0, 1, 2, 6

func TestLoad(t *testing.T) {
	r, dev := newRegistry(t)
	before := dev.Allocated()
	for _, name := range []string{"shout", "french"} {
		if _, err := r.Load(name, builtIn(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	list := r.List()
	if len(list) != 2 || list[0].Name() != "french" || list[1].Name() != "shout" || list[0].Rank() != 16 || list[1].Rank() != 8 {
		t.Fatalf("list %v", list)
	}
	french, shout := list[0].LoRA().Layers[5], list[1].LoRA().Layers[0]
	if french[q] == nil || french[v] == nil || french[k] != nil || french[down] != nil {
		t.Errorf("french has %v", french)
	}
	if slices.Contains(shout, nil) || shout[down].A.K() != 512 || shout[down].B.N() != 256 || shout[q].Scale != 2 {
		t.Errorf("shout has %v", shout)
	}
	if n := dev.Allocated() - before; n != r.Bytes() || n != list[0].Bytes()+list[1].Bytes() {
		t.Errorf("%d bytes allocated, registry says %d", n, r.Bytes())
	}
}

func TestUnloadWhileInUse(t *testing.T) {
	r, dev := newRegistry(t)
	before := dev.Allocated()
	load := func() *adapter.Adapter {
		t.Helper()
		if _, err := r.Load("a", builtIn(t, "french")); err != nil {
			t.Fatal(err)
		}
		a, err := r.Acquire("a")
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	first := load()
	if _, err := r.Load("a", builtIn(t, "french")); !errors.Is(err, adapter.ErrExists) {
		t.Errorf("second of the same name: %v", err)
	}
	if err := r.Unload("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Acquire("a"); !errors.Is(err, adapter.ErrNotFound) {
		t.Errorf("acquired after unload: %v", err)
	}
	if first.LoRA().Layers[0][q].A.N() != 16 {
		t.Error("memory of an adapter in use is gone")
	}
	second := load()
	if first.ID() == second.ID() || first.ID() == 0 || second.ID() == 0 {
		t.Errorf("ids %d and %d", first.ID(), second.ID())
	}
	if r.Bytes() != 2*second.Bytes() {
		t.Errorf("%d bytes held for two adapters of %d", r.Bytes(), second.Bytes())
	}
	if err := errors.Join(first.Release(), second.Release(), r.Unload("a")); err != nil {
		t.Fatal(err)
	}
	if r.Bytes() != 0 || dev.Allocated() != before {
		t.Errorf("%d bytes in the registry, %d on the device after unload", r.Bytes(), dev.Allocated()-before)
	}
	if err := r.Unload("a"); !errors.Is(err, adapter.ErrNotFound) {
		t.Errorf("second unload: %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	r, _ := newRegistry(t)
	var wg sync.WaitGroup
	for i := range 8 {
		ck := builtIn(t, "french")
		wg.Go(func() {
			name := fmt.Sprint("a", i%4) // each name is wanted by two
			for range 5 {
				if _, err := r.Load(name, ck); err != nil && !errors.Is(err, adapter.ErrExists) {
					t.Error(err)
				}
				if a, err := r.Acquire(name); err == nil {
					if err := errors.Join(a.Release()); err != nil {
						t.Error(err)
					}
				}
				if err := r.Unload(name); err != nil && !errors.Is(err, adapter.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, a := range r.List() {
		if err := r.Unload(a.Name()); err != nil {
			t.Error(err)
		}
	}
	if r.Bytes() != 0 {
		t.Errorf("%d bytes left", r.Bytes())
	}
}

// loraFile makes adapter weights of zeros.
func loraFile(t *testing.T, shapes map[string][2]int, dtype string) []byte {
	t.Helper()
	header, size := map[string]any{}, 0
	for name, shape := range shapes {
		n := 4 * shape[0] * shape[1]
		header[name] = map[string]any{"dtype": dtype, "shape": shape, "data_offsets": []int{size, size + n}}
		size += n
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), make([]byte, size)...)
}

func TestBadAdapters(t *testing.T) {
	r, dev := newRegistry(t)
	const base = "base_model.model.model.layers."
	good := func() map[string][2]int {
		shapes := map[string][2]int{}
		for layer := range 6 {
			shapes[fmt.Sprint(base, layer, ".self_attn.q_proj.lora_A.weight")] = [2]int{4, 256}
			shapes[fmt.Sprint(base, layer, ".self_attn.q_proj.lora_B.weight")] = [2]int{256, 4}
		}
		return shapes
	}
	const plain = `{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj"]`
	tests := []struct {
		name, config, dtype string
		spoil               func(map[string][2]int)
		want                string
	}{
		{"good", plain + "}", "F32", func(map[string][2]int) {}, ""},
		{"missing", plain + "}", "F32", func(m map[string][2]int) { delete(m, base+"3.self_attn.q_proj.lora_B.weight") },
			"missing: " + base + "3.self_attn.q_proj.lora_B.weight"},
		{"shape", plain + "}", "F32", func(m map[string][2]int) { m[base+"1.self_attn.q_proj.lora_A.weight"] = [2]int{4, 128} },
			"shape of " + base + "1.self_attn.q_proj.lora_A.weight: [4 128], want [4 256]"},
		{"layer too far", plain + "}", "F32", func(m map[string][2]int) { m[base+"6.self_attn.q_proj.lora_A.weight"] = [2]int{4, 256} },
			"surplus: " + base + "6.self_attn"},
		{"not targeted", plain + "}", "F32", func(m map[string][2]int) { m[base+"0.self_attn.k_proj.lora_A.weight"] = [2]int{4, 256} },
			"surplus: " + base + "0.self_attn.k_proj"},
		{"embedding", plain + "}", "F32", func(m map[string][2]int) { m["base_model.model.model.embed_tokens.lora_embedding_A"] = [2]int{4, 2048} },
			"surplus"},
		{"dtype", plain + "}", "I32", func(map[string][2]int) {}, "dtype of"},
		{"other rank", plain + `,"rank_pattern":{"q_proj":8}}`, "F32", func(map[string][2]int) {}, "want [8 256]"},
		{"rank too large", `{"peft_type":"LORA","r":5000,"lora_alpha":8,"target_modules":["q_proj"]}`, "F32",
			func(map[string][2]int) {}, "rank 5000"},
		{"no such target", `{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["c_attn"]}`, "F32",
			func(map[string][2]int) {}, "names no projection"},
		{"dora", plain + `,"use_dora":true}`, "F32", func(map[string][2]int) {}, "use_dora"},
	}
	before := dev.Allocated()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			shapes := good()
			tt.spoil(shapes)
			_, err := r.Load("x", checkpoint.OpenFS(fstest.MapFS{
				"adapter_config.json":       &fstest.MapFile{Data: []byte(tt.config)},
				"adapter_model.safetensors": &fstest.MapFile{Data: loraFile(t, shapes, tt.dtype)},
			}))
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Unload("x"); err != nil {
					t.Error(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
			if dev.Allocated() != before || len(r.List()) != 0 {
				t.Errorf("%d bytes left, adapters %v", dev.Allocated()-before, r.List())
			}
		})
	}
}
