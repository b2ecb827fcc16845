package server

import (
	"net/http"

	"pagoda/engine"
	"pagoda/openapi"
)

// tokenizer returns the engine's ability to turn text into tokens and back.
func (s *Server) tokenizer() (engine.Tokenizer, error) {
	t, ok := s.eng.(engine.Tokenizer)
	if !ok {
		return nil, engine.Errorf(engine.NotFound, "the engine behind this server does not offer its tokenizer")
	}
	return t, nil
}

// tokenModel returns the model that a token route's request names, or the only base model if it names none.
func (s *Server) tokenModel(id *string) (engine.Model, error) {
	if id != nil {
		return s.model(*id)
	}
	models, err := s.models()
	if err != nil {
		return engine.Model{}, err
	}
	var only []engine.Model
	for _, m := range models {
		if m.Parent == "" {
			only = append(only, m)
		}
	}
	if len(only) != 1 {
		return engine.Model{}, badField("model", "is required, because not exactly one base model is served")
	}
	return only[0], nil
}

// tokenize serves POST /tokenize.
func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) {
	var body openapi.TokenizeRequest
	if err := decode(r, &body); err != nil {
		s.writeError(w, r, err)
		return
	}
	answer, err := s.tokens(w, r, &body)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

func (s *Server) tokens(w http.ResponseWriter, r *http.Request, b *openapi.TokenizeRequest) (*openapi.TokenizeResponse, error) {
	req, model, err := s.tokenizeRequest(w, b)
	if err != nil {
		return nil, err
	}
	req.ID, req.Tenant = requestInfo(r).ID, requestInfo(r).Tenant
	t, err := s.tokenizer()
	if err != nil {
		return nil, err
	}
	ids, err := t.Tokenize(r.Context(), req)
	if err != nil {
		return nil, err
	}
	out := &openapi.TokenizeResponse{Count: len(ids), MaxModelLen: model.MaxLen, Tokens: ids}
	if isTrue(b.ReturnTokenStrs) {
		if out.TokenStrs, err = t.TokenText(r.Context(), req.Model, ids); err != nil {
			return nil, err
		}
		if out.TokenStrs == nil {
			out.TokenStrs = []string{}
		}
	}
	return out, nil
}

func (s *Server) tokenizeRequest(w http.ResponseWriter, b *openapi.TokenizeRequest) (*engine.Request, engine.Model, error) {
	model, err := s.tokenModel(b.Model)
	if err != nil {
		return nil, model, err
	}
	c := &checker{model: model}
	req := &engine.Request{Model: model.ID, AddSpecialTokens: b.AddSpecialTokens}
	switch {
	case (b.Prompt == nil) == (b.Messages == nil):
		c.bad("prompt", "or messages is required, and not both")
	case b.Prompt != nil:
		req.Text = b.Prompt
		c.promptOnly(b)
	default:
		req.Chat = c.chat(b.Messages, &b.Template)
	}
	return req, model, s.finish(w, c, b.Unknown, req)
}

// promptOnly refuses what would have no effect without messages.
func (c *checker) promptOnly(b *openapi.TokenizeRequest) {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"tools", len(b.Tools) > 0}, {"chat_template_kwargs", len(b.ChatTemplateKwargs) > 0},
		{"add_generation_prompt", b.AddGenerationPrompt != nil},
		{"continue_final_message", b.ContinueFinalMessage != nil},
	} {
		if f.set {
			c.bad(f.name, "is only allowed with messages")
		}
	}
}

// detokenize serves POST /detokenize.
func (s *Server) detokenize(w http.ResponseWriter, r *http.Request) {
	var body openapi.DetokenizeRequest
	if err := decode(r, &body); err != nil {
		s.writeError(w, r, err)
		return
	}
	text, err := s.text(w, r, &body)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, openapi.DetokenizeResponse{Prompt: text})
}

func (s *Server) text(w http.ResponseWriter, r *http.Request, b *openapi.DetokenizeRequest) (string, error) {
	model, err := s.tokenModel(b.Model)
	if err != nil {
		return "", err
	}
	c := &checker{model: model}
	if b.Tokens == nil {
		c.bad("tokens", "is required")
	}
	c.tokens("tokens", b.Tokens)
	if err := s.finish(w, c, b.Unknown, &engine.Request{}); err != nil {
		return "", err
	}
	t, err := s.tokenizer()
	if err != nil {
		return "", err
	}
	return t.Detokenize(r.Context(), model.ID, b.Tokens)
}
