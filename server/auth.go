package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"strings"

	"pagoda/engine"
)

// openRoutes need no key: probes have none.
var openRoutes = map[string]bool{"/health": true, "/ready": true}

// isOpen decides on the path that the router matches. An encoded spelling of an open path is not open.
func isOpen(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.URL.RawPath == "" && openRoutes[r.URL.Path]
}

// keyHash is a key as the server keeps it: keys themselves are not held.
type keyHash struct {
	sum    [sha256.Size]byte
	tenant string // names the key in logs and in the engine's fairness; tells nothing about it
}

func hashKeys(keys []string) []keyHash {
	var out []keyHash
	for _, k := range keys {
		tenant := sha256.Sum256([]byte("tenant\x00" + k))
		out = append(out, keyHash{sum: sha256.Sum256([]byte(k)), tenant: hex.EncodeToString(tenant[:6])})
	}
	return out
}

// matchKey finds the tenant of key. Its time depends on neither the key's content nor which one matches: hashes of one
// length are compared in constant time, and all of them always.
func matchKey(keys []keyHash, key string) (tenant string, ok bool) {
	sum := sha256.Sum256([]byte(key))
	found := -1
	for i := range keys {
		eq := subtle.ConstantTimeCompare(keys[i].sum[:], sum[:])
		found = subtle.ConstantTimeSelect(eq, i, found)
	}
	if found < 0 {
		return "", false
	}
	return keys[found].tenant, true
}

// requestKey reads the key from Authorization (Bearer, or Basic with any user so that a browser can ask for it) or
// from X-Api-Key. Never from the URL, which ends up in logs.
func requestKey(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	if scheme, key, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(key)
	}
	return r.Header.Get("X-Api-Key")
}

// authorize refuses requests without a valid key on all routes, known or not, but the open ones.
func (s *Server) authorize(next http.Handler) http.Handler {
	if len(s.keys) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isOpen(r) {
			next.ServeHTTP(w, r)
			return
		}
		tenant, ok := matchKey(s.keys, requestKey(r))
		if !ok {
			challenge(w, r)
			s.writeError(w, r, engine.Errorf(engine.Unauthorized, "missing or wrong API key"))
			return
		}
		requestInfo(r).Tenant = tenant
		next.ServeHTTP(w, r)
	})
}

// challenge offers Basic only to a browser opening a page: a script's request must not pop up a password prompt.
func challenge(w http.ResponseWriter, r *http.Request) {
	w.Header().Add("WWW-Authenticate", `Bearer realm="pagoda"`)
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Add("WWW-Authenticate", `Basic realm="pagoda: any user name, API key as password", charset="UTF-8"`)
	}
}
