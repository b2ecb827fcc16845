package server

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"pagoda/engine"
)

// info is the record of one HTTP request, for the access log and the metrics, and the request's context. It holds what else a
// request needs on its way, so that all of it is allocated at once. Only the goroutine that serves the request touches its plain
// fields.
type info struct {
	context.Context // the connection's
	route           *chi.Context
	response        response
	body            timedBody

	ID     string // request id, also in the response header X-Request-Id
	Tenant string // who asks: a short hash of the API key, "" without keys
	Stream bool   // the answer is an event stream; set by the dialect

	start time.Time
	err   *engine.Error // the failure the client was told of, if any

	mu       sync.Mutex    // a request with several prompts generates them at once; guards all below
	admitted bool          // counted in by the drainer
	gens     []*generation // one for each prompt
}

// admit counts the request in with its first prompt, so that a drain lets it finish all of them.
func (i *info) admit(d *drainer) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.admitted {
		return nil
	}
	err := d.begin()
	i.admitted = err == nil
	return err
}

// release counts the request out when its answer is written.
func (i *info) release(d *drainer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.admitted {
		i.admitted = false
		d.end()
	}
}

func (i *info) began(g *generation) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.gens = append(i.gens, g)
}

func (i *info) generations() []*generation {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.gens
}

type infoKey struct{}

// Value implements context.Context.
func (i *info) Value(key any) any {
	switch key {
	case infoKey{}:
		return i
	case chi.RouteCtxKey:
		return i.route
	}
	return i.Context.Value(key)
}

// requestInfo returns the record of r. A request that did not come through the router gets an empty one.
func requestInfo(r *http.Request) *info {
	ctx := r.Context()
	if i, ok := ctx.(*info); ok {
		return i
	}
	if i, ok := ctx.Value(infoKey{}).(*info); ok { // one of a request's prompts has a context below
		return i
	}
	return &info{Context: ctx, start: time.Now()}
}

// fail notes the error that the client is told of, for the log and the metrics. Call it wherever an error is written.
func (i *info) fail(err *engine.Error) { i.err = err }

const maxRequestID = 128

// handle gives each request its info record and an id: the client's X-Request-Id if it is harmless, else a new one.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("X-Request-Id")
	if !validRequestID(id) {
		id = newID("req-")
	}
	w.Header()["X-Request-Id"] = []string{id}
	route := s.places.Get().(*chi.Context)
	defer func() { // also when a panic drops the connection
		route.Reset()
		s.places.Put(route)
	}()
	route.Routes = s.router
	s.router.ServeHTTP(w, r.WithContext(&info{Context: r.Context(), route: route, ID: id, start: time.Now()}))
}

// newID makes an id that cannot be guessed from another: prefix and 26 letters and digits, 130 bits.
func newID(prefix string) string {
	var random [26]byte
	_, _ = rand.Read(random[:]) // never fails
	for i, b := range random {
		random[i] = "abcdefghijklmnopqrstuvwxyz234567"[b%32]
	}
	return prefix + string(random[:])
}

func validRequestID(id string) bool {
	return id != "" && len(id) <= maxRequestID &&
		!strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' })
}
