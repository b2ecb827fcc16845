package server

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"pagoda/engine"
)

// upstreamMetricsTimeout is how long a scrape may wait for an upstream.
const upstreamMetricsTimeout = 10 * time.Second

func (s *Server) forwarder() (engine.Forwarder, error) {
	f, ok := s.eng.(engine.Forwarder)
	if !ok {
		return nil, engine.Errorf(engine.NotFound, "the engine behind this server has no upstream")
	}
	return f, nil
}

// upstreamMetrics serves GET /metrics/upstream/{model}: the upstreams' own time series.
func (s *Server) upstreamMetrics(w http.ResponseWriter, r *http.Request) {
	m, err := s.model(strings.TrimPrefix(r.URL.Path, "/metrics/upstream/"))
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), upstreamMetricsTimeout)
	defer cancel()
	s.passOn(w, r.WithContext(ctx), &engine.RawRequest{Model: m.ID, Method: http.MethodGet, Path: "/metrics"})
}

// forward serves the routes that only an upstream has: the body's model says which, and the answer comes back as it is.
func (s *Server) forward(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	m, err := s.modelIn(body)
	if err == nil && !m.ForwardsUnknown {
		err = badField("model", "has no upstream: only proxied models have this route")
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.forwardTo(w, r, m, body)
}

// modelIn is the model that a body of JSON names.
func (s *Server) modelIn(body []byte) (m engine.Model, err error) {
	var named struct {
		Model string `json:"model"`
	}
	if err := checkDepth(body); err != nil {
		return m, err
	}
	if err := jsonv2.Unmarshal(body, &named, jsontext.AllowDuplicateNames(false)); err != nil {
		return m, decodeError("", err)
	}
	return s.model(named.Model)
}

func (s *Server) forwardTo(w http.ResponseWriter, r *http.Request, m engine.Model, body []byte) {
	if err := requestInfo(r).admit(s.work); err != nil {
		s.writeError(w, r, err)
		return
	}
	s.passOn(w, r, &engine.RawRequest{Model: m.ID, Method: http.MethodPost, Path: r.URL.Path, ContentType: "application/json", Body: body})
}

// passOn answers with what the upstream answers, piece by piece as it comes.
func (s *Server) passOn(w http.ResponseWriter, r *http.Request, req *engine.RawRequest) {
	f, err := s.forwarder()
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	resp, err := f.Forward(r.Context(), req)
	if err != nil {
		s.writeError(w, r, causeOf(r.Context(), err))
		return
	}
	defer resp.Body.Close()
	if resp.ContentType != "" {
		w.Header().Set("Content-Type", resp.ContentType)
	}
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(resp.Status)
	rc := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil || rc.Flush() != nil {
				return // the client is gone; closing the body ends the request
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			requestInfo(r).fail(causeOf(r.Context(), &engine.Error{Code: engine.Upstream, Message: "the upstream's answer broke off", Err: err}))
			panic(http.ErrAbortHandler) // the client must not take a part for the whole
		}
	}
}
