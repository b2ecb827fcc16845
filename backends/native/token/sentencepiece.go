package token

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// spm is a SentencePiece model, as far as it matters here. Source: sentencepiece_model.proto of SentencePiece 0.2.
type spm struct {
	pieces []spmPiece

	kind         uint64 // unigramKind, bpeKind
	byteFallback bool
	unk          spmSpecial
	bos, eos     spmSpecial

	charsmap     []byte // rewriting of characters, compiled
	dummyPrefix  bool
	removeSpaces bool // at both ends, and all but one in a row
	escapeSpaces bool
}

type spmPiece struct {
	text  string
	score float32
	kind  uint64 // normalPiece, ...
}

type spmSpecial struct {
	id   int32
	text string
}

const (
	unigramKind = 1
	bpeKind     = 2

	normalPiece  = 1
	controlPiece = 3
	userPiece    = 4
)

// readSPM reads the protocol buffer.
func readSPM(data []byte) (*spm, error) {
	m := &spm{kind: unigramKind, unk: spmSpecial{0, "<unk>"}, bos: spmSpecial{1, "<s>"}, eos: spmSpecial{2, "</s>"},
		dummyPrefix: true, removeSpaces: true, escapeSpaces: true}
	err := eachField(data, func(f field) error {
		switch f.number {
		case 1:
			p := spmPiece{kind: normalPiece}
			err := eachField(f.bytes, func(f field) error {
				switch f.number {
				case 1:
					p.text = string(f.bytes)
				case 2:
					p.score = math.Float32frombits(uint32(f.value))
				case 3:
					p.kind = f.value
				}
				return nil
			})
			switch {
			case err != nil:
				return err
			case !utf8.ValidString(p.text) || p.score != p.score:
				return fmt.Errorf("piece %d is not valid", len(m.pieces))
			}
			m.pieces = append(m.pieces, p)
		case 2:
			return eachField(f.bytes, m.trainerField)
		case 3:
			return eachField(f.bytes, m.normalizerField)
		}
		return nil
	})
	if err == nil && len(m.pieces) == 0 {
		err = errors.New("it has no pieces")
	}
	return m, err
}

func (m *spm) trainerField(f field) error {
	switch f.number {
	case 3:
		m.kind = f.value
	case 35:
		m.byteFallback = f.value != 0
	case 40:
		m.unk.id = int32(f.value)
	case 41:
		m.bos.id = int32(f.value)
	case 42:
		m.eos.id = int32(f.value)
	case 45:
		m.unk.text = string(f.bytes)
	case 46:
		m.bos.text = string(f.bytes)
	case 47:
		m.eos.text = string(f.bytes)
	}
	return nil
}

func (m *spm) normalizerField(f field) error {
	switch f.number {
	case 2:
		m.charsmap = f.bytes
	case 3:
		m.dummyPrefix = f.value != 0
	case 4:
		m.removeSpaces = f.value != 0
	case 5:
		m.escapeSpaces = f.value != 0
	}
	return nil
}

// field is one field of a protocol buffer: its value if it is a number, else its bytes.
type field struct {
	number protowire.Number
	value  uint64
	bytes  []byte
}

func eachField(data []byte, take func(field) error) error {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		f := field{number: number}
		switch kind {
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(data)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(data)
			f.value = uint64(v)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(data)
		default:
			n = protowire.ConsumeFieldValue(number, kind, data)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if err := take(f); err != nil {
			return err
		}
	}
	return nil
}

// sentencePieceOrTiktoken is for tokenizer.model, which Llama 3 calls a tiktoken file.
func (c *conversion) sentencePieceOrTiktoken() error {
	m, err := readSPM(c.vocabulary)
	if err == nil {
		return c.fromSPM(m)
	}
	if c.tiktoken() != nil {
		return fmt.Errorf("neither a tiktoken file nor a SentencePiece model: %w", err)
	}
	return nil
}

func (c *conversion) sentencePiece() error {
	m, err := readSPM(c.vocabulary)
	if err != nil {
		return fmt.Errorf("not a SentencePiece model: %w", err)
	}
	return c.fromSPM(m)
}

// fromSPM goes by the class where transformers has one of its own for it, else by the model's own settings.
func (c *conversion) fromSPM(m *spm) error {
	if m.kind != unigramKind && m.kind != bpeKind {
		return fmt.Errorf("SentencePiece models of kind %d are not supported, only unigram (1) and BPE (2)", m.kind)
	}
	work := 0
	for _, p := range m.pieces {
		if work += len(p.text) * len(p.text); work > maxSplitWork {
			return errors.New("its pieces are too long")
		}
	}
	if c.conf.Extra == nil && c.conf.Additional == nil {
		c.conf.Extra = new(specialList)
		for _, p := range m.pieces {
			// User-defined pieces are tokens to transformers' classes; the generic way finds them on its own.
			if p.kind == controlPiece || p.kind == userPiece && c.conf.class != "" {
				*c.conf.Extra = append(*c.conf.Extra, special{addedToken{Content: p.text, Special: p.kind == controlPiece}})
			}
		}
	}
	switch c.conf.class {
	case "LlamaTokenizer":
		return c.llama(m)
	case "GemmaTokenizer":
		return c.gemma(m)
	case "XLMRobertaTokenizer":
		return c.xlmRoberta(m)
	case "T5Tokenizer":
		return c.t5(m)
	}
	return c.generic(m)
}

func (m *spm) texts() []string {
	texts := make([]string, len(m.pieces))
	for i, p := range m.pieces {
		texts[i] = p.text
	}
	return texts
}

// bpe makes the model of pieces and merges.
func (c *conversion) bpe(pieces []string, merges [][2]string, unk any, byteFallback, whole bool) {
	c.ids = idsOf(pieces)
	if merges == nil {
		merges = [][2]string{} // never null in JSON
	}
	c.model = object{"type": "BPE", "vocab": entries(pieces), "merges": merges, "unk_token": unk, "fuse_unk": true,
		"byte_fallback": byteFallback, "ignore_merges": whole}
}

// mergesByID makes each piece the merge of any two that make it up; earlier pieces merge first.
func mergesByID(pieces []string) (merges [][2]string) {
	ids := idsOf(pieces)
	for id, p := range pieces {
		if ids[p] != id {
			continue
		}
		for cut := range p {
			left, right := p[:cut], p[cut:]
			_, okLeft := ids[left]
			if _, okRight := ids[right]; cut > 0 && okLeft && okRight {
				merges = append(merges, [2]string{left, right})
			}
		}
	}
	return merges
}

// mergesByScore is the same for pieces with scores; higher ones merge first. Only normal pieces are merged.
func mergesByScore(pieces []string, m *spm) (merges [][2]string) {
	normal := map[string]int{}
	for id, p := range m.pieces {
		if p.kind == normalPiece {
			normal[pieces[id]] = id
		}
	}
	type merge struct {
		id          int
		left, right string
	}
	var all []merge
	for p, id := range normal {
		for cut := range p {
			_, okLeft := normal[p[:cut]]
			if _, okRight := normal[p[cut:]]; cut > 0 && okLeft && okRight {
				all = append(all, merge{id, p[:cut], p[cut:]})
			}
		}
	}
	slices.SortFunc(all, func(a, b merge) int {
		return cmp.Or(cmp.Compare(m.pieces[b.id].score, m.pieces[a.id].score), cmp.Compare(a.id, b.id),
			cmp.Compare(a.left, b.left))
	})
	for _, a := range all {
		merges = append(merges, [2]string{a.left, a.right})
	}
	return merges
}

// unigram makes the model of pieces with scores.
func (c *conversion) unigram(pieces []spmPiece, unk int, byteFallback bool) {
	texts := make([]string, len(pieces))
	vocab := make([][2]any, len(pieces))
	for i, p := range pieces {
		texts[i] = p.text
		vocab[i] = [2]any{p.text, float64(p.score)}
	}
	c.ids = idsOf(texts)
	c.model = object{"type": "Unigram", "unk_id": unk, "vocab": vocab, "byte_fallback": byteFallback}
}

func (m *spm) precompiled() any {
	return object{"type": "Precompiled", "precompiled_charsmap": base64.StdEncoding.EncodeToString(m.charsmap)}
}

// decoderOf is the decoder that byte-fallback BPE has; strip drops the space that the dummy prefix made.
func decoderOf(byteFallback, fuse, strip bool) object {
	parts := []any{replace(literal("▁"), " ")}
	if byteFallback {
		parts = append(parts, object{"type": "ByteFallback"})
	}
	if fuse {
		parts = append(parts, object{"type": "Fuse"})
	}
	if strip {
		parts = append(parts, object{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	return sequence("Sequence", "decoders", parts...)
}

func (c *conversion) llama(m *spm) error {
	pieces := m.texts()
	c.bpe(pieces, mergesByID(pieces), nil, true, false)
	prefix := or(c.conf.AddPrefixSpace, true)
	scheme := "never"
	if prefix && or(c.conf.Legacy, false) {
		scheme = "always"
	} else if prefix {
		scheme = "first"
	}
	c.preTokenizer = metaspace(scheme, false)
	c.decoder = decoderOf(true, true, prefix)
	c.postProcessor = c.bosEOS()
	return nil
}

func (c *conversion) gemma(m *spm) error {
	pieces := m.texts()
	c.bpe(pieces, mergesByID(pieces), c.conf.Named["unk_token"].Content, true, false)
	c.normalizer = replace(literal(" "), "▁")
	c.preTokenizer = split(literal(" "), "MergedWithPrevious")
	c.decoder = decoderOf(true, true, false)
	c.postProcessor = c.bosEOS()
	return nil
}

// spaced splits at white space and gives each word a prefix.
func (c *conversion) spaced(m *spm, scheme string) {
	if len(m.charsmap) > 0 {
		c.normalizer = m.precompiled()
	}
	c.preTokenizer = sequence("Sequence", "pretokenizers", object{"type": "WhitespaceSplit"}, metaspace(scheme, true))
	c.decoder = metaspace(scheme, true)
}

// xlmRoberta puts fairseq's four tokens in front of SentencePiece's, whose first three they replace.
func (c *conversion) xlmRoberta(m *spm) error {
	if len(m.pieces) < 3 {
		return errors.New("it has fewer than 3 pieces")
	}
	var pieces []spmPiece
	for _, key := range []string{"bos_token", "pad_token", "eos_token", "unk_token"} {
		pieces = append(pieces, spmPiece{text: c.conf.Named[key].Content})
	}
	pieces = append(append(pieces, m.pieces[3:]...), spmPiece{text: c.conf.Named["mask_token"].Content})
	c.unigram(pieces, 3, false)
	scheme := "always"
	if !or(c.conf.AddPrefixSpace, true) {
		scheme = "never"
	}
	c.spaced(m, scheme)
	var err error
	c.postProcessor, err = c.around(pieces[0].text, pieces[2].text)
	return err
}

func (c *conversion) t5(m *spm) error {
	n := or(c.conf.ExtraIDs, 100)
	if n < 0 || n > maxSpecials {
		return fmt.Errorf("tokenizer_config.json: extra_ids: %d is not between 0 and %d", n, maxSpecials)
	}
	pieces := slices.Clone(m.pieces)
	for i := range n {
		pieces = append(pieces, spmPiece{text: fmt.Sprintf("<extra_id_%d>", n-1-i)})
	}
	if list := c.conf.extra(); !slices.ContainsFunc(list, func(s special) bool { return strings.Contains(s.Content, "<extra_id_") }) {
		for i := range n {
			list = append(list, special{addedToken{Content: fmt.Sprintf("<extra_id_%d>", i), Special: true}})
		}
		c.conf.Extra = (*specialList)(&list)
	}
	c.unigram(pieces, 2, false)
	c.spaced(m, "always")
	var err error
	c.postProcessor, err = c.around("", "</s>")
	return err
}

// generic follows the model's own settings, as SentencePiece itself does.
func (c *conversion) generic(m *spm) error {
	c.conf.setDefaultIf(m.bos.id >= 0, "bos_token", m.bos.text)
	c.conf.setDefaultIf(m.eos.id >= 0, "eos_token", m.eos.text)
	c.conf.setDefaultIf(m.unk.id >= 0, "unk_token", m.unk.text)
	pieces := m.texts()
	if m.kind == bpeKind {
		c.rename(pieces)
	}
	var users []string
	for i, p := range m.pieces {
		if p.kind == userPiece {
			users = append(users, pieces[i])
		}
	}
	if m.kind == bpeKind {
		c.bpe(pieces, mergesByScore(pieces, m), m.unk.text, m.byteFallback, len(users) > 0)
	} else {
		c.unigram(m.pieces, int(m.unk.id), m.byteFallback)
	}
	legacy := or(c.conf.Legacy, true)
	if m.dummyPrefix {
		for id, t := range c.conf.AddedTokens {
			t.Normalized = false // so that each text between them gets its own prefix
			c.conf.AddedTokens[id] = t
		}
	}
	c.genericNormalizer(m, legacy)
	c.genericPreTokenizer(m, legacy, users)
	c.decoder = decoderOf(m.byteFallback, m.dummyPrefix || m.byteFallback, m.dummyPrefix)
	c.postProcessor = c.bosEOS()
	return nil
}

func (c *config) setDefaultIf(ok bool, key, content string) {
	if ok {
		c.setDefault(key, content)
	}
}

// rename gives pieces the names that added_tokens_decoder has for their ids.
func (c *conversion) rename(pieces []string) {
	kept := map[string]bool{}
	for id, p := range pieces {
		if _, ok := c.conf.AddedTokens[id]; !ok {
			kept[p] = true
		}
	}
	for id, t := range c.conf.AddedTokens {
		if id >= 0 && id < len(pieces) && !kept[t.Content] {
			pieces[id] = t.Content
		}
	}
}

func (c *conversion) genericNormalizer(m *spm, legacy bool) {
	steps := []any{}
	if len(m.charsmap) > 0 {
		steps = append(steps, m.precompiled())
	}
	if m.removeSpaces {
		steps = append(steps, replace(regex(`\A +| +\z`), ""), replace(regex(" {2,}"), " "))
	}
	if m.escapeSpaces {
		steps = append(steps, replace(literal(" "), "▁"))
	}
	if m.dummyPrefix && legacy {
		steps = append(steps, replace(regex(`\A▁`), "▁▁")) // Metaspace leaves out the prefix before a ▁
	}
	c.normalizer = sequence("Sequence", "normalizers", steps...)
}

func (c *conversion) genericPreTokenizer(m *spm, legacy bool, users []string) {
	var steps []any
	if m.dummyPrefix {
		scheme := "first"
		if legacy {
			scheme = "always"
		}
		steps = append(steps, metaspace(scheme, false))
	}
	if len(users) > 0 {
		slices.SortStableFunc(users, func(a, b string) int {
			return cmp.Compare(utf8.RuneCountInString(b), utf8.RuneCountInString(a))
		})
		for i, u := range users {
			users[i] = regexp.QuoteMeta(u)
		}
		steps = append(steps, split(regex(strings.Join(users, "|")), "Isolated"))
	}
	if len(steps) > 0 {
		c.preTokenizer = sequence("Sequence", "pretokenizers", steps...)
	}
}
