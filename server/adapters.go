package server

import (
	"net/http"

	"pagoda/engine"
	"pagoda/openapi"
)

const (
	maxAdapterName = 256
	maxAdapterPath = 4096
)

// adapterManager returns the engine's ability to load adapters, if this server lets clients use it.
func (s *Server) adapterManager() (engine.AdapterManager, error) {
	if !s.cfg.AdapterUpdates {
		return nil, engine.Errorf(engine.Forbidden, "adapters are given when this server starts; allow_runtime_lora_updating lets clients change them")
	}
	m, ok := s.eng.(engine.AdapterManager)
	if !ok {
		return nil, engine.Errorf(engine.NotFound, "the engine behind this server loads adapters at start only")
	}
	return m, nil
}

// loadAdapter serves POST /v1/load_lora_adapter.
func (s *Server) loadAdapter(w http.ResponseWriter, r *http.Request) {
	var body openapi.LoadAdapterRequest
	err := decode(r, &body)
	if err == nil {
		err = s.checkAdapter(w, &body)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	m, err := s.adapterManager()
	if err == nil {
		base, baseErr := s.tokenModel(body.Base)
		if err = baseErr; err == nil {
			err = m.LoadAdapter(r.Context(), base.ID, body.Name, body.Path)
		}
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	loaded, err := s.model(body.Name)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, modelOf(loaded))
}

func (s *Server) checkAdapter(w http.ResponseWriter, b *openapi.LoadAdapterRequest) error {
	c := &checker{}
	c.text("lora_name", b.Name, maxAdapterName)
	c.text("lora_path", b.Path, maxAdapterPath)
	return s.finish(w, c, b.Unknown, &engine.Request{})
}

func (c *checker) text(param, value string, most int) {
	if value == "" || len([]rune(value)) > most {
		c.bad(param, "must have 1 to %d characters", most)
	}
}

// unloadAdapter serves POST /v1/unload_lora_adapter.
func (s *Server) unloadAdapter(w http.ResponseWriter, r *http.Request) {
	var body openapi.UnloadAdapterRequest
	err := decode(r, &body)
	if err == nil {
		c := &checker{}
		c.text("lora_name", body.Name, maxAdapterName)
		err = s.finish(w, c, body.Unknown, &engine.Request{})
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	m, err := s.adapterManager()
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	gone, err := s.model(body.Name)
	if err == nil && gone.Parent == "" {
		err = badField("lora_name", "is a base model and no adapter")
	}
	if err == nil {
		err = m.UnloadAdapter(r.Context(), body.Name)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, modelOf(gone))
}
