package server

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"pagoda/engine"
	"pagoda/jsonstring"
	"pagoda/openapi"
)

// maxDepth bounds how deeply a body may nest: tools and template arguments are walked recursively further on.
const maxDepth = 128

// maxNameShown bounds how much of a client's own words an error repeats.
const maxNameShown = 64

// maxPrepared bounds what is set aside for a body that only says how long it is.
const maxPrepared = 1 << 20

// decode reads the body of r into v, a pointer to a request type of package openapi. It refuses what JSON parsers
// disagree on: repeated or differently cased names, text that is not UTF-8, anything after the object.
func decode(r *http.Request, v any) error {
	buf := takeBuffer()
	defer giveBuffer(buf)
	var err error
	if *buf, err = appendBody(*buf, r); err != nil {
		return err
	}
	return decodeBytes(*buf, v)
}

// buffers are those of bodies that were decoded and of answers that were written, for the next ones; nothing refers to them.
// Large ones cost more to allocate than to fill.
var buffers sync.Pool // of *[]byte

// takeBuffer returns an empty buffer.
func takeBuffer() *[]byte {
	if buf, ok := buffers.Get().(*[]byte); ok {
		return buf
	}
	return &[]byte{}
}

func giveBuffer(buf *[]byte) {
	if cap(*buf) <= 2*maxPrepared {
		*buf = (*buf)[:0]
		buffers.Put(buf)
	}
}

func readBody(r *http.Request) ([]byte, error) { return appendBody(nil, r) }

// appendBody reads the body of r.
func appendBody(dst []byte, r *http.Request) ([]byte, error) {
	if n := r.ContentLength; n > 0 {
		dst = slices.Grow(dst, int(min(n, maxPrepared))+1) // the last byte is for a body that tells its end apart
	}
	var err error
	for err == nil {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, max(512, cap(dst)/4))
		}
		var n int
		n, err = r.Body.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
	}
	if err != io.EOF {
		if tooBig, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, engine.Errorf(engine.TooLarge, "the body is larger than %d bytes", tooBig.Limit)
		}
		message := "the body could not be read to its end"
		if errors.Is(err, os.ErrDeadlineExceeded) {
			message = "the body did not arrive in the time that this server allows"
		}
		return nil, &engine.Error{Code: engine.Invalid, Message: message, Err: err}
	}
	return dst, nil
}

func decodeBytes(body []byte, v any) error {
	quick := false
	switch v := v.(type) {
	case *openapi.ChatCompletionRequest:
		quick = readChat(body, v)
	case *openapi.CompletionRequest:
		quick = readCompletion(body, v)
	}
	if quick {
		return nil
	}
	if err := checkDepth(body); err != nil {
		return err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return engine.Errorf(engine.Invalid, "the body is empty; it must be a JSON object")
	}
	if jsontext.Value(body).Kind() != '{' && jsontext.Value(body).IsValid() {
		return engine.Errorf(engine.Invalid, "the body must be a JSON object")
	}
	if err := unmarshal(body, v); err != nil {
		return decodeError("", err)
	}
	return nil
}

// integers lets 16.0 and 1e3 be the integers that they are in JSON Schema, and in languages without an integer type.
var integers = json.JoinUnmarshalers(
	json.UnmarshalFromFunc(readInteger[int]), json.UnmarshalFromFunc(readInteger[int32]),
	json.UnmarshalFromFunc(readInteger[int64]))

func readInteger[T int | int32 | int64](dec *jsontext.Decoder, v *T) error {
	if dec.PeekKind() != '0' {
		return json.SkipFunc
	}
	raw, err := dec.ReadValue()
	if err != nil {
		return err
	}
	i, err := strconv.ParseInt(string(raw), 10, 64)
	if errors.Is(err, strconv.ErrSyntax) {
		var f float64
		if f, err = strconv.ParseFloat(string(raw), 64); err == nil && f != math.Trunc(f) {
			return errors.New("must be an integer")
		}
		if math.Abs(f) > 1<<53 { // beyond, floats are not exact
			return strconv.ErrRange
		}
		i = int64(f)
	}
	if *v = T(i); err != nil || int64(*v) != i {
		return strconv.ErrRange
	}
	return nil
}

// checkDepth counts brackets outside of strings. It need not know whether the rest is JSON.
func checkDepth(body []byte) error {
	depth := 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '"':
			i = jsonstring.End(body, i+1)
		case '{', '[':
			if depth++; depth > maxDepth {
				return engine.Errorf(engine.Invalid, "the body nests deeper than %d levels", maxDepth)
			}
		case '}', ']':
			depth--
		}
	}
	return nil
}

// decodeError says where the body is wrong, in the words of JSON and not of Go. path is where the decoded value is
// within the body, "" for the body itself.
func decodeError(path string, err error) *engine.Error {
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		path = jsonPath(path, e.JSONPointer)
		if e.Err == jsontext.ErrDuplicateName {
			return badField(path, "is given twice")
		}
		return engine.BadField(path, "the body is not valid JSON: %v after byte %d", e.Err, e.ByteOffset)
	}
	if e, ok := errors.AsType[*json.SemanticError](err); ok {
		return badField(jsonPath(path, e.JSONPointer), "%s", expectation(e))
	}
	return &engine.Error{Code: engine.Invalid, Message: "the body is not a valid request", Err: err}
}

// expectation says what a field must be, from the Go type that could not hold it.
func expectation(e *json.SemanticError) string {
	number := e.JSONKind == '0'
	if number && errors.Is(e.Err, strconv.ErrRange) {
		return "is out of range"
	}
	t := e.GoType
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t != nil && !hasUnmarshaler(t) {
		switch t.Kind() {
		case reflect.Bool:
			return "must be true or false"
		case reflect.String:
			return "must be a string"
		case reflect.Float64:
			return "must be a number"
		case reflect.Int32:
			if e.JSONKind == '"' { // a name in logit_bias, or a string where an id should be
				return "is not a token id"
			}
			return "must be an integer"
		case reflect.Int, reflect.Int64:
			return "must be an integer"
		case reflect.Slice:
			return "must be a list"
		case reflect.Map, reflect.Struct:
			return "must be an object"
		}
	}
	if e.Err != nil {
		return e.Err.Error() // of a union in package openapi
	}
	return "has the wrong type"
}

// hasUnmarshaler says whether t is a union of package openapi, which has words of its own.
func hasUnmarshaler(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[json.UnmarshalerFrom]())
}

// jsonPath turns a JSON pointer below base into the path that OpenAI's errors use: messages[2].content[0].type.
func jsonPath(base string, p jsontext.Pointer) string {
	var b strings.Builder
	b.WriteString(base)
	for token := range p.Tokens() {
		if _, err := strconv.ParseUint(token, 10, 32); err == nil && b.Len() > 0 {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(clip(token, maxNameShown))
	}
	return b.String()
}

// badField is an Invalid error whose message begins with the field's name.
func badField(param, format string, args ...any) *engine.Error {
	message := fmt.Sprintf(format, args...)
	if param != "" {
		message = param + " " + message
	} else {
		message = "the body " + message
	}
	return &engine.Error{Code: engine.Invalid, Param: param, Message: message}
}

// checker checks the fields of one request. It keeps the first problem and goes on, so that its callers read like a
// list; and it collects the names of unknown fields inside of objects.
type checker struct {
	model   engine.Model
	err     *engine.Error
	unknown []string // JSON paths
}

func (c *checker) bad(param, format string, args ...any) {
	if c.err == nil {
		c.err = badField(param, format, args...)
	}
}

// inRange checks min <= v <= max for a number that may be absent. Infinite and not-a-number values are no JSON.
func inRange[T cmp.Ordered](c *checker, param string, v *T, minimum, maximum T) {
	if v != nil && !(*v >= minimum && *v <= maximum) {
		c.bad(param, "must be between %v and %v", minimum, maximum)
	}
}

// above checks min < v <= max for a number that may be absent.
func (c *checker) above(param string, v *float64, minimum, maximum float64) {
	if v != nil && !(*v > minimum && *v <= maximum) {
		c.bad(param, "must be greater than %v and at most %v", minimum, maximum)
	}
}

// tokens checks token ids; only the engine knows the size of the vocabulary.
func (c *checker) tokens(param string, ids []int32) {
	if i := slices.IndexFunc(ids, func(id int32) bool { return id < 0 }); i >= 0 {
		c.bad(fmt.Sprintf("%s[%d]", param, i), "must not be negative")
	}
}

// refuse takes the fields that are known but not supported out of unknown: null is allowed, the rest an error. For a
// proxied model they stay where they are, since its upstream may support them.
func (c *checker) refuse(path string, unknown openapi.Unknown, names []string) {
	if c.model.ForwardsUnknown {
		return
	}
	for _, name := range names {
		v, ok := unknown[name]
		if !ok {
			continue
		}
		delete(unknown, name)
		if jsontext.Value(v).Kind() != 'n' {
			c.bad(path+name, "is not supported")
		}
	}
}

// nested notes the unknown fields of an object inside of a request; path ends in a dot.
func (c *checker) nested(path string, unknown openapi.Unknown) {
	for _, name := range sortedNames(unknown) {
		c.unknown = append(c.unknown, path+clip(name, maxNameShown))
	}
}

func sortedNames(unknown openapi.Unknown) []string {
	names := make([]string, 0, len(unknown))
	for name := range unknown {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// finish ends the check of a request for model: the first problem, or what to do about unknown fields. A proxied
// model gets those at the top untouched, since its upstream may know them.
func (s *Server) finish(w http.ResponseWriter, c *checker, unknown openapi.Unknown, req *engine.Request) error {
	if c.err != nil {
		return c.err
	}
	ignored := c.unknown
	if !c.model.ForwardsUnknown {
		ignored = append(sortedNames(unknown), ignored...)
	}
	if len(ignored) > 0 && s.cfg.UnknownFields != "report" {
		name := clip(ignored[0], 4*maxNameShown)
		return badField(name, "is not a field that this server knows")
	}
	if len(ignored) > 0 {
		w.Header().Set("X-Pagoda-Ignored-Fields", headerList(ignored))
	}
	req.Extra, req.IgnoreExtra = unknown, s.cfg.UnknownFields == "report"
	return nil
}

// headerList joins names for a header, which a client must not be able to break or flood.
func headerList(names []string) string {
	const most = 32
	var b strings.Builder
	for i, name := range names {
		if i == most {
			fmt.Fprintf(&b, ", and %d more", len(names)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strings.Map(func(r rune) rune {
			if r <= ' ' || r > '~' || r == ',' {
				return '?'
			}
			return r
		}, clip(name, 4*maxNameShown)))
	}
	return b.String()
}

// model returns the model that a request names.
func (s *Server) model(id string) (engine.Model, error) {
	if id == "" && s.cfg.DefaultModel == "" {
		return engine.Model{}, badField("model", "is required")
	}
	models, err := s.models()
	if err != nil {
		return engine.Model{}, err
	}
	for _, name := range []string{id, s.cfg.DefaultModel} {
		for _, m := range models {
			if m.ID == name {
				return m, nil
			}
		}
		if !s.ready.Load() { // it may be one of those that still load
			return engine.Model{}, &engine.Error{Code: engine.Unavailable, Param: "model", RetryAfter: loadingRetryAfter,
				Message: fmt.Sprintf("The model `%s` is not there yet: models are still loading.", clip(id, maxNameShown))}
		}
	}
	return engine.Model{}, &engine.Error{Code: engine.NotFound, Param: "model",
		Message: fmt.Sprintf("The model `%s` does not exist. GET /v1/models lists those that do.", clip(id, maxNameShown))}
}

// loadingRetryAfter is when to ask again while models load.
const loadingRetryAfter = time.Second

// models returns what a request may name. There is nothing to name before the models are loaded.
func (s *Server) models() ([]engine.Model, error) {
	models := s.eng.Models()
	if len(models) == 0 {
		return nil, &engine.Error{Code: engine.Unavailable, Message: "the model is still loading", RetryAfter: loadingRetryAfter}
	}
	return models, nil
}

func isTrue(b *bool) bool { return b != nil && *b }

func orZero[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}
