package checkpoint

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// file puts a safetensors file together.
func file(header string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

const (
	twoHeader = `{"__metadata__":{"format":"pt"},"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]},` +
		`"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}   `
	emptyTensor = `{"a":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]}}`
)

func TestParseSafetensors(t *testing.T) {
	got, err := parseSafetensors(file(twoHeader, 1, 2, 3, 4, 5, 6))
	if err != nil {
		t.Fatal(err)
	}
	a, b := got["a"], got["b"]
	if len(got) != 2 || a.DType != "F32" || len(a.Shape) != 0 || !slices.Equal(a.Data, []byte{1, 2, 3, 4}) ||
		b.DType != "U8" || !slices.Equal(b.Shape, []int{2}) || !slices.Equal(b.Data, []byte{5, 6}) {
		t.Errorf("got %+v", got)
	}
	if got, err := parseSafetensors(file(emptyTensor)); err != nil || len(got["a"].Data) != 0 {
		t.Errorf("empty tensor: %+v, %v", got, err)
	}
}

func one(entry string) string { return `{"a":` + entry + `}` }

var hostileFiles = []struct {
	name string
	file []byte
	want string
}{
	{"empty", nil, "truncated"},
	{"seven bytes", make([]byte, 7), "truncated"},
	{"header longer than file", file(`{}`)[:9], "truncated"},
	{"huge header", binary.LittleEndian.AppendUint64(nil, 1<<63), "at most 100000000"},
	{"not JSON", file("nonsense"), "not a JSON object"},
	{"array", file("[]"), "not a JSON object"},
	{"unfinished", file(`{"a":{`), "unexpected EOF"},
	{"text after the object", file(`{}{}`), "after the JSON object"},
	{"duplicate tensor", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 1, 2), "duplicate"},
	{"duplicate key", file(one(`{"dtype":"U8","dtype":"F32","shape":[1],"data_offsets":[0,1]}`), 1), "duplicate"},
	{"deep metadata", file(`{"__metadata__":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`), "depth"},
	{"unknown dtype", file(one(`{"dtype":"F4","shape":[1],"data_offsets":[0,1]}`), 1), `dtype "F4" is not known`},
	{"no dtype", file(one(`{"shape":[1],"data_offsets":[0,1]}`), 1), "is not known"},
	{"no offsets", file(one(`{"dtype":"U8","shape":[1]}`), 1), "data_offsets"},
	{"unknown key", file(one(`{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}`), 1), "x: unknown key"},
	{"wrong length", file(one(`{"dtype":"F32","shape":[2],"data_offsets":[0,4]}`), 1, 2, 3, 4), "needs 8 bytes, has 4"},
	{"negative size", file(one(`{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}`), 1), "is not a size"},
	{"fraction", file(one(`{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}`), 1), "is not a size"},
	{"text as size", file(one(`{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}`), 1), "is not a size"},
	{"overflow to zero", file(one(`{"dtype":"F32","shape":[4294967296,4294967296,1],"data_offsets":[0,0]}`)), "too large"},
	{"overflow of one size", file(one(`{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,0]}`)), "is not a size"},
	{"rank 9", file(one(`{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}`), 1), "more than 8"},
	{"backwards", file(one(`{"dtype":"U8","shape":[1],"data_offsets":[1,0]}`), 1), "data_offsets"},
	{"outside", file(one(`{"dtype":"U8","shape":[9],"data_offsets":[0,9]}`), 1), "ends at 9 of 1"},
	{"overlap", file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 1, 2, 3), "overlaps"},
	{"same bytes twice", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), "overlaps"},
	{"gap", file(one(`{"dtype":"U8","shape":[1],"data_offsets":[1,2]}`), 1, 2), "gap"},
	{"rest", file(one(`{"dtype":"U8","shape":[1],"data_offsets":[0,1]}`), 1, 2), "1 bytes after"},
}

func TestHostileSafetensors(t *testing.T) {
	for _, tt := range hostileFiles {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseSafetensors(tt.file)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func FuzzSafetensors(f *testing.F) {
	f.Add(file(twoHeader, 1, 2, 3, 4, 5, 6))
	f.Add(file(emptyTensor))
	for _, h := range hostileFiles {
		f.Add(h.file)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tensors, err := parseSafetensors(data)
		if err != nil {
			return
		}
		total := 0
		for name, tensor := range tensors {
			n := tensor.DType.Size()
			for _, dim := range tensor.Shape {
				n *= dim
			}
			if n != len(tensor.Data) {
				t.Errorf("%q: %s %v with %d bytes", name, tensor.DType, tensor.Shape, len(tensor.Data))
			}
			total += n
		}
		if header := binary.LittleEndian.Uint64(data); uint64(total) != uint64(len(data))-8-header {
			t.Errorf("tensors have %d bytes of a file of %d with a header of %d", total, len(data), header)
		}
	})
}

func byteTensor(name string, value byte) []byte {
	return file(fmt.Sprintf(`{%q:{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, name), value)
}

// folder writes files into a new folder and opens it.
func folder(t *testing.T, files map[string][]byte) *Checkpoint {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return open(t, dir)
}

func open(t *testing.T, dir string) *Checkpoint {
	t.Helper()
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
