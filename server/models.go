package server

import (
	"net/http"
	"strings"

	"pagoda/engine"
	"pagoda/openapi"
)

// listModels serves GET /v1/models.
func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) {
	models := s.eng.Models()
	list := openapi.ModelList{Object: "list", Data: make([]openapi.Model, len(models))}
	for i, m := range models {
		list.Data[i] = modelOf(m)
	}
	writeJSON(w, http.StatusOK, list)
}

// getModel serves GET /v1/models/{model}, whose id may contain slashes.
func (s *Server) getModel(w http.ResponseWriter, r *http.Request) {
	m, err := s.model(strings.TrimPrefix(r.URL.Path, "/v1/models/"))
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, modelOf(m))
}

func modelOf(m engine.Model) openapi.Model {
	out := openapi.Model{ID: m.ID, Object: "model", Created: m.Created.Unix(), OwnedBy: "pagoda", Root: m.Root,
		MaxModelLen: m.MaxLen}
	if m.Parent != "" {
		out.Parent = &m.Parent
	}
	return out
}
