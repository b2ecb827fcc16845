package server

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"pagoda/engine"
	"pagoda/openapi"
)

// failure is what a client sees of an engine.Code: the HTTP status and OpenAI's words for the kind of error.
type failure struct {
	status int
	kind   string // "type" in the body
	code   string // "code" in the body, null if empty
}

// failures is the only place where an error becomes an HTTP status.
var failures = map[engine.Code]failure{
	engine.Internal:         {http.StatusInternalServerError, "server_error", "internal_error"},
	engine.Invalid:          {http.StatusBadRequest, "invalid_request_error", ""},
	engine.Unauthorized:     {http.StatusUnauthorized, "invalid_request_error", "invalid_api_key"},
	engine.Forbidden:        {http.StatusForbidden, "permission_error", "forbidden"},
	engine.NotFound:         {http.StatusNotFound, "invalid_request_error", ""},
	engine.MethodNotAllowed: {http.StatusMethodNotAllowed, "invalid_request_error", "method_not_allowed"},
	engine.TooLarge:         {http.StatusRequestEntityTooLarge, "invalid_request_error", "request_too_large"},
	engine.UnsupportedMedia: {http.StatusUnsupportedMediaType, "invalid_request_error", "unsupported_media_type"},
	engine.TooLong:          {http.StatusBadRequest, "invalid_request_error", "context_length_exceeded"},
	engine.Busy:             {http.StatusTooManyRequests, "rate_limit_error", "rate_limit_exceeded"},
	engine.Unavailable:      {http.StatusServiceUnavailable, "server_error", "service_unavailable"},
	engine.Timeout:          {http.StatusGatewayTimeout, "server_error", "timeout"},
	engine.Canceled:         {statusClientClosed, "invalid_request_error", "request_canceled"},
	engine.Upstream:         {http.StatusBadGateway, "server_error", "upstream_error"},
}

// statusClientClosed is nginx's status for a client that went away; only logs ever see it.
const statusClientClosed = 499

// internalMessage is all that a client learns about our faults.
const internalMessage = "the server failed to answer this request"

func failureOf(e *engine.Error) failure {
	f, ok := failures[e.Code]
	if !ok {
		f = failures[engine.Internal]
	}
	if e.Code == engine.NotFound && e.Param == "model" {
		f.code = "model_not_found"
	}
	return f
}

// errorBody is e in OpenAI's shape.
func errorBody(e *engine.Error) openapi.ErrorResponse {
	f := failureOf(e)
	body := openapi.Error{Message: e.Message, Type: f.kind}
	if f.status == http.StatusInternalServerError {
		body.Message = internalMessage
	}
	if e.Param != "" {
		body.Param = &e.Param
	}
	if f.code != "" {
		body.Code = &f.code
	}
	return openapi.ErrorResponse{Error: body}
}

// writeError answers with err and notes it for the log.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	e := engine.AsError(err)
	requestInfo(r).fail(e)
	if (e.Code == engine.Busy || e.Code == engine.Unavailable) && e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(retrySeconds(e.RetryAfter), 10))
	}
	writeJSON(w, failureOf(e).status, errorBody(e))
}

// retrySeconds rounds up, so that the client does not come back too early.
func retrySeconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

// jsonOptions make the same bytes of the same value. Text that is not UTF-8, which no engine should send, becomes
// U+FFFD instead of a failure.
var jsonOptions = json.JoinOptions(json.Deterministic(true), json.FormatNilMapAsNull(true),
	jsontext.AllowInvalidUTF8(true))

// writeJSON answers with v, one of the types of package openapi, which always encode.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v, jsonOptions)
	if err != nil {
		panic("server: " + err.Error())
	}
	writeBody(w, status, body)
}

// contentTypeJSON is shared by all answers, as secureHeaders are.
var contentTypeJSON = []string{"application/json"}

// writeBody answers with body, which is JSON.
func writeBody(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = contentTypeJSON
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone if this fails
}
