package server

import (
	"bytes"
	"embed"
	"encoding/json"
	"io/fs"
	"net/http"
	"path"
	"runtime"

	"github.com/go-chi/chi/v5"

	"pagoda/engine"
	"pagoda/openapi"
)

//go:embed ui
var uiFiles embed.FS

// uiPolicy lets the pages load only what this server serves, run no inline script and be framed by nobody.
const uiPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var uiTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// uiPage serves one page. Pages and assets hold no secret, but like all routes they want the key: a browser asks for it
// (Basic), and scripts of the page then send it along.
func (s *Server) uiPage(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { s.serveUI(w, r, name) }
}

// uiAsset serves what the pages load; pages have routes of their own.
func (s *Server) uiAsset(w http.ResponseWriter, r *http.Request) {
	name := chi.URLParam(r, "file")
	if path.Ext(name) == ".html" {
		name = ""
	}
	s.serveUI(w, r, name)
}

func (s *Server) serveUI(w http.ResponseWriter, r *http.Request, name string) {
	contentType := uiTypes[path.Ext(name)]
	body, err := fs.ReadFile(uiFiles, "ui/"+name) // embed refuses names that are not plain files below ui
	if err != nil || contentType == "" {
		s.writeError(w, r, engine.Errorf(engine.NotFound, "no such page"))
		return
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Security-Policy", uiPolicy)
	h.Set("Cache-Control", "no-cache")
	_, _ = w.Write(body) // an error means that the client is gone
}

// openAPI serves the contract.
func (s *Server) openAPI(w http.ResponseWriter, r *http.Request) {
	doc, err := openapi.JSON()
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if s.cfg.RootPath != "" {
		root, err := json.Marshal(s.cfg.RootPath + "/")
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		doc = bytes.Replace(doc, []byte(`"servers":[{"url":"/"}]`), []byte(`"servers":[{"url":`+string(root)+`}]`), 1)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(doc)
}

// version says what was built.
func (s *Server) version(w http.ResponseWriter, r *http.Request) {
	body, err := json.Marshal(map[string]string{
		"version": s.cfg.Version, "commit": s.cfg.Commit, "go": runtime.Version()})
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	writeStatus(w, http.StatusOK, string(body))
}
