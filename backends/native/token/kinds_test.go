package token

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// dir is a checkpoint's folder.
type dir string

func (d dir) ReadFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(d), name))
}

// fileMap is a checkpoint's files.
type fileMap map[string]string

func (m fileMap) ReadFile(name string) ([]byte, error) {
	data, ok := m[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(data), nil
}

func open(t testing.TB, files Files, o Options) *Tokenizer {
	t.Helper()
	s, err := Read(files)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := s.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tok.Close() })
	return tok
}

// kinds are the folders that testdata/kinds.py has made.
func kinds(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("testdata/kinds/*")
	if err != nil || len(names) < 17 {
		t.Fatalf("%d kinds: %v", len(names), err)
	}
	return names
}

type kindCases struct {
	Size   int
	Tokens map[string][2]any
	Encode [][3]json.RawMessage
	Decode [][3]json.RawMessage
}

func parseAs[T any](t testing.TB, data json.RawMessage) (v T) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestKinds: each kind of tokenizer file gives the ids and the texts that transformers gives.
func TestKinds(t *testing.T) {
	for _, path := range kinds(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			tok := open(t, dir(path), Options{})
			cases := parseAs[kindCases](t, read(t, filepath.Join(path, "cases.json")))
			if tok.VocabSize() != cases.Size {
				t.Errorf("VocabSize = %d, want %d", tok.VocabSize(), cases.Size)
			}
			for key, want := range cases.Tokens {
				if got := tok.named(key); got.Content != want[0] || float64(got.ID) != want[1] {
					t.Errorf("%s = %v, want %v", key, got, want)
				}
			}
			for _, c := range cases.Encode {
				text := parseAs[string](t, c[0])
				for i, special := range []bool{false, true} {
					want := parseAs[[]int32](t, c[1+i])
					if got, err := tok.Encode(text, special); err != nil || !slices.Equal(got, want) {
						t.Errorf("Encode(%q, %v) = %v, %v; want %v", text, special, got, err, want)
					}
				}
			}
			for _, c := range cases.Decode {
				ids := parseAs[[]int32](t, c[0])
				for i, skip := range []bool{false, true} {
					want := parseAs[string](t, c[1+i])
					if got := tok.Decode(ids, skip); got != want {
						t.Errorf("Decode(%v, %v) = %q, want %q", ids, skip, got, want)
					}
				}
			}
		})
	}
}

// TestStreamKinds: for any ids the stream's pieces are whole characters and join to the Rust library's decoding.
func TestStreamKinds(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, path := range kinds(t) {
		tok := open(t, dir(path), Options{})
		for range 400 {
			ids := make([]int32, random.IntN(40))
			wide := make([]uint32, len(ids))
			for i := range ids {
				ids[i] = random.Int32N(int32([]int{tok.VocabSize(), 270}[random.IntN(2)]))
				wide[i] = uint32(ids[i])
			}
			skip := random.IntN(2) == 0
			want, err := tok.ffi.Decode(wide, skip)
			if err != nil {
				t.Fatal(err)
			}
			if tok.conf.CleanUp {
				for _, c := range contractions {
					want = strings.ReplaceAll(want, c[0], c[1])
				}
			}
			s := tok.NewStream(skip)
			got := ""
			for _, id := range ids {
				piece := s.Add(id)
				if !utf8.ValidString(piece) {
					t.Fatalf("%s: %v: piece %q is not whole", path, ids, piece)
				}
				if got += piece; !strings.HasPrefix(want, got) {
					t.Fatalf("%s: %v: %q so far, want a prefix of %q", path, ids, got, want)
				}
			}
			if got += s.Flush(); got != want {
				t.Fatalf("%s: %v: %q, want %q", path, ids, got, want)
			}
		}
	}
}

// TestDecoders: steps in combinations that the kinds do not have.
func TestDecoders(t *testing.T) {
	tokens := []string{"▁a", "b▁", "##c", "<0xC3>", "<0xA9>", "<0xFF>", "▁", "d▁.", "  ", "Ġe", "", "n't", "<0x+9>"}
	model := `{"version":"1.0","added_tokens":[],"model":{"type":"WordLevel","unk_token":"","vocab":` + func() string {
		data, _ := json.Marshal(idsOf(tokens))
		return string(data)
	}() + `},"decoder":`
	space := `{"type":"Replace","pattern":{"String":"▁"},"content":" "}`
	for _, d := range []string{
		`null`, `{"type":"Metaspace","replacement":"▁","prepend_scheme":"never","split":true}`,
		`{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}`,
		`{"type":"WordPiece","prefix":"##","cleanup":true}`, `{"type":"WordPiece","prefix":"▁","cleanup":false}`,
		`{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"},` + space + `]}`,
		`{"type":"Sequence","decoders":[` + space + `,{"type":"Strip","content":" ","start":1,"stop":0}]}`,
		`{"type":"Sequence","decoders":[` + space + `,{"type":"Fuse"},{"type":"Strip","content":" ","start":2,"stop":3}]}`,
		`{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Replace","pattern":{"String":"ab"},"content":"x"}]}`,
		`{"type":"Sequence","decoders":[{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},` + space + `]}`,
		`{"type":"Sequence","decoders":[` + space + `,{"type":"ByteFallback"},{"type":"Metaspace","replacement":" ","prepend_scheme":"always","split":true}]}`,
	} {
		tok := load(t, []byte(model+d+"}"), nil)
		random := rand.New(rand.NewPCG(5, 6))
		for range 500 {
			ids := make([]uint32, 1+random.IntN(12))
			narrow := make([]int32, len(ids))
			for i := range ids {
				ids[i] = random.Uint32N(uint32(len(tokens)))
				narrow[i] = int32(ids[i])
			}
			want, err := tok.ffi.Decode(ids, false)
			if err != nil {
				continue // the library's Strip fails on a text shorter than what it strips
			}
			if got := tok.Decode(narrow, false); got != want {
				t.Fatalf("%s: %v: %q, want %q", d, ids, got, want)
			}
		}
	}
	for _, d := range []string{`{"type":"BPEDecoder","suffix":"x"}`,
		`{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"WordPiece","prefix":"##","cleanup":true}]}`,
		`{"type":"Replace","pattern":{"Regex":"a+"},"content":"x"}`} {
		if _, err := Load([]byte(model+d+"}"), nil); err == nil || !strings.Contains(err.Error(), "not supported") {
			t.Errorf("%s: %v", d, err)
		}
	}
}

func TestReadFails(t *testing.T) {
	merges := fileMap{"vocab.json": `{"a":0}`, "merges.txt": "#version: 0.2\n"}
	for _, tt := range []struct {
		files fileMap
		want  string
	}{
		{fileMap{}, "no tokenizer: none of tokenizer.json, tekken.json, tokenizer.model"},
		{fileMap{"vocab.json": "{}"}, "merges.txt, which belongs to it, is not there"},
		{merges, "tokenizer_class is none"},
		{fileMap{"vocab.txt": "a\nb\n", "tokenizer_config.json": `{"tokenizer_class":"OddTokenizer"}`}, "tokenizer_class is OddTokenizer"},
		{fileMap{"vocab.txt": "a\nb\n", "config.json": `{"model_type":"bert"}`}, `the vocabulary has no token "[CLS]"`},
		{fileMap{"tokenizer.model": "x"}, "neither a tiktoken file nor a SentencePiece model"},
		{fileMap{"spiece.model": "YQ== 0\n"}, "spiece.model: not a SentencePiece model"},
		{fileMap{"tiktoken.model": "YQ== 1\n"}, `line 1 has rank "1", not 0`},
		{fileMap{"tiktoken.model": "YQ==\n"}, "line 1 is not a token and its rank"},
		{fileMap{"tekken.json": `{"config":{"default_vocab_size":5}}`}, "default_vocab_size: 5 is below"},
		{fileMap{"tekken.json": `{"special_tokens":[{"rank":1,"token_str":"a"}]}`}, "rank 1 is not one of 0 to 0"},
		{fileMap{"tokenizer.json": `{}`, "tokenizer_config.json": `{"added_tokens_decoder":{"x":{}}}`}, "tokenizer_config.json"},
		{fileMap{"tokenizer.json": `[`}, "tokenizer.json: load tokenizer"},
		{fileMap{"tokenizer.json": `{}`, "tokenizer_config.json": `{"bos_token":3}`}, "bos_token: a value of the wrong kind: number"},
		{fileMap{"tokenizer.json": `{}`, "tokenizer_config.json": `[]`}, "tokenizer_config.json: a value of the wrong kind: array"},
		{fileMap{"tokenizer.json": `{}`, "added_tokens.json": `[]`}, "added_tokens.json: a value of the wrong kind: array"},
		{fileMap{"tokenizer.json": `{}`, "tokenizer_config.json": `{"tokenizer_class":3}`}, "tokenizer_class: a value of the wrong kind: number"},
	} {
		s, err := Read(tt.files)
		if err == nil {
			_, err = s.Load(Options{})
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %s", tt.files, err, tt.want)
		}
	}
	broken := errors.New("broken")
	if _, err := Read(failing{broken}); !errors.Is(err, broken) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}

// TestNoMerges: a vocabulary of which nothing is made of two tokens.
func TestNoMerges(t *testing.T) {
	if got := open(t, fileMap{"tiktoken.model": "IQ== 0\nIg== 1\n"}, Options{}).VocabSize(); got != 2 {
		t.Errorf("VocabSize = %d", got)
	}
}

type failing struct{ err error }

func (f failing) ReadFile(string) ([]byte, error) { return nil, f.err }

// TestPrecedence: tokenizer.json wins, as in transformers.
func TestPrecedence(t *testing.T) {
	files := fileMap{"tokenizer.json": string(read(t, demoDir+"tokenizer.json")), "vocab.txt": "a\n", "tokenizer.model": "x"}
	if got := open(t, files, Options{}).VocabSize(); got != 2048 {
		t.Errorf("VocabSize = %d", got)
	}
}

func TestOptions(t *testing.T) {
	o := Options{AddTokens: []string{"<new>", "a", "<new>"}, AddSpecialTokens: []string{"<ctl>", "<think>"}, SplitSpecialTokens: true}
	tok := open(t, dir(demoDir), o)
	if tok.VocabSize() != 2050 {
		t.Errorf("VocabSize = %d", tok.VocabSize())
	}
	ids, err := tok.EncodeCut("<new><ctl><think>", nil)
	if want := []int32{2048, 2049, 2042}; err != nil || !slices.Equal(ids, want) {
		t.Errorf("ids = %v, %v; want %v", ids, err, want)
	}
	if got := tok.Decode(ids, true); got != "<new>" {
		t.Errorf("without control tokens: %q", got)
	}
	ids, err = tok.Encode("x<ctl><think><|im_end|><new>", true)
	if err != nil || slices.ContainsFunc(ids[:len(ids)-1], func(id int32) bool { return tok.skip[id] }) || ids[len(ids)-1] != 2048 {
		t.Errorf("plain text makes control tokens: %v, %v", ids, err)
	}
	if got := tok.Decode(ids, true); got != "x<ctl><think><|im_end|><new>" {
		t.Errorf("plain text is now %q", got)
	}
}

// FuzzRead: hostile files of any kind are refused or work; nothing crashes.
func FuzzRead(f *testing.F) {
	for _, path := range kinds(f) {
		for i, v := range vocabularies {
			data, err := os.ReadFile(filepath.Join(path, v.name))
			if err != nil {
				continue
			}
			config, _ := os.ReadFile(filepath.Join(path, "tokenizer_config.json"))
			f.Add(uint8(i), data, config)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, data, config []byte) {
		name := vocabularies[int(kind)%len(vocabularies)].name
		files := fileMap{name: string(data), "tokenizer_config.json": string(config), "merges.txt": "a b\n", "config.json": `{"model_type":"bert"}`}
		s, err := Read(files)
		if err != nil {
			return
		}
		tok, err := s.Load(Options{})
		if err != nil {
			return
		}
		defer tok.Close()
		ids, err := tok.Encode("Hello wörld <s> 日本 1", true)
		if err != nil {
			return
		}
		stream(tok, ids, false)
	})
}

// TestPlainText: with split_special_tokens no text of any kind of tokenizer becomes a control token, and with cuts in their
// spelling neither, however it is written.
func TestPlainText(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	wide := func(s string) string {
		return strings.Map(func(r rune) rune {
			if '!' <= r && r <= '~' {
				return r + 0xfee0 // a full-width letter, which some normalizers make narrow
			}
			return r
		}, s)
	}
	for _, path := range kinds(t) {
		tok := open(t, dir(path), Options{SplitSpecialTokens: true})
		around, err := tok.Encode("a", true)
		if err != nil {
			t.Fatal(err)
		}
		bare, _ := tok.Encode("a", false)
		controls := func(ids []int32) (n int) {
			for _, id := range ids {
				if tok.skip[id] && id != tok.unk {
					n++
				}
			}
			return n
		}
		for range 200 {
			var text strings.Builder
			var cuts []int
			for range 1 + random.IntN(6) {
				s := tok.special[random.IntN(len(tok.special))].Content
				switch random.IntN(3) {
				case 0:
					text.WriteString(wide(s))
				case 1:
					cuts = append(cuts, text.Len()+len(s)/2)
					text.WriteString(s)
				}
				text.WriteString([]string{"", " ", "x", "▁", "\n"}[random.IntN(5)])
			}
			ids, err := tok.Encode(text.String(), false)
			if err != nil || controls(ids) > 0 {
				t.Fatalf("%s: plain %q becomes %v, %v", path, text.String(), ids, err)
			}
			if ids, err = tok.Encode(text.String(), true); err != nil || controls(ids) != len(around)-len(bare) {
				t.Fatalf("%s: plain %q becomes %v, %v", path, text.String(), ids, err)
			}
			if ids, err = tok.EncodeCut(text.String(), cuts); err != nil || controls(ids) > 0 {
				t.Fatalf("%s: %q cut at %v becomes %v, %v", path, text.String(), cuts, ids, err)
			}
		}
	}
}

// TestCutsAddNothing: a text that is cut reads the same, also where a tokenizer puts a space before every text.
func TestCutsAddNothing(t *testing.T) {
	for _, kind := range []string{"llama", "gemma", "qwen2", "llama3", "tekken"} {
		tok := open(t, dir("testdata/kinds/"+kind), Options{})
		text := "so <s> or </s> and text"
		ids, err := tok.EncodeCut(text, []int{4, 8, 12, 20})
		if err != nil {
			t.Fatal(err)
		}
		if got := tok.Decode(ids, false); got != text {
			t.Errorf("%s: %q is now %q", kind, text, got)
		}
	}
}
