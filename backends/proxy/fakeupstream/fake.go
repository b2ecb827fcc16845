// Package fakeupstream is a server that answers in the exact words of vLLM, SGLang or KTransformers (which is SGLang),
// without a model, and fails in the ways in which they fail. Tests run it in their process and as a process of its own.
//
// What it says is scripted by the last message of a request: "say one two" streams these words; other commands are the
// faults listed in script.go. Each behaviour that is particular to a server names its source: vLLM and SGLang as of August
// 2026 (read in the source), their issue trackers where noted; the answers of vLLM 0.29 were recorded from a real server.
package fakeupstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Server is one fake. Set the fields before the first request.
type Server struct {
	Dialect     string // "vllm", "sglang", "ktransformers"
	Model       string
	MaxLen      int
	Key         string        // asked for as the real ones do; "" is none
	AdminKey    string        // SGLang's key for administrative routes
	HealthDelay time.Duration // SGLang's /health generates a token, which takes a second at least and 20 s under load
	ChunkDelay  time.Duration
	Exit        func(code int) // for faults that end the process
	OnIDs       string         // the command for prompts of token ids; "" is "say ids"
	Tokens      []int          // the ids of an answer's words; where it ends they are 1000 and so on

	Unhealthy atomic.Bool // /health answers 503

	mu       sync.Mutex // guards all below
	adapters []string
	requests []json.RawMessage
	aborted  []string
	running  int
	ended    int // requests whose client closed the connection before the end
	served   int
}

// New makes a fake.
func New(dialect, model string, adapters ...string) *Server {
	return &Server{Dialect: dialect, Model: model, MaxLen: 4096, adapters: adapters, Exit: func(int) {}}
}

func (s *Server) isVLLM() bool { return s.Dialect == "vllm" }

// Requests are the bodies of the generations so far.
func (s *Server) Requests() []json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Last is the body of the last request; nil if there was none, or it is no object.
func (s *Server) Last() (body map[string]any) {
	all := s.Requests()
	if len(all) == 0 || json.Unmarshal(all[len(all)-1], &body) != nil {
		return nil
	}
	return body
}

// Aborted are the ids that were aborted by SGLang's route.
func (s *Server) Aborted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.aborted)
}

// Adapters are those that are loaded.
func (s *Server) Adapters() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.adapters)
}

// Left counts the requests whose client closed the connection before their end; Running those that have not ended.
func (s *Server) Left() (left, running int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended, s.running
}

// ServeHTTP answers.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.authorized(r) {
		writeJSON(w, http.StatusUnauthorized, map[string]any{"error": "Unauthorized"}) // a string, in both servers
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /health":
		s.health(w)
	case "GET /v1/models":
		s.models(w)
	case "GET /version":
		writeJSON(w, http.StatusOK, map[string]any{"version": "0.29.0"})
	case "GET /metrics":
		s.metrics(w)
	case "POST /v1/chat/completions", "POST /v1/completions":
		s.generate(w, r)
	case "POST /tokenize":
		s.tokenize(w, r)
	case "POST /detokenize":
		s.detokenize(w, r)
	case "POST /v1/load_lora_adapter", "POST /load_lora_adapter":
		s.load(w, r)
	case "POST /v1/unload_lora_adapter", "POST /unload_lora_adapter":
		s.unload(w, r)
	case "POST /abort_request":
		s.abort(w, r)
	case "POST /v1/embeddings":
		s.embeddings(w, r)
	case "POST /score":
		s.scores(w, r)
	case "POST /pooling", "POST /generate":
		var body map[string]any
		readJSON(r, &body)
		writeJSON(w, http.StatusOK, map[string]any{"route": r.URL.Path, "model": body["model"]})
	default:
		writeJSON(w, http.StatusNotFound, map[string]any{"detail": "Not Found"}) // FastAPI's own
	}
}

// authorized: vLLM's key guards /v1 only; SGLang's all but /health and /metrics, and the administrative routes have their own.
func (s *Server) authorized(r *http.Request) bool {
	path := r.URL.Path
	key := s.Key
	switch {
	case path == "/health" || path == "/metrics":
		return true
	case s.isVLLM() && !strings.HasPrefix(path, "/v1"):
		return true
	case !s.isVLLM() && (path == "/abort_request" || strings.HasSuffix(path, "_lora_adapter")) && s.AdminKey != "":
		key = s.AdminKey
	}
	return key == "" || r.Header.Get("Authorization") == "Bearer "+key
}

// health: vLLM only reads a flag, SGLang generates a token.
func (s *Server) health(w http.ResponseWriter) {
	time.Sleep(s.HealthDelay)
	if s.Unhealthy.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (s *Server) models(w http.ResponseWriter) {
	owner := "sglang"
	if s.isVLLM() {
		owner = "vllm"
	}
	list := []map[string]any{{"id": s.Model, "object": "model", "created": 1700000000, "owned_by": owner, "root": "/models/" + s.Model,
		"parent": nil, "max_model_len": s.MaxLen}}
	for _, a := range s.Adapters() { // SGLang lists the bare name too, which then runs the base model
		list = append(list, map[string]any{"id": a, "object": "model", "created": 1700000000, "owned_by": owner,
			"root": "/adapters/" + a, "parent": s.Model, "max_model_len": nil})
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

func (s *Server) metrics(w http.ResponseWriter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	running, tokens := "sglang:num_running_reqs", "sglang:generation_tokens_total"
	if s.isVLLM() {
		running, tokens = "vllm:num_requests_running", "vllm:generation_tokens_total"
	}
	fmt.Fprintf(w, "# HELP %s Running.\n# TYPE %s gauge\n%s{model_name=%q} %d\n", running, running, running, s.Model, s.running)
	fmt.Fprintf(w, "# HELP %s Tokens.\n# TYPE %s counter\n%s{model_name=%q} %d\n", tokens, tokens, tokens, s.Model, s.served)
}

func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Prompt   string
		Messages []message
	}
	readJSON(r, &body)
	text := body.Prompt
	for _, m := range body.Messages {
		text += " " + m.text()
	}
	ids := promptIDs(text)
	writeJSON(w, http.StatusOK, map[string]any{"count": len(ids), "max_model_len": s.MaxLen, "tokens": ids, "token_strs": nil})
}

func (s *Server) detokenize(w http.ResponseWriter, r *http.Request) {
	var body struct{ Tokens []int }
	readJSON(r, &body)
	words := make([]string, len(body.Tokens))
	for i, id := range body.Tokens {
		words[i] = fmt.Sprintf("t%d", id)
	}
	name := "text" // SGLang
	if s.isVLLM() {
		name = "prompt"
	}
	writeJSON(w, http.StatusOK, map[string]any{name: strings.Join(words, " ")})
}

// embeddings: the vector of the n-th input is [n, 1], and the results come last first.
func (s *Server) embeddings(w http.ResponseWriter, r *http.Request) {
	var body struct{ Input []any }
	readJSON(r, &body)
	data := []map[string]any{}
	for i := len(body.Input) - 1; i >= 0; i-- {
		data = append(data, map[string]any{"index": i, "object": "embedding", "embedding": []float64{float64(i), 1}})
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": data, "model": s.Model,
		"usage": map[string]any{"prompt_tokens": 3 * len(data), "total_tokens": 3 * len(data)}})
}

// scores: the longer the second text, the better. vLLM only.
func (s *Server) scores(w http.ResponseWriter, r *http.Request) {
	var body struct {
		First  []string `json:"text_1"`
		Second []string `json:"text_2"`
	}
	readJSON(r, &body)
	data := []map[string]any{}
	for i, text := range body.Second {
		data = append(data, map[string]any{"index": i, "object": "score", "score": float64(len(text))})
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": data, "usage": map[string]any{"prompt_tokens": 4 * len(data)}})
}

func (s *Server) load(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Name string `json:"lora_name"`
		Path string `json:"lora_path"`
	}
	readJSON(r, &body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.Contains(body.Path, "missing") || slices.Contains(s.adapters, body.Name) {
		s.fail(w, http.StatusBadRequest, "No adapter found for "+body.Path, "BadRequestError")
		return
	}
	s.adapters = append(s.adapters, body.Name)
	s.done(w, "LoRA adapter '"+body.Name+"' added successfully.")
}

func (s *Server) unload(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Name string `json:"lora_name"`
	}
	readJSON(r, &body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adapters = slices.DeleteFunc(s.adapters, func(a string) bool { return a == body.Name })
	s.done(w, "LoRA adapter '"+body.Name+"' removed successfully.")
}

// done: vLLM answers in plain text.
func (s *Server) done(w http.ResponseWriter, what string) {
	if s.isVLLM() {
		fmt.Fprint(w, "Success: "+what)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"success": true, "error_message": "", "loaded_adapters": s.adapters})
}

func (s *Server) abort(w http.ResponseWriter, r *http.Request) {
	var body struct{ RID string }
	readJSON(r, &body)
	s.mu.Lock()
	s.aborted = append(s.aborted, body.RID)
	s.mu.Unlock()
	w.WriteHeader(http.StatusOK)
}

// fail writes an error: vLLM's nested with the status as a number, SGLang's flat.
func (s *Server) fail(w http.ResponseWriter, status int, text, kind string) {
	writeJSON(w, status, s.errorBody(status, text, kind))
}

func (s *Server) errorBody(status int, text, kind string) map[string]any {
	inner := map[string]any{"message": text, "type": kind, "param": nil, "code": status}
	if s.isVLLM() {
		return map[string]any{"error": inner}
	}
	inner["object"] = "error"
	return inner
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
}

func readJSON(r *http.Request, v any) {
	_ = json.NewDecoder(r.Body).Decode(v) // what is missing stays empty
}
