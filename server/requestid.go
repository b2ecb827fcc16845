package server

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"time"

	"pagoda/engine"
)

// info is the record of one HTTP request, for the access log and the metrics. Only the goroutine that serves the
// request touches its plain fields.
type info struct {
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

// requestInfo returns the record of r. A request that did not come through the router gets an empty one.
func requestInfo(r *http.Request) *info {
	if i, ok := r.Context().Value(infoKey{}).(*info); ok {
		return i
	}
	return &info{start: time.Now()}
}

// fail notes the error that the client is told of, for the log and the metrics. Call it wherever an error is written.
func (i *info) fail(err *engine.Error) { i.err = err }

const maxRequestID = 128

// requestID gives each request its info record and an id: the client's X-Request-Id if it is harmless, else a new one.
func (s *Server) requestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("X-Request-Id")
		if !validRequestID(id) {
			id = "req-" + strings.ToLower(rand.Text())
		}
		w.Header().Set("X-Request-Id", id)
		i := &info{ID: id, start: time.Now()}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), infoKey{}, i)))
	})
}

func validRequestID(id string) bool {
	return id != "" && len(id) <= maxRequestID &&
		!strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' })
}
