package server

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"pagoda/engine"
)

// Config is what a Server needs to know. A zero number or duration takes the value of [Defaults]; only RequestTimeout
// may stay zero, which is no limit.
type Config struct {
	Keys          []string // API keys, any of which opens all routes; none: the server asks for no key
	AllowedHosts  []string // further Host names answered without a key (see hosts.go); "*" is any
	CORSOrigins   []string // origins such as "https://app.example", or "*"; none: no CORS
	DefaultModel  string   // answers requests for a model that there is not, or for none; "": they are refused
	RootPath      string   // path below which a proxy shows the server, such as "/llm"; requests come with it or without
	UnknownFields string   // "refuse" answers 400, "report" ignores the field and names it in a header

	MaxBodyBytes   int64
	MaxHeaderBytes int
	MaxN           int // most choices per request

	ReadHeaderTimeout time.Duration // from a connection's first byte to the end of the headers
	ReadTimeout       time.Duration // for a request's body
	IdleTimeout       time.Duration // between two requests of a connection
	WriteTimeout      time.Duration // for each write to the client
	RequestTimeout    time.Duration // for a whole generation

	AdapterUpdates bool // clients may load and unload adapters
	// ForwardRoutes are paths of upstreams' own routes that are passed on to them; they take POST with a JSON body.
	ForwardRoutes []string
	// Collectors are time series that /metrics shows beside the server's own.
	Collectors []prometheus.Collector

	Version   string
	Commit    string
	AccessLog bool // one line a request; failures of ours are logged even without it
}

// Defaults are the values that zero fields of a Config take.
func Defaults() Config {
	return Config{
		UnknownFields:     "refuse",
		MaxBodyBytes:      32 << 20,
		MaxHeaderBytes:    64 << 10,
		MaxN:              128,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       60 * time.Second,
		IdleTimeout:       120 * time.Second,
		WriteTimeout:      30 * time.Second,
		Version:           "dev",
		AccessLog:         true,
	}
}

// withDefaults fills what is zero.
func (c Config) withDefaults() Config {
	d := Defaults()
	setDefault(&c.UnknownFields, d.UnknownFields)
	setDefault(&c.MaxBodyBytes, d.MaxBodyBytes)
	setDefault(&c.MaxHeaderBytes, d.MaxHeaderBytes)
	setDefault(&c.MaxN, d.MaxN)
	setDefault(&c.ReadHeaderTimeout, d.ReadHeaderTimeout)
	setDefault(&c.ReadTimeout, d.ReadTimeout)
	setDefault(&c.IdleTimeout, d.IdleTimeout)
	setDefault(&c.WriteTimeout, d.WriteTimeout)
	setDefault(&c.Version, d.Version)
	return c
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Validate reports all problems of c at once.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for i, k := range c.Keys {
		if strings.TrimSpace(k) == "" || strings.ContainsFunc(k, func(r rune) bool { return r <= ' ' || r > '~' }) {
			bad("API key %d must be visible ASCII without spaces", i+1) // the key itself is never shown
		}
	}
	for _, o := range c.CORSOrigins {
		if !validOrigin(o) {
			bad("CORS origin %q must be * or scheme://host[:port]", o)
		}
	}
	for _, path := range c.ForwardRoutes {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "{}*?# ") {
			bad("forward route %q must be a plain path", path)
		}
	}
	if u := c.UnknownFields; u != "" && u != "refuse" && u != "report" {
		bad("unknown fields: %q is neither refuse nor report", u)
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"body limit", c.MaxBodyBytes}, {"header limit", int64(c.MaxHeaderBytes)}, {"limit of n", int64(c.MaxN)},
		{"read header timeout", int64(c.ReadHeaderTimeout)}, {"read timeout", int64(c.ReadTimeout)},
		{"idle timeout", int64(c.IdleTimeout)}, {"write timeout", int64(c.WriteTimeout)},
		{"request timeout", int64(c.RequestTimeout)},
	} {
		if n.value < 0 {
			bad("%s must not be negative", n.name)
		}
	}
	return errors.Join(errs...)
}

// Server answers HTTP requests with an engine.
type Server struct {
	eng     engine.Engine
	cfg     Config
	log     zerolog.Logger
	keys    []keyHash
	metrics *metrics
	work    *drainer // counts running generations, refuses new ones while draining
	ready   atomic.Bool
	router  *chi.Mux
	places  sync.Pool // of *chi.Context
}

// New makes a Server. It is not ready until SetReady.
func New(eng engine.Engine, cfg Config, log zerolog.Logger) (*Server, error) {
	if eng == nil {
		return nil, errors.New("server: no engine")
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	s := &Server{eng: eng, cfg: cfg.withDefaults(), log: log, keys: hashKeys(cfg.Keys), work: newDrainer()}
	s.metrics = newMetrics(s)
	s.router = s.routes()
	s.places.New = func() any { return chi.NewRouteContext() }
	return s, nil
}

// Handler serves all routes, also below RootPath.
func (s *Server) Handler() http.Handler {
	handle := http.HandlerFunc(s.handle)
	if s.cfg.RootPath == "" {
		return handle
	}
	below := http.StripPrefix(s.cfg.RootPath, handle)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, s.cfg.RootPath+"/") {
			below.ServeHTTP(w, r)
			return
		}
		handle(w, r)
	})
}

// SetReady says whether /ready answers 200.
func (s *Server) SetReady(ready bool) { s.ready.Store(ready) }

// routes lists every route. Middleware runs for unknown routes too, in this order, and finds the info record that handle made.
func (s *Server) routes() *chi.Mux {
	r := chi.NewRouter()
	r.Use(
		middleware.GetHead, // HEAD where there is GET
		s.observe,          // access log and HTTP metrics
		s.recoverer,        // inside observe, so that a panic's 500 is logged and counted
		s.limits,           // time limits of body and writes, size of the body
		s.secure,           // headers that make browsers careful
		s.checkHost,        // DNS rebinding
		s.cors,             // preflights carry no key
		s.crossSite,        // writes from other sites
		s.authorize,        // all but openRoutes
	)
	r.NotFound(s.notFound)
	r.MethodNotAllowed(s.methodNotAllowed)

	r.Get("/health", s.health)
	r.Get("/ready", s.getReady)
	r.Get("/version", s.version)
	r.Method(http.MethodGet, "/metrics", s.metrics.handler())
	r.Get("/metrics/upstream/*", s.upstreamMetrics) // ids may contain slashes
	r.Get("/openapi.json", s.openAPI)
	r.Get("/docs", s.uiPage("docs.html"))
	r.Get("/", s.uiPage("chat.html"))
	r.Get("/ui/{file}", s.uiAsset)

	r.Get("/v1/models", s.listModels)
	r.Get("/v1/models/*", s.getModel) // ids may contain slashes

	r.Group(func(r chi.Router) {
		r.Use(s.jsonBody)
		r.Post("/v1/chat/completions", s.chatCompletions)
		r.Post("/v1/completions", s.completions)
		r.Post("/v1/embeddings", s.pooling(s.embeddings))
		for _, path := range []string{"/v1/rerank", "/v2/rerank", "/rerank"} {
			r.Post(path, s.pooling(s.rerank))
		}
		for _, path := range []string{"/v1/score", "/score"} {
			r.Post(path, s.pooling(s.scores))
		}
		r.Post("/tokenize", s.tokenize)
		r.Post("/detokenize", s.detokenize)
		r.Post("/v1/load_lora_adapter", s.loadAdapter)
		r.Post("/v1/unload_lora_adapter", s.unloadAdapter)
		for _, path := range s.cfg.ForwardRoutes {
			if !r.Match(chi.NewRouteContext(), http.MethodPost, path) { // our own routes come first
				r.Post(path, s.forward)
			}
		}
	})
	return r
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	s.writeError(w, r, engine.Errorf(engine.NotFound, "no such route"))
}

func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	path := cmp.Or(r.URL.RawPath, r.URL.Path) // what chi routes by; it tells the methods to its own handler only
	var allowed []string
	if s.router.Match(chi.NewRouteContext(), http.MethodGet, path) {
		allowed = append(allowed, http.MethodGet, http.MethodHead)
	}
	if s.router.Match(chi.NewRouteContext(), http.MethodPost, path) {
		allowed = append(allowed, http.MethodPost)
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	s.writeError(w, r, engine.Errorf(engine.MethodNotAllowed, "method not allowed on this route"))
}
