package jsonstring

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Reader reads JSON text of an expected form, without reflection and without allocating anything but texts. Its methods return
// false at anything that they are not made for, JSON or not: the caller then has a parser read the text from its beginning.
type Reader struct {
	text []byte
	at   int // text[at:] is not read yet
}

// Reset begins with text.
func (r *Reader) Reset(text []byte) { r.text, r.at = text, 0 }

// AtEnd says that only white space is left.
func (r *Reader) AtEnd() bool { return r.Peek() == 0 && r.at == len(r.text) }

// At is how many bytes have been read.
func (r *Reader) At() int { return r.at }

// Object reads an object whose members' values member reads.
func (r *Reader) Object(member func(name []byte) bool) bool {
	if !r.Take('{') {
		return false
	}
	if r.Take('}') {
		return true
	}
	for {
		name, plain := r.Quoted()
		if !plain || !r.Take(':') || !member(name[1:len(name)-1]) {
			return false
		}
		if !r.Take(',') {
			return r.Take('}')
		}
	}
}

// Array reads a list of at least one element.
func (r *Reader) Array(element func() bool) bool {
	if !r.Take('[') {
		return false
	}
	for element() {
		if !r.Take(',') {
			return r.Take(']')
		}
	}
	return false
}

// Peek skips white space and returns what is next, 0 at the end.
func (r *Reader) Peek() byte {
	for r.at < len(r.text) {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return c
		}
	}
	return 0
}

// Take reads c, after white space.
func (r *Reader) Take(c byte) bool {
	if r.Peek() != c {
		return false
	}
	r.at++
	return true
}

// Quoted reads a string with its quotes, nil if there is none; plain says that it has no escapes and is ASCII.
func (r *Reader) Quoted() (text []byte, plain bool) {
	if r.Peek() != '"' {
		return nil, false
	}
	rest := r.text[r.at:]
	end := End(rest, 1)
	if end == len(rest) {
		return nil, false
	}
	r.at += end + 1
	return rest[:end+1], IsPlain(rest[1:end])
}

// String reads a string, or null, which leaves it as it is.
func (r *Reader) String(to *string) bool {
	if r.Peek() == 'n' {
		return *to == "" && r.Word("null")
	}
	return r.Text(to)
}

// Text reads a string.
func (r *Reader) Text(to *string) bool {
	text, plain := r.Quoted()
	switch {
	case plain:
		*to = string(text[1 : len(text)-1])
		return true
	case text == nil:
		return false
	}
	unquoted, err := jsontext.AppendUnquote(nil, text)
	*to = string(unquoted)
	return err == nil
}

// Bool reads true or false.
func (r *Reader) Bool(to *bool) bool {
	*to = r.Word("true")
	return *to || r.Word("false")
}

// Word reads w: true, false or null.
func (r *Reader) Word(w string) bool {
	r.Peek()
	if !bytes.HasPrefix(r.text[r.at:], []byte(w)) {
		return false
	}
	r.at += len(w)
	return true
}

// Int reads an integer of few digits that is not negative.
func (r *Reader) Int(to *int) bool {
	r.Peek()
	begin, n := r.at, 0
	for r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9' {
		n = 10*n + int(r.text[r.at]-'0')
		r.at++
	}
	*to = n
	digits := r.at - begin
	return digits == 1 || digits > 1 && digits < 18 && r.text[begin] != '0'
}

// Float reads a number.
func (r *Reader) Float(to *float64) bool {
	r.Peek()
	begin := r.at
	for r.at < len(r.text) && strings.IndexByte("+-.0123456789Ee", r.text[r.at]) >= 0 {
		r.at++
	}
	number := r.text[begin:r.at]
	var err error
	*to, err = strconv.ParseFloat(string(number), 64)
	return err == nil && jsontext.Value(number).IsValid() // the other way round, JSON has fewer forms
}

// Skip reads a text, a number, or a word.
func (r *Reader) Skip() bool {
	switch r.Peek() {
	case '"':
		text, plain := r.Quoted()
		return plain || text != nil && jsontext.Value(text).IsValid()
	case 'n':
		return r.Word("null")
	case 't':
		return r.Word("true")
	case 'f':
		return r.Word("false")
	}
	var ignored int
	return r.Int(&ignored)
}
