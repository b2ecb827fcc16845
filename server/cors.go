package server

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"pagoda/engine"
)

// validOrigin accepts "*" and what a browser sends as Origin.
func validOrigin(o string) bool {
	if o == "*" {
		return true
	}
	u, err := url.Parse(o)
	return err == nil && u.Scheme != "" && u.Host != "" && o == u.Scheme+"://"+u.Host
}

// cors lets pages of the configured origins call the server from a browser. Credentials (cookies, a browser's stored
// password) are never allowed along: such pages send the key themselves.
func (s *Server) cors(next http.Handler) http.Handler {
	if len(s.cfg.CORSOrigins) == 0 {
		return next
	}
	any := slices.Contains(s.cfg.CORSOrigins, "*")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		if origin == "" || !any && !slices.Contains(s.cfg.CORSOrigins, origin) {
			next.ServeHTTP(w, r)
			return
		}
		if any {
			origin = "*"
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After, X-Pagoda-Ignored-Fields")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
		if names := r.Header.Get("Access-Control-Request-Headers"); validHeaderNames(names) {
			h.Set("Access-Control-Allow-Headers", names) // "*" would not cover Authorization
		}
		h.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
	})
}

func validHeaderNames(names string) bool {
	return names != "" && len(names) <= 1024 && !strings.ContainsFunc(names, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_, ", c))
	})
}

// crossSite refuses writes that a browser sends on behalf of another site which CORS does not allow.
func (s *Server) crossSite(next http.Handler) http.Handler {
	if slices.Contains(s.cfg.CORSOrigins, "*") {
		return next
	}
	guard := http.NewCrossOriginProtection()
	for _, o := range s.cfg.CORSOrigins {
		if err := guard.AddTrustedOrigin(o); err != nil {
			panic("server: validated origin refused: " + err.Error()) // Config.Validate is stricter
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if guard.Check(r) != nil {
			s.writeError(w, r, engine.Errorf(engine.Forbidden, "requests from other sites' pages are not allowed here"))
			return
		}
		next.ServeHTTP(w, r)
	})
}
