package proxy

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"pagoda/engine"
	"pagoda/jsonstring"
)

// Forward passes a request on as it is, but for the model's name in a JSON body. It is not tried again, since nobody
// here knows what it does: so that no idle connection costs one, each has a connection of its own. GET /metrics is
// answered with those of all upstreams.
func (e *Engine) Forward(ctx context.Context, req *engine.RawRequest) (*engine.RawResponse, error) {
	adapter, err := e.resolve(req.Model)
	if err != nil {
		return nil, err
	}
	if req.Method == http.MethodGet && req.Path == "/metrics" {
		return e.upstreamMetrics(ctx)
	}
	if err := e.begin(); err != nil {
		return nil, err
	}
	r, n, err := e.pool.take(ctx, adapter, nil, nil)
	if err != nil {
		e.end()
		return nil, err
	}
	up, err := e.forwarded(ctx, req, r, e.upstreamName(n, adapter))
	if err != nil {
		e.pool.give(r, neither)
		e.end()
		return nil, err
	}
	l, tied, cancel := tie(ctx)
	e.lines.join(l, r)
	release := func(err error) error {
		err = e.conclude(ctx, l, r, err, false)
		e.lines.leave(l)
		cancel()
		e.end()
		return err
	}
	resp, err := r.fresh.Do(up.WithContext(tied))
	if err != nil {
		return nil, clientError(release(&brokenError{err}))
	}
	r.alive()
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden { // it is about our key, not the client's
		resp.Body.Close()
		return nil, clientError(release(upstreamError(resp.StatusCode, nil)))
	}
	return &engine.RawResponse{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"),
		Body: &releasing{resp.Body, r, nil, release}}, nil
}

// forwarded is the request that is passed on for req.
func (e *Engine) forwarded(ctx context.Context, req *engine.RawRequest, r *replica, model string) (*http.Request, error) {
	body := req.Body
	if len(body) > 0 {
		var err error
		if body, err = renameModel(body, model); err != nil {
			return nil, err
		}
	}
	up, err := r.request(ctx, req.Method, req.Path, r.key, body)
	if err != nil {
		return nil, engine.AsError(err)
	}
	if req.ContentType != "" {
		up.Header.Set("Content-Type", req.ContentType)
	}
	return up, nil
}

// releasing counts a request out when its answer is closed.
type releasing struct {
	io.ReadCloser
	r       *replica
	broken  error // of the connection
	release func(error) error
}

func (b *releasing) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.r.alive()
	}
	if err != nil && err != io.EOF {
		b.broken = &brokenError{err}
	}
	return n, err
}

func (b *releasing) Close() error {
	err := b.ReadCloser.Close()
	_ = b.release(b.broken) // which counts it; the reader has it already
	return err
}

// renameModel replaces the value of "model" at the top of a JSON object and leaves every other byte.
func renameModel(body []byte, name string) ([]byte, error) {
	bad := engine.Errorf(engine.Invalid, "the body must be a JSON object")
	dec := jsontext.NewDecoder(bytes.NewReader(body))
	if tok, err := dec.ReadToken(); err != nil || tok.Kind() != '{' {
		return nil, bad
	}
	for dec.PeekKind() == '"' {
		key, err := dec.ReadToken()
		if err != nil {
			return nil, bad
		}
		isModel := key.String() == "model"
		value, err := dec.ReadValue()
		if err != nil {
			return nil, bad
		}
		if isModel {
			end := dec.InputOffset()
			out := jsonstring.AppendQuote(bytes.Clone(body[:end-int64(len(value))]), name)
			return append(out, body[end:]...), nil
		}
	}
	return nil, BadField("model", "is required")
}

// upstreamMetrics are the time series of all upstreams, each with the label "upstream" added.
func (e *Engine) upstreamMetrics(ctx context.Context) (*engine.RawResponse, error) {
	merged := map[string]*dto.MetricFamily{}
	var failed error
	for _, r := range e.pool.list() {
		body, err := r.get(ctx, "/metrics")
		if err != nil {
			failed = err
			continue
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
		if err != nil {
			failed = err
			continue
		}
		addFamilies(merged, families, r.id)
	}
	if len(merged) == 0 && failed != nil {
		return nil, &engine.Error{Code: engine.Upstream, Message: "the model's server shows no metrics", Err: failed}
	}
	var out bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(merged)) {
		if _, err := expfmt.MetricFamilyToText(&out, merged[name]); err != nil {
			return nil, &engine.Error{Code: engine.Upstream, Message: "the model's server shows metrics that cannot be read", Err: err}
		}
	}
	return &engine.RawResponse{Status: http.StatusOK, ContentType: string(expfmt.NewFormat(expfmt.TypeTextPlain)),
		Body: io.NopCloser(&out)}, nil
}

func addFamilies(merged, families map[string]*dto.MetricFamily, upstream string) {
	label := "upstream"
	for name, f := range families {
		for _, m := range f.Metric {
			m.Label = append(m.Label, &dto.LabelPair{Name: &label, Value: &upstream})
		}
		if have := merged[name]; have == nil {
			merged[name] = f
		} else if have.GetType() == f.GetType() {
			have.Metric = append(have.Metric, f.Metric...)
		}
	}
}
