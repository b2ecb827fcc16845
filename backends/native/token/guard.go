package token

import (
	"slices"
	"strings"
	"unicode/utf8"

	"pagoda/ffi"
)

// Plain text must not become control tokens. Their spelling is cut in two by who knows where plain text is (EncodeCut), or
// not looked for (SplitSpecialTokens), but a model's own vocabulary may hold control tokens too and find them in text that a
// normalizer has turned into their spelling, such as full-width letters. What follows finds those.

// leading looks for a control token after which a text is encoded without the space that a tokenizer puts in front, as
// the later pieces of a text that is cut must be. SentencePiece tokenizers put one before every text.
func (t *Tokenizer) leading() {
	plain, err := t.ffi.Encode("a", false)
	if err != nil {
		return
	}
	for _, a := range t.ffi.Added() {
		if !a.Special || a.LStrip || a.RStrip || a.SingleWord || a.Normalized {
			continue
		}
		ids, err := t.ffi.Encode(a.Content+"a", false)
		if err == nil && len(ids) > 1 && ids[0] == a.ID && !slices.Equal(ids[1:], plain) {
			t.lead = a.Content
			return
		}
	}
}

// guardRounds bounds how often a text is cut anew.
const guardRounds = 4

// appendGuarded appends the ids of text by tok. Control tokens come of their own spelling only, and with plain not even of
// that. inner tells that text goes on from another piece.
func (t *Tokenizer) appendGuarded(dst []int32, tok *ffi.Tokenizer, text string, inner, plain bool) ([]int32, error) {
	pieces := []string{text}
	for round := 0; ; round++ {
		var ids []int32
		var next []string
		clean := true
		for i, piece := range pieces {
			got, found, err := t.encodePiece(tok, piece, inner || i > 0, plain)
			if err != nil {
				return dst, err
			}
			ids = append(ids, got...)
			from := 0
			for _, f := range found {
				clean = false
				mid := middle(piece, f)
				next = append(next, piece[from:mid])
				from = mid
			}
			next = append(next, piece[from:])
		}
		if clean {
			return append(dst, ids...), nil
		}
		if round == guardRounds { // characters that are control tokens by themselves
			forged := func(id int32) bool { return t.skip[id] && id != t.unk }
			return append(dst, slices.DeleteFunc(ids, forged)...), nil
		}
		pieces = next
	}
}

// encodePiece returns the ids of a piece and where control tokens come of text that is not to be one.
func (t *Tokenizer) encodePiece(tok *ffi.Tokenizer, piece string, inner, plain bool) (ids []int32, found []ffi.Offset, err error) {
	lead := ""
	if inner && !plain {
		lead = t.lead
	}
	got, offsets, err := tok.EncodeOffsets(lead+piece, false)
	if err != nil {
		return nil, nil, err
	}
	for i, id := range got {
		if lead != "" && i == 0 {
			continue
		}
		ids = append(ids, int32(id))
		if !t.skip[int32(id)] || int32(id) == t.unk {
			continue
		}
		o := ffi.Offset{Start: offsets[i].Start - uint32(len(lead)), End: offsets[i].End - uint32(len(lead))}
		if plain || strings.TrimSpace(piece[o.Start:o.End]) != t.names[int32(id)] {
			found = append(found, o)
		}
	}
	return ids, found, nil
}

// middle returns where to cut a piece so that the text at o is apart; its end if that is one character.
func middle(piece string, o ffi.Offset) int {
	mid := int(o.Start+o.End) / 2
	for mid > int(o.Start) && !utf8.RuneStart(piece[mid]) {
		mid--
	}
	if mid == int(o.Start) {
		return int(o.End)
	}
	return mid
}

// encodePlain returns the ids of text none of which is a control token, but for those that the tokenizer adds around it.
func (t *Tokenizer) encodePlain(text string, addSpecial bool) ([]int32, error) {
	ids, err := t.appendGuarded(nil, t.plain, text, false, true)
	if err != nil || !addSpecial {
		return ids, err
	}
	bare, err := t.plain.AppendIDs(nil, "a", false)
	if err != nil {
		return nil, err
	}
	around, err := t.plain.AppendIDs(nil, "a", true)
	if err != nil {
		return nil, err
	}
	for i := 0; i+len(bare) <= len(around); i++ {
		if slices.Equal(around[i:i+len(bare)], bare) {
			return slices.Concat(around[:i], ids, around[i+len(bare):]), nil
		}
	}
	return ids, nil // nothing is added around
}
