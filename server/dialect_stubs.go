package server

// Temporary: one line each until the dialects are here. Delete a line as its real definition lands.

import "net/http"

func (s *Server) completions(w http.ResponseWriter, r *http.Request)     {}
func (s *Server) listModels(w http.ResponseWriter, r *http.Request)      {}
func (s *Server) getModel(w http.ResponseWriter, r *http.Request)        {}
func (s *Server) tokenize(w http.ResponseWriter, r *http.Request)        {}
func (s *Server) detokenize(w http.ResponseWriter, r *http.Request)      {}
