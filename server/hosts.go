package server

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"pagoda/engine"
)

// checkHost defends a server without keys against DNS rebinding (CVE-2024-28224): a web page whose own name is made to
// point at this machine is, to the browser, the same site as the server and could read everything. Its requests carry
// that name in the Host header, so only names that a stranger cannot register in the public DNS are answered. With keys
// the page would need one, and the rule is off.
func (s *Server) checkHost(next http.Handler) http.Handler {
	if len(s.keys) > 0 || slices.Contains(s.cfg.AllowedHosts, "*") {
		return next
	}
	var last atomic.Pointer[string] // allowed; most clients use the same
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host := last.Load(); host == nil || *host != r.Host {
			switch {
			case s.allowedHost(r.Host):
				last.Store(new(strings.Clone(r.Host)))
			case !isOpen(r):
				s.writeError(w, r, engine.Errorf(engine.Forbidden,
					"without an API key this server is reached by IP address, by a local name or by an allowed host name only"))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// privateSuffixes are top-level names that the public DNS never delegates.
var privateSuffixes = []string{".localhost", ".local", ".internal", ".home.arpa", ".svc", ".cluster.local"}

// allowedHost accepts IP addresses, names without a dot (localhost, containers, machines), private suffixes and the
// configured names.
func (s *Server) allowedHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") {
		return true
	}
	return slices.ContainsFunc(privateSuffixes, func(p string) bool { return strings.HasSuffix(host, p) }) ||
		slices.ContainsFunc(s.cfg.AllowedHosts, func(a string) bool { return strings.EqualFold(a, host) })
}
