package server

import (
	"bytes"
	"reflect"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"pagoda/jsonstring"
)

// Nearly all of a large body is texts, through which the JSON parser goes byte by byte. So the long ones that need no
// unescaping are lifted out before, and put back where the parser decodes the mark in their place. If it has not decoded all
// marks as strings, or meets an error, the body as it is is parsed instead.

// liftedSize is from how many bytes on a text is lifted.
const liftedSize = 2 << 10

// liftMark begins marks.
var liftMark = []byte("pagoda-lifted-text-")

// lift returns body with marks instead of its long texts, which it returns too.
func lift(body []byte) (short []byte, texts []string) {
	if bytes.Contains(body, liftMark) {
		return body, nil
	}
	kept := 0 // body[:kept] is in short
	for i := 0; i < len(body); i++ {
		n := bytes.IndexByte(body[i:], '"')
		if n < 0 {
			break
		}
		begin := i + n + 1
		i = jsonstring.End(body, begin)
		if i == len(body) || i-begin < liftedSize || !jsonstring.IsPlain(body[begin:i]) {
			continue
		}
		short = append(append(short, body[kept:begin]...), liftMark...)
		short = strconv.AppendInt(short, int64(len(texts)), 10)
		texts = append(texts, string(body[begin:i]))
		kept = i
	}
	return append(short, body[kept:]...), texts
}

// unmarshal decodes body into v, a pointer to a zero value.
func unmarshal(body []byte, v any) error {
	if len(body) < liftedSize {
		return json.Unmarshal(body, v, json.WithUnmarshalers(integers))
	}
	short, texts := lift(body)
	put := 0
	putBack := func(dec *jsontext.Decoder, s *string) error {
		if dec.PeekKind() != '"' {
			return json.SkipFunc
		}
		raw, err := dec.ReadValue()
		if err != nil {
			return err
		}
		number, marked := bytes.CutPrefix(raw[1:len(raw)-1], liftMark)
		if !marked {
			*s = unquote(raw)
			return nil
		}
		i, err := strconv.Atoi(string(number))
		if err == nil {
			*s = texts[i]
			put++
		}
		return err
	}
	if len(texts) > 0 {
		err := json.Unmarshal(short, v, json.WithUnmarshalers(json.JoinUnmarshalers(integers, json.UnmarshalFromFunc(putBack))))
		if err == nil && put == len(texts) {
			return nil
		}
		reflect.ValueOf(v).Elem().SetZero()
	}
	return json.Unmarshal(body, v, json.WithUnmarshalers(integers))
}

// unquote reads a JSON string that was parsed before.
func unquote(raw []byte) string {
	text, _ := jsontext.AppendUnquote(nil, raw)
	return string(text)
}
