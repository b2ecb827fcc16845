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
	ctx, cancel := context.WithCancel(ctx)
	stopCut := context.AfterFunc(e.over, cancel)
	release := func(o outcome) {
		stopCut()
		cancel()
		e.pool.give(r, o)
		e.end()
	}
	body := req.Body
	if len(body) > 0 {
		if body, err = renameModel(body, e.upstreamName(n, adapter)); err != nil {
			release(neither)
			return nil, err
		}
	}
	var up *http.Request
	if up, err = r.request(ctx, req.Method, req.Path, r.key, body); err != nil {
		release(neither)
		return nil, engine.AsError(err)
	}
	if req.ContentType != "" {
		up.Header.Set("Content-Type", req.ContentType)
	}
	resp, err := r.fresh.Do(up)
	if err != nil {
		result := broken
		if ctx.Err() != nil {
			result = neither
		}
		release(result)
		return nil, clientError(&brokenError{err})
	}
	r.alive()
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden { // it is about our key, not the client's
		resp.Body.Close()
		release(failed)
		return nil, upstreamError(resp.StatusCode, nil)
	}
	return &engine.RawResponse{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"),
		Body: &releasing{resp.Body, r, func() { release(answered) }}}, nil
}

// releasing counts a request out when its answer is closed.
type releasing struct {
	io.ReadCloser
	r       *replica
	release func()
}

func (b *releasing) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.r.alive()
	}
	return n, err
}

func (b *releasing) Close() error {
	err := b.ReadCloser.Close()
	b.release()
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
