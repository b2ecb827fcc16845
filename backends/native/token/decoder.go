package token

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A stage is a step of a decoder at work on one text: it takes tokens one by one, to any of which the steps before it
// may have given the empty text, and passes on what it has made of them. At the end it gives out what it still holds.
type stage interface {
	take(token string, out func(string))
	end(out func(string))
}

// decoder makes the stages of a text. nil is a byte-level decoder, whose tokens are bytes that are joined.
type decoder []func() stage

// readDecoder reads the decoder of a tokenizer.json: the steps whose results the tokenizers library joins.
func readDecoder(data []byte) (decoder, error) {
	fused := false
	return readSteps(data, &fused)
}

// readSteps reads a decoder or a part of one. fused tells that the steps before have made one token of all.
func readSteps(data []byte, fused *bool) (decoder, error) {
	var d struct {
		Type     string            `json:"type"`
		Decoders []json.RawMessage `json:"decoders"`
		Pattern  struct {
			String *string
			Regex  *string
		} `json:"pattern"`
		Content     string `json:"content"`
		Start       int    `json:"start"`
		Stop        int    `json:"stop"`
		Prefix      string `json:"prefix"`
		CleanUp     bool   `json:"cleanup"`
		Replacement string `json:"replacement"`
		Scheme      string `json:"prepend_scheme"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, err
	}
	one := func(s func() stage) (decoder, error) { return decoder{s}, nil }
	whole := *fused
	if whole && d.Type != "Replace" && d.Type != "Strip" && d.Type != "Fuse" {
		return nil, fmt.Errorf("the decoder %s is not supported after one that joins all tokens", d.Type)
	}
	switch d.Type {
	case "": // null: tokens are joined by spaces
		return one(func() stage { return &indexed{later: func(t string) string { return " " + t }} })
	case "Sequence":
		var all decoder
		for _, part := range d.Decoders {
			steps, err := readSteps(part, fused)
			if err != nil {
				return nil, err
			}
			all = append(all, steps...)
		}
		return all, nil
	case "Replace":
		if d.Pattern.String == nil || *d.Pattern.String == "" {
			break
		}
		if whole {
			return one(func() stage { return &replacing{old: *d.Pattern.String, new: d.Content} })
		}
		return one(func() stage { return each(strings.NewReplacer(*d.Pattern.String, d.Content).Replace) })
	case "ByteFallback":
		return one(func() stage { return &byteFallback{} })
	case "Fuse":
		*fused = true
		return nil, nil
	case "Strip":
		return one(func() stage { return &strip{content: d.Content, start: d.Start, stop: d.Stop, whole: whole} })
	case "Metaspace":
		first := " "
		if d.Scheme != "never" {
			first = ""
		}
		return one(func() stage {
			return &indexed{first: strings.NewReplacer(d.Replacement, first).Replace, later: strings.NewReplacer(d.Replacement, " ").Replace}
		})
	case "WordPiece":
		return one(func() stage { return newWordPiece(d.Prefix, d.CleanUp) })
	case "ByteLevel":
		*fused = true
		return one(func() stage { return &letters{} })
	}
	return nil, fmt.Errorf("the decoder %s is not supported", data)
}

// each changes every token by itself.
type each func(string) string

func (e each) take(t string, out func(string)) { out(e(t)) }
func (e each) end(func(string))                {}

// indexed changes the first token and later ones differently. first nil leaves it alone.
type indexed struct {
	first, later func(string) string
	begun        bool
}

func (x *indexed) take(t string, out func(string)) {
	switch {
	case x.begun:
		t = x.later(t)
	case x.first != nil:
		t = x.first(t)
	}
	x.begun = true
	out(t)
}

func (x *indexed) end(func(string)) {}

// byteFallback joins runs of tokens like <0x0A> to text. A run that is not UTF-8 as a whole is one U+FFFD a byte, so
// nothing of it can be shown before it ends.
type byteFallback struct{ run []byte }

func (b *byteFallback) take(t string, out func(string)) {
	if len(t) == 6 && strings.HasPrefix(t, "<0x") && t[5] == '>' {
		// As in Rust, a plus sign may stand for the first digit.
		if v, err := strconv.ParseUint(strings.TrimPrefix(t[3:5], "+"), 16, 8); err == nil {
			b.run = append(b.run, byte(v))
			return
		}
	}
	b.end(out)
	out(t)
}

func (b *byteFallback) end(out func(string)) {
	switch {
	case len(b.run) == 0:
	case utf8.Valid(b.run):
		out(string(b.run))
	default:
		for range b.run {
			out(string(utf8.RuneError))
		}
	}
	b.run = b.run[:0]
}

// strip drops up to start and stop times content from the ends of each token, or of the whole after a fuse.
type strip struct {
	content     string
	start, stop int
	whole       bool

	dropped int    // at the start of the whole
	inside  bool   // something else has come
	held    string // what may be the end of the whole
}

func (s *strip) take(t string, out func(string)) {
	if !s.whole {
		out(s.right(s.left(t, s.start)))
		return
	}
	if !s.inside {
		rest := s.left(t, s.start-s.dropped)
		s.dropped += (len(t) - len(rest)) / len(s.content)
		s.inside = rest != "" || s.dropped == s.start
		t = rest
	}
	t = s.held + t
	shown := s.right(t)
	s.held = t[len(shown):]
	out(shown)
}

func (s *strip) end(func(string)) {}

func (s *strip) left(t string, n int) string {
	for range n {
		rest, ok := strings.CutPrefix(t, s.content)
		if !ok {
			break
		}
		t = rest
	}
	return t
}

func (s *strip) right(t string) string {
	for range s.stop {
		rest, ok := strings.CutSuffix(t, s.content)
		if !ok {
			break
		}
		t = rest
	}
	return t
}

// letters undoes byte-level BPE's letters, in a chain with other steps.
type letters struct{ tail []byte }

func (l *letters) take(t string, out func(string)) {
	text, rest := replaceInvalid(append(l.tail, unspell(t)...))
	l.tail = append([]byte(nil), rest...)
	out(text)
}

func (l *letters) end(out func(string)) {
	if len(l.tail) > 0 {
		out(string(utf8.RuneError))
	}
}

// unspell returns the bytes of a token in byte-level BPE's letters; a token with any other letter is what it is.
func unspell(t string) []byte {
	out := make([]byte, 0, len(t))
	for _, r := range t {
		b, ok := letterBytes[r]
		if !ok {
			return []byte(t)
		}
		out = append(out, b)
	}
	return out
}

var letterBytes = func() map[rune]byte {
	m := map[rune]byte{}
	for b, r := range byteLetters {
		m[r] = byte(b)
	}
	return m
}()

// contractions are what decoding WordPiece cleans up, in order. The tokenizers library also has " do not".
var contractions = [][2]string{{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"},
	{" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}}

func cleanUp(t string) string {
	for i, c := range contractions {
		if i == 7 {
			t = strings.ReplaceAll(t, " do not", " don't")
		}
		t = strings.ReplaceAll(t, c[0], c[1])
	}
	return t
}

// newWordPiece joins the tokens that continue a word and puts spaces between words.
func newWordPiece(prefix string, clean bool) stage {
	tidy := func(t string) string { return t }
	if clean {
		tidy = cleanUp
	}
	return &indexed{first: tidy, later: func(t string) string {
		if rest, ok := strings.CutPrefix(t, prefix); ok {
			return tidy(rest)
		}
		return tidy(" " + t)
	}}
}

// replacing replaces old by new in the whole text, as it comes.
type replacing struct {
	old, new string
	held     string // the end of the text so far if old may begin there
}

func (r *replacing) take(t string, out func(string)) {
	t = r.held + t
	var done strings.Builder
	for {
		i := strings.Index(t, r.old)
		if i < 0 {
			break
		}
		done.WriteString(t[:i])
		done.WriteString(r.new)
		t = t[i+len(r.old):]
	}
	keep := min(len(t), len(r.old)-1)
	for !strings.HasPrefix(r.old, t[len(t)-keep:]) {
		keep--
	}
	r.held = t[len(t)-keep:]
	done.WriteString(t[:len(t)-keep])
	out(done.String())
}

func (r *replacing) end(out func(string)) { out(r.held) }

// cleaned is d followed by transformers' clean_up_tokenization_spaces.
func (d decoder) cleaned() decoder {
	for _, c := range contractions {
		d = append(d, func() stage { return &replacing{old: c[0], new: c[1]} })
	}
	return d
}

// start makes the stages of one text; none for a byte-level tokenizer.
func (d decoder) start() []stage {
	if d == nil {
		return nil
	}
	stages := make([]stage, len(d))
	for i, begin := range d {
		stages[i] = begin()
	}
	return stages
}

// push runs a token through the stages and appends what comes out at their end.
func push(stages []stage, token string, out *strings.Builder) {
	if len(stages) == 0 {
		out.WriteString(token)
		return
	}
	stages[0].take(token, func(t string) { push(stages[1:], t, out) })
}

// finish ends the stages' text.
func finish(stages []stage, out *strings.Builder) {
	for i, s := range stages {
		s.end(func(t string) { push(stages[i+1:], t, out) })
	}
}
