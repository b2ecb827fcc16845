package proxy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"pagoda/lost"
)

const (
	// idleTimeout is below the 5 s after which uvicorn, which vLLM and SGLang run on, closes a connection that nobody uses.
	idleTimeout   = 3 * time.Second
	dialTimeout   = 5 * time.Second
	maxIdleConns  = 4096
	writeBuffer   = 16 << 10 // a usual request in one piece
	readBuffer    = 8 << 10
	maxErrorBytes = 64 << 10
	maxRetryAfter = 3600     // seconds
	maxInfoBytes  = 16 << 20 // of lists of models and metrics
)

// replica is one upstream: an address and what is known about it.
type replica struct {
	id    string // its address as logs and metrics show it
	base  string // "http://host:port"
	key   string
	admin string // key of the routes that load adapters and abort; "" is key
	d     *Dialect

	dial         dialFunc
	address      string      // "host:port" to dial
	tls          *tls.Config // nil: none
	host, prefix string      // of requests' heads
	conns        conns       // carry requests to generate

	client *http.Client // carries all else
	// fresh sends each request over a connection of its own, which cannot have been closed while nobody used it.
	fresh *http.Client

	ended    atomic.Bool  // a server of ours that is no more: who listens at its address now is another, with another key
	running  atomic.Int64 // requests
	ids      ids          // of requests at the upstream
	born     time.Time
	progress atomic.Int64 // the last sign of life on any request, in nanoseconds since born
	counters atomic.Pointer[map[string]float64]

	// What follows is guarded by the pool's lock.
	up        bool
	downSince time.Time // zero while it is up, and before it ever was
	names     names
	failures  int           // in a row
	cooldown  time.Duration // of the breaker
	until     time.Time     // the breaker refuses until then
	trial     bool          // one request tries whether it works again
	leaving   bool          // taken off the list: finishes what it has

	kick chan struct{}      // probes at once
	stop context.CancelFunc // ends the probing
	done chan struct{}      // closed when it has ended
}

// names is what an upstream calls its models.
type names struct {
	base     string
	root     string
	maxLen   int
	adapters map[string]bool
	all      []string
}

// has says whether the upstream knows an adapter.
func (n *names) has(adapter string) bool {
	return n.adapters[adapter] || slices.Contains(n.all, adapter)
}

// newReplica makes a replica of rawURL: http://host:port[/prefix], https://..., or unix:///path/of/socket.
// A host that acknowledges nothing for as long as silence is gone, with all its connections.
func newReplica(rawURL, key string, d *Dialect, silence time.Duration) (*replica, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("is no URL")
	}
	r := &replica{key: key, admin: key, d: d, born: time.Now(), ids: ids{prefix: "pagoda-" + strings.ToLower(rand.Text()) + "-"},
		kick: make(chan struct{}, 1), done: make(chan struct{})}
	dialer := &net.Dialer{Timeout: dialTimeout, Control: lost.Control(silence), KeepAliveConfig: lost.KeepAlive(silence)}
	r.dial = r.unlessEnded(dialer.DialContext)
	r.base = strings.TrimSuffix(strings.TrimRight(rawURL, "/"), "/v1")
	r.id = strings.TrimPrefix(r.base, u.Scheme+"://")
	switch {
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("must not go on after the path")
	case u.Scheme == "unix" && u.Host == "" && u.Path != "":
		r.dial = r.unlessEnded(func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", u.Path)
		})
		r.base, r.id = "http://localhost", "unix:"+u.Path
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return nil, errors.New("must be like http://host:8000 or unix:///path")
	case u.Port() != "" && !isPort(u.Port()):
		return nil, errors.New("must have a port from 1 to 65535")
	case u.User != nil:
		return nil, errors.New("must not hold a password; upstream_api_key may be \"Basic \" and user:password in base64")
	}
	if err := r.setHead(); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext:         r.dial,
		MaxIdleConns:        maxIdleConns,
		MaxIdleConnsPerHost: maxIdleConns,
		IdleConnTimeout:     idleTimeout,
		WriteBufferSize:     writeBuffer,
		ReadBufferSize:      readBuffer,
		TLSHandshakeTimeout: dialTimeout,
		DisableCompression:  true, // compressed events would wait for one another
	}
	fresh := transport.Clone()
	fresh.DisableKeepAlives = true
	r.client, r.fresh = newClient(transport), newClient(fresh)
	return r, nil
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

// setHead prepares what the heads of requests begin with, and where they go.
func (r *replica) setHead() error {
	u, err := url.Parse(r.base)
	if err != nil {
		return errors.New("is no URL")
	}
	notPlain := func(s string) bool {
		return strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
	}
	switch {
	case notPlain(u.Host):
		return errors.New("must have a host in ASCII (xn--...)")
	case notPlain(strings.TrimPrefix(r.key, basic)):
		return errors.New("has an API key that is not visible ASCII without spaces")
	}
	r.host, r.prefix = u.Host, u.EscapedPath()
	if zone := strings.IndexByte(r.host, '%'); zone >= 0 { // it is of this machine's own
		r.host = r.host[:zone] + r.host[strings.IndexByte(r.host, ']'):]
	}
	port := cmp.Or(u.Port(), "80")
	if u.Scheme == "https" {
		port = cmp.Or(u.Port(), "443")
		r.tls = &tls.Config{ServerName: u.Hostname()}
	}
	r.address = net.JoinHostPort(u.Hostname(), port)
	return nil
}

var errEnded = errors.New("the server has ended")

// unlessEnded connects by next, unless the server has ended. It looks afterwards: the server's next start may have come between.
func (r *replica) unlessEnded(next dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := next(ctx, network, address)
		if err == nil && r.ended.Load() {
			conn.Close()
			return nil, &net.OpError{Op: "dial", Net: network, Err: errEnded}
		}
		return conn, err
	}
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// newClient follows no redirects: the key and the prompt go where the operator said and nowhere else.
func newClient(t *http.Transport) *http.Client {
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// request makes a request.
func (r *replica) request(ctx context.Context, method, path, key string, body []byte) (*http.Request, error) {
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, reader)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Authorization", scheme(key)+key)
	}
	return req, nil
}

// basic begins keys that are a password's: user:password in base64 follows.
const basic = "Basic "

// scheme is what stands before a key, "" if that begins with it.
func scheme(key string) string {
	if strings.HasPrefix(key, basic) {
		return ""
	}
	return "Bearer "
}

// alive notes a sign of life.
func (r *replica) alive() { r.progress.Store(int64(time.Since(r.born))) }

// silent is for how long there has been none. It is measured by a clock that nobody sets.
func (r *replica) silent() time.Duration {
	return time.Since(r.born) - time.Duration(r.progress.Load())
}

// notSentError says that an upstream never saw the request.
type notSentError struct{ err error }

func (e *notSentError) Error() string { return "connect to the upstream: " + e.err.Error() }
func (e *notSentError) Unwrap() error { return e.err }

// staleError says that a kept connection broke before anything of the answer came. Most likely the upstream had closed it
// while nobody used it, which says nothing about the upstream. All others may be as stale, and new ones are kept all the time:
// the next try goes over a fresh connection.
type staleError struct{ err error }

func (e *staleError) Error() string { return "kept connection to the upstream: " + e.err.Error() }
func (e *staleError) Unwrap() error { return e.err }

// ids make names that no other request has, here or elsewhere.
type ids struct {
	prefix string
	last   atomic.Uint64
}

func (i *ids) next() string { return i.prefix + strconv.FormatUint(i.last.Add(1), 10) }

// post sends one try of a request, over a kept connection unless it is to be a fresh one, and hands its answer to a.
func (r *replica) post(ctx context.Context, l *lifeline, fresh bool, e *encoded, model string, a *answer) error {
	id := r.ids.next()
	x, err := r.send(ctx, l, fresh, e.path, id, e.finish(model, r.d.RequestIDField, id))
	ended := false
	defer func() {
		if !ended && r.d.Abort != "" {
			r.abort(id)
		}
	}()
	if err != nil {
		_, broke := err.(*brokenError)
		ended = !broke
		return err
	}
	defer x.end()
	r.alive()
	if x.status != http.StatusOK {
		ended = true
		body, err := x.all(maxErrorBytes)
		if err != nil {
			return &brokenError{err}
		}
		refused := upstreamError(x.status, body)
		if n, err := strconv.Atoi(x.retryAfter); err == nil && n > 0 && refused.RetryAfter > 0 {
			refused.RetryAfter = time.Duration(min(n, maxRetryAfter)) * time.Second
		}
		return refused
	}
	if x.events {
		err = a.stream(x, r.alive)
	} else {
		err = a.whole(x, r.alive)
	}
	ended = !a.left && ctx.Err() == nil && l.why() == nil
	return err
}

// abort tells the upstream that nobody waits for a request any more, where closing the connection is not enough.
func (r *replica) abort(id string) {
	go func() { // ends by itself within its time
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		defer cancel()
		var o object
		o.text("rid", id)
		if resp, err := r.do(ctx, http.MethodPost, r.d.Abort, r.admin, o.end()); err == nil {
			resp.Body.Close()
		}
	}()
}

// do sends a request that may be sent twice. net/http does so by itself where a kept connection turns out to be closed: the
// header's empty value says that it may, and is not sent.
func (r *replica) do(ctx context.Context, method, path, key string, body []byte) (*http.Response, error) {
	req, err := r.request(ctx, method, path, key, body)
	if err != nil {
		return nil, err
	}
	req.Header["Idempotency-Key"] = []string{}
	return r.client.Do(req)
}

// get reads a small answer with status 200.
func (r *replica) get(ctx context.Context, path string) ([]byte, error) {
	resp, err := r.do(ctx, http.MethodGet, path, r.key, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxInfoBytes))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		message, _, _ := readError(body)
		return nil, fmt.Errorf("GET %s: %w", path, &statusError{resp.StatusCode, firstLine(message, maxMessage)})
	}
	return body, nil
}

// healthy asks whether the upstream can generate.
func (r *replica) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.d.HealthTimeout)
	defer cancel()
	_, err := r.get(ctx, r.d.Health)
	return err
}

// modelList is the answer of GET /v1/models as servers write it.
type modelList struct {
	Data []struct {
		ID          string `json:"id"`
		Parent      string `json:"parent"`
		Root        string `json:"root"`
		MaxModelLen int    `json:"max_model_len"`
	} `json:"data"`
}

// ask learns the names. want is the model that we are to serve, "" for the upstream's first.
func (r *replica) ask(ctx context.Context, want string) (names, error) {
	ctx, cancel := context.WithTimeout(ctx, r.d.HealthTimeout)
	defer cancel()
	body, err := r.get(ctx, "/v1/models")
	if err != nil {
		return names{}, err
	}
	var list modelList
	if err := jsonv2.Unmarshal(body, &list, lenient); err != nil {
		return names{}, fmt.Errorf("GET /v1/models: %w", err)
	}
	n := names{adapters: map[string]bool{}}
	for _, m := range list.Data {
		n.all = append(n.all, m.ID)
		if n.base == "" && m.Parent == "" && (want == "" || m.ID == want) {
			n.base, n.root, n.maxLen = m.ID, m.Root, m.MaxModelLen
		}
	}
	if n.base == "" {
		return n, fmt.Errorf("it serves no model %q but %s", want, strings.Join(n.all, ", "))
	}
	for _, m := range list.Data {
		if m.Parent == n.base {
			n.adapters[m.ID] = true
		}
	}
	return n, nil
}
