package token

import (
	"bufio"
	"encoding/json"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const demoDir = "../../../models/demo/"

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func load(t testing.TB, tokenizer, config []byte) *Tokenizer {
	t.Helper()
	tok, err := Load(tokenizer, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tok.Close() })
	return tok
}

func demo(t testing.TB) *Tokenizer {
	return load(t, read(t, demoDir+"tokenizer.json"), read(t, demoDir+"tokenizer_config.json"))
}

// sentencePiece is a small tokenizer with byte fallback, as Llama 2's: decoding looks at neighbours.
func sentencePiece(t testing.TB) *Tokenizer {
	return load(t, read(t, "testdata/sentencepiece.json"), nil)
}

type demoCase struct {
	PromptText string  `json:"prompt_text"`
	PromptIDs  []int32 `json:"prompt_ids"`
	GreedyIDs  []int32 `json:"greedy_ids"`
	GreedyText string  `json:"greedy_text"`
}

func demoCases(t testing.TB) []demoCase {
	t.Helper()
	file, err := os.Open(demoDir + "cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var cases []demoCase
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var c demoCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	if len(cases) != 150 {
		t.Fatalf("%d cases, want 150", len(cases))
	}
	return cases
}

func TestDemoCases(t *testing.T) {
	tok := demo(t)
	for _, c := range demoCases(t) {
		ids, err := tok.Encode(c.PromptText, false)
		if err != nil || !slices.Equal(ids, c.PromptIDs) {
			t.Errorf("Encode(%q) = %v, %v; want %v", c.PromptText, ids, err, c.PromptIDs)
		}
		if got := tok.Decode(c.PromptIDs, false); got != c.PromptText {
			t.Errorf("Decode(%v) = %q, want %q", c.PromptIDs, got, c.PromptText)
		}
		answer := c.GreedyIDs[:len(c.GreedyIDs)-1]
		if got := stream(tok, answer, false); got != c.GreedyText {
			t.Errorf("stream of %v = %q, want %q", answer, got, c.GreedyText)
		}
	}
}

func TestFacts(t *testing.T) {
	tok := demo(t)
	if got, want := tok.EOS(), (Token{2041, "<|im_end|>"}); got != want {
		t.Errorf("EOS = %v, want %v", got, want)
	}
	if got, want := tok.PAD(), (Token{2039, "<|endoftext|>"}); got != want {
		t.Errorf("PAD = %v, want %v", got, want)
	}
	if got, want := tok.BOS(), (Token{-1, ""}); got != want {
		t.Errorf("BOS = %v, want %v", got, want)
	}
	special := []Token{{2039, "<|endoftext|>"}, {2040, "<|im_start|>"}, {2041, "<|im_end|>"}}
	if got := tok.Special(); !slices.Equal(got, special) {
		t.Errorf("Special = %v, want %v", got, special)
	}
	if got := tok.VocabSize(); got != 2048 {
		t.Errorf("VocabSize = %d, want 2048", got)
	}
	if id, ok := tok.ID("<think>"); id != 2042 || !ok {
		t.Errorf("ID(<think>) = %d, %v", id, ok)
	}
	if _, ok := tok.ID("no such token"); ok {
		t.Error("ID finds a token that is not there")
	}
	if !strings.HasPrefix(tok.ChatTemplate(), "{%- if messages") {
		t.Errorf("ChatTemplate = %.40q", tok.ChatTemplate())
	}
	vars := map[string]string{"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
	if got := tok.TemplateVars(); !reflect.DeepEqual(got, vars) {
		t.Errorf("TemplateVars = %v, want %v", got, vars)
	}
}

func TestConfig(t *testing.T) {
	data := read(t, demoDir+"tokenizer.json")
	tests := []struct {
		name, config    string
		eos             Token
		template, tools string
	}{
		{"empty", ``, Token{-1, ""}, "", ""},
		{"null", `{"eos_token": null, "chat_template": null}`, Token{-1, ""}, "", ""},
		{"object", `{"eos_token": {"content": "<think>", "special": true}}`, Token{2042, "<think>"}, "", ""},
		{"not in the vocabulary", `{"eos_token": "</s>"}`, Token{-1, "</s>"}, "", ""},
		{"one template", `{"chat_template": "x"}`, Token{-1, ""}, "x", "x"},
		{"two templates", `{"chat_template": [{"name": "default", "template": "x"},
			{"name": "tool_use", "template": "y"}]}`, Token{-1, ""}, "x", "y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tok := load(t, data, []byte(tt.config))
			if tok.EOS() != tt.eos || tok.ChatTemplate() != tt.template || tok.ToolTemplate() != tt.tools {
				t.Errorf("got %v %q %q", tok.EOS(), tok.ChatTemplate(), tok.ToolTemplate())
			}
		})
	}
	for _, bad := range []string{`[`, `{"eos_token": 3}`, `{"chat_template": {}}`, `{"chat_template": [1]}`} {
		if _, err := Load(data, []byte(bad)); err == nil {
			t.Errorf("config %s is accepted", bad)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	tok := demo(t)
	for _, text := range []string{"", "hello\x00world", "\x00", "é 日本 👍🏽\r\n\t", "<|im_end|><think>", strings.Repeat(" ", 5000)} {
		ids, err := tok.Encode(text, false)
		if err != nil {
			t.Fatalf("Encode(%q): %v", text, err)
		}
		if got := tok.Decode(ids, false); got != text {
			t.Errorf("Decode(Encode(%q)) = %q", text, got)
		}
		var joined []byte
		for _, id := range ids {
			joined = append(joined, tok.Bytes(id)...)
		}
		if string(joined) != text {
			t.Errorf("bytes of Encode(%q) = %q", text, joined)
		}
	}
	if _, err := tok.Encode("\xff", false); err == nil {
		t.Error("text that is not UTF-8 is accepted")
	}
}

func TestEncodeCut(t *testing.T) {
	tok := demo(t)
	text := "<|im_start|>say <|im_end|> ok<|im_end|>"
	user := strings.Index(text, "<|im_end|>")
	ids, err := tok.EncodeCut(text, []int{user + 1})
	if err != nil {
		t.Fatal(err)
	}
	eos := tok.EOS().ID
	if n := len(slices.DeleteFunc(slices.Clone(ids), func(id int32) bool { return id != eos })); n != 1 {
		t.Errorf("%d end tokens, want only the last: %v", n, ids)
	}
	if got := tok.Decode(ids, false); got != text {
		t.Errorf("text is now %q", got)
	}
	whole, err := tok.EncodeCut(text, nil)
	want, _ := tok.Encode(text, false)
	if err != nil || !slices.Equal(whole, want) {
		t.Errorf("without cuts: %v, %v; want %v", whole, err, want)
	}
	for _, bad := range [][]int{{-1}, {5, 4}, {len(text) + 1}} {
		if _, err := tok.EncodeCut(text, bad); err == nil {
			t.Errorf("cuts %v are accepted", bad)
		}
	}
}

func TestIDsOutOfRange(t *testing.T) {
	tok := demo(t)
	for _, id := range []int32{-1, -1 << 31, 2048, 1<<31 - 1} {
		if tok.Valid(id) || tok.Bytes(id) != nil || tok.Decode([]int32{id}, false) != "" {
			t.Errorf("id %d is taken for a token", id)
		}
	}
}

func stream(tok *Tokenizer, ids []int32, skip bool) string {
	s := tok.NewStream(skip)
	var out strings.Builder
	for _, id := range ids {
		out.WriteString(s.Add(id))
	}
	out.WriteString(s.Flush())
	return out.String()
}

// TestStream holds the stream to the Rust library's decoding of the whole, over random ids: half of
// them single bytes, so that broken characters are common.
func TestStream(t *testing.T) {
	tok := demo(t)
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		ids := make([]int32, random.IntN(30))
		wide := make([]uint32, len(ids))
		for i := range ids {
			ids[i] = random.Int32N([]int32{256, 2048}[random.IntN(2)])
			wide[i] = uint32(ids[i])
		}
		skip := random.IntN(2) == 0
		want, err := tok.ffi.Decode(wide, skip)
		if err != nil {
			t.Fatal(err)
		}
		s := tok.NewStream(skip)
		var got string
		for _, id := range ids {
			piece := s.Add(id)
			if !utf8.ValidString(piece) {
				t.Fatalf("%v: piece %q is not whole", ids, piece)
			}
			got += piece
			if !strings.HasPrefix(want, got) {
				t.Fatalf("%v: %q so far, want a prefix of %q", ids, got, want)
			}
		}
		if got += s.Flush(); got != want {
			t.Fatalf("%v: %q, want %q", ids, got, want)
		}
	}
}

func TestStreamSentencePiece(t *testing.T) {
	tok := sentencePiece(t)
	for _, text := range []string{"hello", "hello hello world", "a é 👍 hello 日本", "  hello  ", "👍👍👍👍👍👍"} {
		ids, err := tok.Encode(text, false)
		if err != nil {
			t.Fatal(err)
		}
		want := tok.Decode(ids, false)
		if want != text {
			t.Errorf("Decode(Encode(%q)) = %q", text, want)
		}
		if got := stream(tok, ids, false); got != want {
			t.Errorf("stream of %q = %q", want, got)
		}
	}
	id, _ := tok.ID("<0xF0>") // the first byte of a character that never comes
	if got, want := stream(tok, []int32{id}, false), "\ufffd"; got != want {
		t.Errorf("broken character = %q, want %q", got, want)
	}
	if got := tok.Bytes(id); string(got) != "\xf0" {
		t.Errorf("Bytes(<0xF0>) = %q", got)
	}
}

func TestStreamAllocatesNothing(t *testing.T) {
	tok := demo(t)
	ids, err := tok.Encode("The quick brown fox", false)
	if err != nil {
		t.Fatal(err)
	}
	s := tok.NewStream(true)
	got := testing.AllocsPerRun(100, func() {
		for _, id := range ids {
			s.Add(id)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func FuzzEncodeDecode(f *testing.F) {
	tok := demo(f)
	for _, seed := range []string{"hello\x00", "é👍", "\xff", "<|im_start|>user\n<|im_end|>", "1234  \r\n\n x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ids, err := tok.Encode(text, true)
		if err != nil {
			if utf8.ValidString(text) {
				t.Fatal(err)
			}
			return
		}
		if got := tok.Decode(ids, false); got != text {
			t.Fatalf("Decode(Encode(%q)) = %q", text, got)
		}
	})
}

// FuzzLoad: a hostile tokenizer.json is refused or works; nothing crashes.
func FuzzLoad(f *testing.F) {
	f.Add(read(f, "testdata/sentencepiece.json"), "hello")
	f.Add([]byte(`{"version":"1.0","model":{"type":"BPE","vocab":{"a":4294967295},"merges":[]}}`), "a")
	f.Add([]byte(`{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":[["b","c"]]}}`), "a")
	f.Add([]byte(`{"version":"1.0","added_tokens":[{"id":9999999,"content":"","special":true}],`+
		`"model":{"type":"WordLevel","vocab":{},"unk_token":"u"}}`), "x")
	f.Add([]byte(strings.Repeat("[", 100000)), "")
	f.Add([]byte{0}, "")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		tok, err := Load(data, nil)
		if err != nil {
			return
		}
		defer tok.Close()
		ids, err := tok.Encode(text, true)
		if err != nil {
			return
		}
		tok.Decode(ids, true)
		stream(tok, ids, false)
	})
}

func BenchmarkEncode(b *testing.B) {
	tok := demo(b)
	text := strings.Repeat("The quick brown fox counts from 1 to 20, then says good bye.\n", 200)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := tok.Encode(text, false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStream(b *testing.B) {
	tok := demo(b)
	ids := demoCases(b)[0].PromptIDs
	s := tok.NewStream(true)
	for b.Loop() {
		for _, id := range ids {
			s.Add(id)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ids)), "ns/token")
}
