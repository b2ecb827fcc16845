package server

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"path"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/go-chi/chi/v5"
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/openai/openai-go/v3"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"pagoda/engine/fake"
	"pagoda/openapi"
)

// spec is the parsed contract.
var spec = sync.OnceValue(func() *openapi3.T {
	doc, err := openapi3.NewLoader().LoadFromData(openapi.YAML())
	if err != nil {
		panic(err)
	}
	return doc
})

// chunkTypes are the events of the two streaming routes.
var chunkTypes = map[string]struct {
	schema string
	value  any
}{
	"/v1/chat/completions": {"ChatCompletionChunk", openapi.ChatCompletionChunk{}},
	"/v1/completions":      {"Completion", openapi.Completion{}},
}

// answerTypes are the bodies of the JSON routes.
var answerTypes = map[string]any{
	"/v1/chat/completions": openapi.ChatCompletion{},
	"/v1/completions":      openapi.Completion{},
	"/v1/models":           openapi.ModelList{},
	"/v1/models/{model}":   openapi.Model{},
	"/tokenize":            openapi.TokenizeResponse{},
	"/detokenize":          openapi.DetokenizeResponse{},
	"/v1/embeddings":       openapi.EmbeddingList{},
	"/v1/rerank":           openapi.Ranking{},
	"/v2/rerank":           openapi.Ranking{},
	"/rerank":              openapi.Ranking{},
	"/v1/score":            openapi.ScoreList{},
	"/score":               openapi.ScoreList{},
}

// call sends a request through the whole server and holds the exchange to the contract: a request that is served must
// be one the contract allows, and the answer, with each event of a stream, must be one it describes.
func call(t testing.TB, s *Server, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	w := do(s.Handler(), method, target, body, headers...)
	err := requestVerdict(t, method, target, body)
	if w.Code < 300 && err != nil && w.Header().Get("X-Pagoda-Ignored-Fields") == "" {
		t.Errorf("%s %s was served, but the contract refuses it: %v\n%s", method, target, err, body)
	}
	checkResponse(t, method, target, w)
	return w
}

// route finds a target in the contract.
func route(t testing.TB, method, target string) (*routers.Route, map[string]string) {
	t.Helper()
	at, params := target, map[string]string{}
	if id, ok := strings.CutPrefix(target, "/v1/models/"); ok {
		at, params = "/v1/models/{model}", map[string]string{"model": id}
	}
	item := spec().Paths.Value(at)
	if item == nil || item.GetOperation(method) == nil {
		t.Fatalf("the contract has no %s %s", method, target)
	}
	return &routers.Route{Spec: spec(), Path: at, PathItem: item, Method: method,
		Operation: item.GetOperation(method)}, params
}

func requestInput(t testing.TB, method, target, body string) *openapi3filter.RequestValidationInput {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	to, params := route(t, method, target)
	return &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: to,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc,
			IncludeResponseStatus: true}}
}

// requestVerdict is what the contract says of a request: nil if it allows it.
func requestVerdict(t testing.TB, method, target, body string) error {
	to, _ := route(t, method, target)
	if to.Operation.RequestBody == nil {
		return openapi3filter.ValidateRequest(t.Context(), requestInput(t, method, target, body))
	}
	ref := to.Operation.RequestBody.Value.Content["application/json"].Schema.Ref
	return verdict(path.Base(ref), body)
}

// compiled keeps schemas compiled, which kin-openapi does anew for each validation.
var compiled = struct {
	sync.Mutex
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema
}{schemas: map[string]*jsonschema.Schema{}}

// verdict is what the contract's schema of that name says of a JSON text.
func verdict(name, data string) error {
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(data))
	if err != nil {
		return err
	}
	compiled.Lock()
	defer compiled.Unlock()
	schema := compiled.schemas[name]
	if schema == nil {
		if schema, err = compile(name); err != nil {
			return err
		}
		compiled.schemas[name] = schema
	}
	return schema.Validate(v)
}

func compile(name string) (*jsonschema.Schema, error) {
	if compiled.compiler == nil {
		text, err := openapi.JSON()
		if err != nil {
			return nil, err
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		compiled.compiler = jsonschema.NewCompiler()
		compiled.compiler.DefaultDraft(jsonschema.Draft2020)
		if err := compiled.compiler.AddResource("openapi.json", doc); err != nil {
			return nil, err
		}
	}
	return compiled.compiler.Compile("openapi.json#/components/schemas/" + name)
}

func checkResponse(t testing.TB, method, target string, w *httptest.ResponseRecorder) {
	t.Helper()
	in := requestInput(t, method, target, "")
	media, _, _ := mime.ParseMediaType(w.Header().Get("Content-Type"))
	if media == "text/event-stream" {
		checkStream(t, in.Route.Path, w.Body.Bytes())
		return
	}
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: w.Code, Header: w.Header(),
		Options: in.Options, Body: io.NopCloser(bytes.NewReader(w.Body.Bytes()))}
	if err := openapi3filter.ValidateResponse(t.Context(), out); err != nil {
		t.Errorf("%s %s: the answer breaks the contract: %v\n%s", method, target, err, w.Body)
	}
	value := answerTypes[in.Route.Path]
	if w.Code >= 400 {
		value = openapi.ErrorResponse{}
	}
	if value != nil {
		decodeAll(t, w.Body.Bytes(), value)
	}
}

// checkStream holds each event to the contract.
func checkStream(t testing.TB, path string, body []byte) {
	t.Helper()
	for _, data := range events(t, body) {
		if data == "[DONE]" {
			continue
		}
		schema, value := chunkTypes[path].schema, chunkTypes[path].value
		if strings.HasPrefix(data, `{"error"`) {
			schema, value = "ErrorResponse", openapi.ErrorResponse{}
		}
		checkSchema(t, schema, data)
		decodeAll(t, []byte(data), value)
	}
}

// events splits a stream into the data of its events.
func events(t testing.TB, body []byte) []string {
	t.Helper()
	var out []string
	for block := range strings.SplitSeq(string(body), "\n\n") {
		data, ok := strings.CutPrefix(block, "data: ")
		switch {
		case ok && !strings.Contains(data, "\n"):
			out = append(out, data)
		case block != "" && !strings.HasPrefix(block, ":"):
			t.Errorf("not an event: %q", block)
		}
	}
	return out
}

func checkSchema(t testing.TB, name, data string) {
	t.Helper()
	if err := verdict(name, data); err != nil {
		t.Errorf("not a %s: %v\n%s", name, err, data)
	}
}

// decodeAll decodes data into a new value of like's type, which must know every member.
func decodeAll(t testing.TB, data []byte, like any) {
	t.Helper()
	v := reflect.New(reflect.TypeOf(like)).Interface()
	if err := jsonv2.Unmarshal(data, v, jsonv2.RejectUnknownMembers(true)); err != nil {
		t.Errorf("%T does not fit: %v\n%s", like, err, data)
	}
}

func TestRoutesAreThoseOfTheContract(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	var served, described []string
	err := chi.Walk(s.router, func(method, path string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		path = strings.Replace(path, "/v1/models/*", "/v1/models/{model}", 1)
		path = strings.Replace(path, "/metrics/upstream/*", "/metrics/upstream/{model}", 1)
		served = append(served, method+" "+path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range spec().Paths.Map() {
		for method := range item.Operations() {
			described = append(described, method+" "+path)
		}
	}
	slices.Sort(served)
	slices.Sort(described)
	if !slices.Equal(served, described) {
		t.Errorf("served:    %q\ndescribed: %q", served, described)
	}
}

// schemaTypes names the Go type of each object schema. A schema that is one form of a union has its union's type.
var schemaTypes = map[string]any{
	"ChatCompletionRequest": openapi.ChatCompletionRequest{}, "CompletionRequest": openapi.CompletionRequest{},
	"TokenizeRequest": openapi.TokenizeRequest{}, "DetokenizeRequest": openapi.DetokenizeRequest{},
	"LoadAdapterRequest": openapi.LoadAdapterRequest{}, "UnloadAdapterRequest": openapi.UnloadAdapterRequest{},
	"StreamOptions": openapi.StreamOptions{}, "ResponseFormat": openapi.ResponseFormat{}, "Tool": openapi.Tool{},
	"ToolFunction": openapi.ToolFunction{}, "InstructionMessage": openapi.ChatMessage{},
	"AssistantTurn": openapi.ChatMessage{}, "ToolMessage": openapi.ChatMessage{},
	"FunctionMessage": openapi.ChatMessage{}, "TextPart": openapi.ContentPart{}, "RefusalPart": openapi.ContentPart{},
	"MessageCall": openapi.MessageCall{}, "MessageCallFunction": openapi.MessageCallFunction{},
	"ChatCompletion": openapi.ChatCompletion{}, "ChatChoice": openapi.ChatChoice{},
	"AssistantMessage": openapi.AssistantMessage{}, "ToolCall": openapi.ToolCall{},
	"ToolCallFunction": openapi.ToolCallFunction{}, "ChatCompletionChunk": openapi.ChatCompletionChunk{},
	"ChatChunkChoice": openapi.ChatChunkChoice{}, "ChatDelta": openapi.ChatDelta{},
	"ToolCallDelta": openapi.ToolCallDelta{}, "ToolCallDeltaFunction": openapi.ToolCallDeltaFunction{},
	"ChatLogprobs": openapi.ChatLogprobs{}, "TokenLogprobs": openapi.TokenLogprobs{},
	"TokenLogprob": openapi.TokenLogprob{}, "Completion": openapi.Completion{},
	"CompletionChoice": openapi.CompletionChoice{}, "CompletionLogprobs": openapi.CompletionLogprobs{},
	"Usage": openapi.Usage{}, "PromptTokensDetails": openapi.PromptTokensDetails{},
	"CompletionTokensDetails": openapi.CompletionTokensDetails{}, "ModelList": openapi.ModelList{},
	"Model": openapi.Model{}, "TokenizeResponse": openapi.TokenizeResponse{},
	"DetokenizeResponse": openapi.DetokenizeResponse{}, "ErrorResponse": openapi.ErrorResponse{}, "Error": openapi.Error{},
	"EmbeddingRequest": openapi.EmbeddingRequest{}, "RerankRequest": openapi.RerankRequest{},
	"ScoreRequest": openapi.ScoreRequest{}, "Document": openapi.Document{}, "EmbeddingList": openapi.EmbeddingList{},
	"Embedding": openapi.Embedding{}, "PoolingUsage": openapi.PoolingUsage{}, "Ranking": openapi.Ranking{},
	"Ranked": openapi.Ranked{}, "ScoreList": openapi.ScoreList{}, "Score": openapi.Score{},
}

// refusedFields are the properties of a schema that allow null alone and that no Go field holds.
var refusedFields = map[string][]string{
	"ChatCompletionRequest": refusedInChat, "CompletionRequest": refusedInCompletions, "AssistantTurn": refusedInAssistant,
}

// The Status and Version schemas are of the routes without a dialect; events are text.
var schemasWithoutType = []string{"Status", "Version", "LogitBias", "ChatTemplateKwargs", "ChatCompletionEvent",
	"CompletionEvent"}

func TestTypesAreThoseOfTheContract(t *testing.T) {
	described := map[reflect.Type]map[string]bool{}
	for name, ref := range spec().Components.Schemas {
		schema := ref.Value
		if !schema.Type.Includes("object") || slices.Contains(schemasWithoutType, name) {
			continue
		}
		value, ok := schemaTypes[name]
		if !ok {
			t.Errorf("schema %s has no Go type", name)
			continue
		}
		typ := reflect.TypeOf(value)
		fields := jsonFields(typ)
		if described[typ] == nil {
			described[typ] = map[string]bool{}
		}
		for property := range schema.Properties {
			described[typ][property] = true
			if refused := slices.Contains(refusedFields[name], property); refused == slices.Contains(fields, property) {
				t.Errorf("%s.%s: refused is %t, and so is being a field of %v", name, property, refused, typ)
			}
		}
		for _, property := range refusedFields[name] {
			if p := schema.Properties[property]; p == nil || !p.Value.Type.Is("null") {
				t.Errorf("%s.%s is refused by the server and not by the contract", name, property)
			}
		}
	}
	for typ, properties := range described {
		for _, field := range jsonFields(typ) {
			if !properties[field] {
				t.Errorf("%v has a field %s that the contract does not know", typ, field)
			}
		}
	}
}

// Each parameter that OpenAI's own package can send is in the contract, be it as refused.
func TestOpenAIParametersAreDescribed(t *testing.T) {
	for name, params := range map[string]any{
		"ChatCompletionRequest": openai.ChatCompletionNewParams{}, "CompletionRequest": openai.CompletionNewParams{},
		"EmbeddingRequest": openai.EmbeddingNewParams{},
	} {
		known := spec().Components.Schemas[name].Value.Properties
		for f := range reflect.TypeOf(params).Fields() {
			if field, _, _ := strings.Cut(f.Tag.Get("json"), ","); !f.Anonymous && known[field] == nil {
				t.Errorf("%s has no %s", name, field)
			}
		}
	}
}

func TestAssetsAreThoseOfTheContract(t *testing.T) {
	var served []any
	files, err := uiFiles.ReadDir("ui")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if path.Ext(f.Name()) != ".html" {
			served = append(served, f.Name())
		}
	}
	described := spec().Paths.Value("/ui/{file}").Get.Parameters[0].Value.Schema.Value.Enum
	if !slices.Equal(served, described) {
		t.Errorf("served:    %q\ndescribed: %q", served, described)
	}
}

// jsonFields lists the JSON names of a struct's fields, those of embedded structs included.
func jsonFields(typ reflect.Type) []string {
	var names []string
	for f := range typ.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous:
			names = append(names, jsonFields(f.Type)...)
		case options != "unknown":
			names = append(names, name)
		}
	}
	return names
}
