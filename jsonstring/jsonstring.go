// Package jsonstring reads and writes JSON whose form is known, with the strings in it many bytes at a time: texts of prompts are
// long.
package jsonstring

import (
	"bytes"
	"encoding/binary"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendQuote appends s as a JSON string; what is not UTF-8 in it becomes U+FFFD. Most texts need no escape: they are looked
// over many bytes at a time.
func AppendQuote(dst []byte, s string) []byte {
	begin := len(dst)
	dst = append(append(append(dst, '"'), s...), '"')
	if IsPlain(dst[begin+1 : len(dst)-1]) {
		return dst
	}
	dst, _ = jsontext.AppendQuote(dst[:begin], s)
	return dst
}

// End returns the place of the quote that ends the JSON string which text[i:] is within, or the length of text.
func End(text []byte, i int) int {
	for i < len(text) {
		n := bytes.IndexByte(text[i:], '"')
		if n < 0 {
			break
		}
		end, escapes := i+n, 0
		for end-escapes > i && text[end-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return end
		}
		i = end + 1
	}
	return len(text)
}

// IsPlain says that b is ASCII without control characters, quotes and backslashes: the same as a JSON string and as a text.
func IsPlain(b []byte) bool {
	if len(b) >= 64 {
		b = b[plainBlocks(b):]
	}
	for len(b) >= 32 {
		if (unplain(b)|unplain(b[8:])|unplain(b[16:])|unplain(b[24:]))&high != 0 {
			return false
		}
		b = b[32:]
	}
	for len(b) >= 8 {
		if unplain(b)&high != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c < 0x20 || c >= 0x80 || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

const ones, high = 0x0101010101010101, 0x8080808080808080

// unplain has a high bit set if one of the first 8 bytes is not plain. A borrow may tell of more than there is, never of less.
func unplain(b []byte) uint64 {
	w := binary.LittleEndian.Uint64(b)
	low := w ^ ones*('"'^' ') // below 0x21: control characters and the quote
	slash := w ^ ones*'\\'
	return w | (low - ones*0x21) | (slash - ones)
}
