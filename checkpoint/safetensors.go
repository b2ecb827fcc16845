package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// DType is an element type as safetensors spells it.
type DType string

// dtypeSize is the number of bytes of an element; types below one byte are not read.
var dtypeSize = map[DType]int{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1,
	"U16": 2, "I16": 2, "F16": 2, "BF16": 2,
	"U32": 4, "I32": 4, "F32": 4,
	"U64": 8, "I64": 8, "F64": 8,
}

// Size is the number of bytes of one element, 0 for an unknown type.
func (d DType) Size() int { return dtypeSize[d] }

// Tensor is one array of a checkpoint.
type Tensor struct {
	DType DType
	Shape []int
	Data  []byte // row-major, little endian, not necessarily aligned; read-only
}

// Floats converts the elements of an F32, BF16 or F16 tensor, which is exact.
func (t Tensor) Floats() []float32 {
	out := make([]float32, 0, len(t.Data)/t.DType.Size())
	for d := t.Data; len(d) > 0; d = d[t.DType.Size():] {
		switch t.DType {
		case "BF16":
			out = append(out, math.Float32frombits(uint32(binary.LittleEndian.Uint16(d))<<16))
		case "F16":
			out = append(out, float16(binary.LittleEndian.Uint16(d)))
		default:
			out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(d)))
		}
	}
	return out
}

// float16 converts IEEE 754 binary16.
func float16(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, int(h>>10&31), uint32(h&1023)
	switch exp {
	case 0: // subnormal: frac · 2⁻²⁴ is exact
		return math.Float32frombits(sign | math.Float32bits(float32(frac)/(1<<24)))
	case 31:
		return math.Float32frombits(sign | 255<<23 | frac<<13)
	}
	return math.Float32frombits(sign | uint32(exp-15+127)<<23 | frac<<13)
}

const (
	maxHeader  = 100_000_000 // bytes, the format's own limit
	maxTensors = 1 << 20
	maxRank    = 8
)

// entry is a tensor's line in the header. Offsets count from the end of the header.
type entry struct {
	name       string
	dtype      DType
	shape      []int
	begin, end int64
}

// parseSafetensors reads a whole file: 8 bytes header length, the header (JSON), the data without gaps.
func parseSafetensors(file []byte) (map[string]Tensor, error) {
	if len(file) < 8 {
		return nil, fmt.Errorf("truncated: %d bytes are no safetensors file", len(file))
	}
	n := binary.LittleEndian.Uint64(file)
	if n > maxHeader {
		return nil, fmt.Errorf("header of %d bytes, at most %d are allowed", n, maxHeader)
	}
	if n > uint64(len(file)-8) {
		return nil, fmt.Errorf("truncated: header of %d bytes in a file of %d", n, len(file))
	}
	data := file[8+n:]
	entries, err := parseHeader(file[8 : 8+n])
	if err != nil {
		return nil, err
	}
	if err := checkLayout(entries, int64(len(data))); err != nil {
		return nil, err
	}
	tensors := make(map[string]Tensor, len(entries))
	for _, e := range entries {
		tensors[e.name] = Tensor{DType: e.dtype, Shape: e.shape, Data: data[e.begin:e.end:e.end]}
	}
	return tensors, nil
}

// checkLayout sorts the entries by place and wants them to fill the data exactly: no overlap, no hole, nothing outside.
func checkLayout(entries []entry, size int64) error {
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	at := int64(0)
	for _, e := range entries {
		switch {
		case e.end > size:
			return fmt.Errorf("tensor %.120q: truncated: ends at %d of %d bytes", e.name, e.end, size)
		case e.begin < at:
			return fmt.Errorf("tensor %.120q: overlaps another", e.name)
		case e.begin > at:
			return fmt.Errorf("tensor %.120q: a gap of %d bytes before it", e.name, e.begin-at)
		}
		at = e.end
	}
	if at != size {
		return fmt.Errorf("%d bytes after the last tensor", size-at)
	}
	return nil
}

// parseHeader reads the header token by token, so that a hostile one costs no more than its entries. Duplicate names
// are refused by the decoder.
func parseHeader(header []byte) ([]entry, error) {
	if len(header) == 0 || header[0] != '{' {
		return nil, errors.New("header is not a JSON object")
	}
	d := jsontext.NewDecoder(bytes.NewReader(header))
	if _, err := d.ReadToken(); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	var entries []entry
	for d.PeekKind() != '}' {
		name, err := readString(d)
		if err != nil {
			return nil, fmt.Errorf("header: %w", err)
		}
		if name == "__metadata__" {
			if err := d.SkipValue(); err != nil {
				return nil, fmt.Errorf("header: %w", err)
			}
			continue
		}
		if len(entries) == maxTensors {
			return nil, fmt.Errorf("more than %d tensors", maxTensors)
		}
		e, err := readEntry(d)
		if err != nil {
			return nil, fmt.Errorf("tensor %.120q: %w", name, err)
		}
		e.name = name
		entries = append(entries, e)
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if rest := bytes.Trim(header[d.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return nil, errors.New("header: text after the JSON object")
	}
	return entries, nil
}

func readEntry(d *jsontext.Decoder) (e entry, err error) {
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return e, errors.Join(errors.New("not an object"), err)
	}
	var offsets []int64
	for d.PeekKind() == '"' {
		key, err := readString(d)
		if err != nil {
			return e, err
		}
		switch key {
		case "dtype":
			var s string
			s, err = readString(d)
			e.dtype = DType(s)
		case "shape":
			var dims []int64
			dims, err = readInts(d, maxRank)
			for _, v := range dims {
				e.shape = append(e.shape, int(v))
			}
		case "data_offsets":
			offsets, err = readInts(d, 2)
		default:
			err = errors.New("unknown key")
		}
		if err != nil {
			return e, fmt.Errorf("%s: %w", key, err)
		}
	}
	if _, err := d.ReadToken(); err != nil {
		return e, err
	}
	if len(offsets) != 2 || offsets[0] > offsets[1] {
		return e, fmt.Errorf("data_offsets %v", offsets)
	}
	e.begin, e.end = offsets[0], offsets[1]
	return e, e.checkSize()
}

// checkSize compares dtype × shape with the number of bytes.
func (e entry) checkSize() error {
	size := uint64(e.dtype.Size())
	if size == 0 {
		return fmt.Errorf("dtype %q is not known", e.dtype)
	}
	for _, dim := range e.shape {
		hi, lo := bits.Mul64(size, uint64(dim))
		if hi != 0 || lo > math.MaxInt64 {
			return fmt.Errorf("shape %v is too large", e.shape)
		}
		size = lo
	}
	if size != uint64(e.end-e.begin) {
		return fmt.Errorf("%s %v needs %d bytes, has %d", e.dtype, e.shape, size, e.end-e.begin)
	}
	return nil
}

func readString(d *jsontext.Decoder) (string, error) {
	t, err := d.ReadToken()
	if err != nil {
		return "", err
	}
	if t.Kind() != '"' {
		return "", errors.New("not a string")
	}
	return t.String(), nil
}

// readInts reads an array of at most limit integers ≥ 0.
func readInts(d *jsontext.Decoder, limit int) ([]int64, error) {
	if t, err := d.ReadToken(); err != nil || t.Kind() != '[' {
		return nil, errors.Join(errors.New("not an array"), err)
	}
	list := []int64{}
	for d.PeekKind() != ']' {
		t, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		v, err := strconv.ParseInt(t.String(), 10, 64)
		if t.Kind() != '0' || err != nil || v < 0 || int64(int(v)) != v {
			return nil, fmt.Errorf("%s is not a size", t)
		}
		if len(list) == limit {
			return nil, fmt.Errorf("more than %d numbers", limit)
		}
		list = append(list, v)
	}
	_, err := d.ReadToken()
	return list, err
}
