package ffi

/*
#cgo noescape pagoda_tok_encode
#cgo nocallback pagoda_tok_encode
#cgo noescape pagoda_tok_decode
#cgo nocallback pagoda_tok_decode
#cgo noescape pagoda_tok_id
#cgo nocallback pagoda_tok_id
#cgo LDFLAGS: -L${SRCDIR}/../build/lib -ltokenizers -ldl -lm -lpthread
#include "pagoda.h"
#include <stdlib.h> // defines __GLIBC__
#ifdef __GLIBC__
#include <malloc.h>
static void trim(void) { malloc_trim(0); }
#else
static void trim(void) {}
#endif
*/
import "C"

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"
	"unsafe"

	"github.com/daulet/tokenizers"
)

// ErrClosed is returned by calls on a closed Tokenizer.
var ErrClosed = errors.New("tokenizer is closed")

// AddedToken is a token that the tokenizer finds in the text before it splits the rest.
type AddedToken struct {
	ID         uint32 `json:"id"`
	Content    string `json:"content"`
	Special    bool   `json:"special"` // a control token: left out of text when decoding skips specials
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
}

// Offset is the byte range [Start, End) of one token in the text.
type Offset struct{ Start, End uint32 }

// Tokenizer turns text into ids and back.
type Tokenizer struct {
	mu     sync.RWMutex          // calls hold it for reading, Close for writing
	tok    *tokenizers.Tokenizer // owns handle
	handle unsafe.Pointer        // nil when closed

	added     []AddedToken
	numIDs    int
	byteLevel bool
	model     string
	decoder   []byte    // nil if byteLevel
	tokens    []*string // nil if byteLevel
	ends      []uint32  // numIDs+1 entries: id's bytes are table[ends[id]:ends[id+1]]
	table     string
	longest   int
}

// LoadTokenizer reads the contents of a tokenizer.json.
func LoadTokenizer(config []byte) (*Tokenizer, error) { return load(config) }

// LoadPlainTokenizer is LoadTokenizer for one that finds no control tokens in text: their spelling is text.
func LoadPlainTokenizer(config []byte) (*Tokenizer, error) {
	return load(config, tokenizers.WithEncodeSpecialTokens())
}

func load(config []byte, options ...tokenizers.TokenizerOption) (*Tokenizer, error) {
	if len(config) > math.MaxInt32 {
		return nil, errors.New("tokenizer.json is larger than 2 GiB")
	}
	tok, err := tokenizers.FromBytes(config, options...)
	if err != nil {
		return nil, fmt.Errorf("load tokenizer: %w", err)
	}
	t := &Tokenizer{tok: tok}
	if t.handle, err = handleOf(tok); err == nil {
		err = t.readTables()
	}
	if err != nil {
		tok.Close()
		return nil, fmt.Errorf("load tokenizer: %w", err)
	}
	C.trim() // or the C library keeps the memory that reading has freed
	return t, nil
}

// handleOf takes the C handle from daulet's Tokenizer, which keeps it in its only field, unexported.
func handleOf(tok *tokenizers.Tokenizer) (unsafe.Pointer, error) {
	v := reflect.ValueOf(tok).Elem()
	if v.NumField() != 1 || v.Field(0).Kind() != reflect.UnsafePointer || v.Field(0).IsNil() {
		return nil, errors.New("this version of daulet/tokenizers keeps its handle elsewhere")
	}
	return v.Field(0).UnsafePointer(), nil
}

func (t *Tokenizer) readTables() error {
	var out, msg C.pagoda_bytes
	if !C.pagoda_tok_info(t.handle, &out, &msg) {
		return takeError(msg)
	}
	var info struct {
		NumIDs    int    `json:"num_ids"`
		ByteLevel bool   `json:"byte_level"`
		Model     string `json:"model"`
		Decoder   json.RawMessage
		Tokens    []*string
		Added     []AddedToken `json:"added"`
	}
	if err := json.Unmarshal(takeBytes(out), &info); err != nil {
		return err
	}
	if info.Model == "" && !info.ByteLevel {
		return errors.New("build/lib/libtokenizers.a is older than this program: build it anew with ffi/rust/build.sh")
	}
	if !C.pagoda_tok_table(t.handle, &out, &msg) {
		return takeError(msg)
	}
	defer C.pagoda_bytes_free(out)
	data := unsafe.Slice((*byte)(out.ptr), int(out.len))
	t.numIDs, t.byteLevel, t.added = info.NumIDs, info.ByteLevel, info.Added
	t.model, t.decoder, t.tokens = info.Model, info.Decoder, info.Tokens
	t.ends = make([]uint32, t.numIDs+1)
	for i := range t.ends {
		t.ends[i] = binary.LittleEndian.Uint32(data[4*i:])
		if i > 0 {
			t.longest = max(t.longest, int(t.ends[i]-t.ends[i-1]))
		}
	}
	t.table = string(data[4*len(t.ends):])
	return nil
}

// Close frees the tokenizer once the calls now running have returned.
func (t *Tokenizer) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handle == nil {
		return nil
	}
	t.handle = nil
	return t.tok.Close()
}

// Encode returns the ids of text. With addSpecial the tokenizer's own prefix and suffix are added.
func (t *Tokenizer) Encode(text string, addSpecial bool) ([]uint32, error) {
	out, err := t.encode(text, addSpecial, false)
	if err != nil {
		return nil, err
	}
	defer C.pagoda_ids_free(out)
	return append([]uint32(nil), unsafe.Slice((*uint32)(out.ids), int(out.len))...), nil
}

// AppendIDs appends the ids of text to dst.
func (t *Tokenizer) AppendIDs(dst []int32, text string, addSpecial bool) ([]int32, error) {
	out, err := t.encode(text, addSpecial, false)
	if err != nil {
		return dst, err
	}
	defer C.pagoda_ids_free(out)
	// ids are below 2^22, so the signed view holds the same numbers
	return append(dst, unsafe.Slice((*int32)(unsafe.Pointer(out.ids)), int(out.len))...), nil
}

// EncodeOffsets is Encode with the byte range of each token in text.
func (t *Tokenizer) EncodeOffsets(text string, addSpecial bool) ([]uint32, []Offset, error) {
	out, err := t.encode(text, addSpecial, true)
	if err != nil {
		return nil, nil, err
	}
	defer C.pagoda_ids_free(out)
	ids := append([]uint32(nil), unsafe.Slice((*uint32)(out.ids), int(out.len))...)
	offsets := append([]Offset(nil), unsafe.Slice((*Offset)(unsafe.Pointer(out.offsets)), int(out.len))...)
	return ids, offsets, nil
}

func (t *Tokenizer) encode(text string, addSpecial, offsets bool) (C.pagoda_ids, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out C.pagoda_ids
	if t.handle == nil {
		return out, ErrClosed
	}
	var msg C.pagoda_bytes
	ptr := (*C.uint8_t)(unsafe.StringData(text))
	if !C.pagoda_tok_encode(t.handle, ptr, C.size_t(len(text)), C.bool(addSpecial), C.bool(offsets), &out, &msg) {
		return out, fmt.Errorf("encode: %w", takeError(msg))
	}
	return out, nil
}

// Decode returns the text of ids. Bytes that are not UTF-8 become U+FFFD.
func (t *Tokenizer) Decode(ids []uint32, skipSpecial bool) (string, error) {
	for _, id := range ids {
		if int64(id) >= int64(t.numIDs) {
			return "", fmt.Errorf("decode: token id %d is not in [0, %d)", id, t.numIDs)
		}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.handle == nil {
		return "", ErrClosed
	}
	var out, msg C.pagoda_bytes
	ptr := (*C.uint32_t)(unsafe.SliceData(ids))
	if !C.pagoda_tok_decode(t.handle, ptr, C.size_t(len(ids)), C.bool(skipSpecial), &out, &msg) {
		return "", fmt.Errorf("decode: %w", takeError(msg))
	}
	return string(takeBytes(out)), nil
}

// TokenBytes returns the bytes that id stands for, which need not be valid UTF-8; "" if there is no
// such id.
func (t *Tokenizer) TokenBytes(id uint32) string {
	if int64(id) >= int64(t.numIDs) {
		return ""
	}
	return t.table[t.ends[id]:t.ends[id+1]]
}

// Token returns the spelling of id in the vocabulary. It is known where decoding is not joining bytes.
func (t *Tokenizer) Token(id uint32) (string, bool) {
	if int64(id) >= int64(len(t.tokens)) || t.tokens[id] == nil {
		return "", false
	}
	return *t.tokens[id], true
}

// Decoder returns the decoder as tokenizer.json has it, nil if ByteLevel.
func (t *Tokenizer) Decoder() []byte { return t.decoder }

// Model returns the kind of the model: BPE, Unigram, WordPiece or WordLevel.
func (t *Tokenizer) Model() string { return t.model }

// Longest returns the number of bytes of the longest token.
func (t *Tokenizer) Longest() int { return t.longest }

// ID returns the id of the token spelled so in the vocabulary.
func (t *Tokenizer) ID(token string) (uint32, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.handle == nil {
		return 0, false
	}
	id := C.pagoda_tok_id(t.handle, (*C.uint8_t)(unsafe.StringData(token)), C.size_t(len(token)))
	return uint32(max(id, 0)), id >= 0
}

// Added returns the added tokens, by id.
func (t *Tokenizer) Added() []AddedToken { return t.added }

// VocabSize is one more than the largest id.
func (t *Tokenizer) VocabSize() int { return t.numIDs }

// ByteLevel says whether decoding is joining the TokenBytes of the ids, which byte-level BPE does.
func (t *Tokenizer) ByteLevel() bool { return t.byteLevel }

func takeBytes(b C.pagoda_bytes) []byte {
	defer C.pagoda_bytes_free(b)
	return append([]byte(nil), unsafe.Slice((*byte)(b.ptr), int(b.len))...)
}

func takeError(b C.pagoda_bytes) error { return errors.New(string(takeBytes(b))) }
