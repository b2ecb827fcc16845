package server

// Temporary: one line each until the dialects are here. Delete a line as its real definition lands.

import (
	"net/http"

	"pagoda/engine"
)

func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	requestInfo(r).fail(engine.AsError(err)) // the real one keeps this line
	http.Error(w, engine.AsError(err).Message, 500)
}
func (s *Server) chatCompletions(w http.ResponseWriter, r *http.Request) {}
func (s *Server) completions(w http.ResponseWriter, r *http.Request)     {}
func (s *Server) listModels(w http.ResponseWriter, r *http.Request)      {}
func (s *Server) getModel(w http.ResponseWriter, r *http.Request)        {}
func (s *Server) tokenize(w http.ResponseWriter, r *http.Request)        {}
func (s *Server) detokenize(w http.ResponseWriter, r *http.Request)      {}
