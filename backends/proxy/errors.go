package proxy

import (
	"bytes"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"pagoda/engine"
)

// maxMessage bounds what a client is shown of an upstream's words.
const maxMessage = 1024

// queueFullRetryAfter is when to come back to an upstream whose queue is full.
const queueFullRetryAfter = time.Second

// upstreamError reads an upstream's error in any of the shapes that servers use: OpenAI's, SGLang's flat one, FastAPI's
// "detail", a bare string, plain text. status is the HTTP status, 0 for an error that came as an event or within a 200;
// then the body's own code counts. Messages of the kind 4xx are the client's to read; of others it learns nothing, since
// they tell addresses, paths and stacks.
func upstreamError(status int, body []byte) *engine.Error {
	message, param, code := readError(body)
	if status == 0 {
		status = code
	}
	hidden := &statusError{status, firstLine(message, maxMessage)}
	message = firstLine(message, maxMessage)
	if message == "" {
		message = "the model's server refused this request"
	}
	lower := strings.ToLower(message)
	switch {
	case status == http.StatusBadRequest && (isTooLong(lower) || bytes.Contains(body, []byte(`"context_length_exceeded"`))):
		return &engine.Error{Code: engine.TooLong, Param: param, Message: message, Err: hidden}
	case status == http.StatusBadRequest, status == http.StatusUnprocessableEntity, status == http.StatusNotImplemented:
		return &engine.Error{Code: engine.Invalid, Param: param, Message: message, Err: hidden}
	case status == http.StatusRequestEntityTooLarge:
		return &engine.Error{Code: engine.TooLarge, Message: message, Err: hidden}
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable && strings.Contains(lower, "queue is full"):
		return &engine.Error{Code: engine.Busy, Message: "the model's queue is full; try again shortly",
			RetryAfter: queueFullRetryAfter, Err: hidden}
	case status == http.StatusServiceUnavailable:
		return &engine.Error{Code: engine.Unavailable, Message: "the model's server is not available; try again shortly",
			RetryAfter: queueFullRetryAfter, Err: hidden}
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return &engine.Error{Code: engine.Upstream, Message: "the model's server does not accept this server's key", Err: hidden}
	case status == http.StatusNotFound:
		return &engine.Error{Code: engine.Upstream, Message: "the model's server does not have this model or route", Err: hidden}
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		return &engine.Error{Code: engine.Timeout, Message: "the model's server took too long", Err: hidden}
	}
	return &engine.Error{Code: engine.Upstream, Message: "the model's server failed to answer this request", Err: hidden}
}

// statusError is what the log is told of an upstream's error.
type statusError struct {
	status  int
	message string
}

func (e *statusError) Error() string {
	return "upstream status " + strconv.Itoa(e.status) + ": " + e.message
}

// inputFields are names that servers give to the prompt in errors.
var inputFields = []string{"", "input", "input_text", "input_tokens", "prompt", "messages"}

// named gives an error about the prompt the name of our field.
func named(e *engine.Error, req *engine.Request) *engine.Error {
	if e.Code == engine.TooLong && slices.Contains(inputFields, e.Param) {
		if e.Param = "prompt"; req.Chat != nil {
			e.Param = "messages"
		}
	}
	return e
}

// tooLong are the words in which vLLM and SGLang say that a prompt does not fit.
var tooLong = regexp.MustCompile(`maximum context length|context length|longer than the model|max_model_len|is too long`)

func isTooLong(message string) bool { return tooLong.MatchString(message) }

// readError finds the message, the field and the status in a body.
func readError(body []byte) (message, param string, status int) {
	var flat errorShape
	if jsonv2.Unmarshal(body, &flat, lenient) != nil {
		return string(body), "", 0
	}
	switch flat.Error.Kind() {
	case '{':
		var nested errorShape
		if jsonv2.Unmarshal(flat.Error, &nested, lenient) == nil {
			flat = nested
		}
	case '"':
		return unquote(flat.Error), "", flat.status()
	}
	message = flat.Message
	if message == "" && len(flat.Detail) > 0 {
		message = string(flat.Detail)
		if flat.Detail.Kind() == '"' {
			message = unquote(flat.Detail)
		}
	}
	if flat.Param.Kind() == '"' {
		param = unquote(flat.Param)
	}
	return message, param, flat.status()
}

// errorShape is an error's own object, or what it lies in.
type errorShape struct {
	Error   jsontext.Value `json:"error"`
	Message string         `json:"message"`
	Param   jsontext.Value `json:"param"`
	Code    jsontext.Value `json:"code"` // vLLM's and SGLang's is the status, a number
	Type    string         `json:"type"`
	Detail  jsontext.Value `json:"detail"` // FastAPI
}

// status is the code if it is a number, else what the type says, else 500.
func (e *errorShape) status() int {
	if e.Code.Kind() == '0' {
		if n, err := strconv.Atoi(string(e.Code)); err == nil && n >= 400 && n < 600 {
			return n
		}
	}
	switch {
	case strings.Contains(e.Type, "BadRequest"), strings.Contains(e.Type, "invalid_request"):
		return http.StatusBadRequest
	case strings.Contains(e.Type, "NotFound"):
		return http.StatusNotFound
	}
	return http.StatusInternalServerError
}
