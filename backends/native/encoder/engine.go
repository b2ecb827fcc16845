package encoder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/rs/zerolog"

	"pagoda/backends/native/chat"
	"pagoda/backends/native/model"
	"pagoda/backends/native/token"
	"pagoda/checkpoint"
	"pagoda/engine"
	"pagoda/kernels"
)

// Options say what to serve and how. Zero values take the default named beside them.
type Options struct {
	Dir  string // the checkpoint
	Name string // the id that clients use
	Root string // where it came from, as shown to clients; "" is Name

	// Overrides are keys of config.json with other values than it has; null takes a key away.
	Overrides map[string]jsontext.Value

	PoolingType string // "auto" is what the checkpoint's files say; else one of PoolingTypes; "" is auto
	DType       string // of the weights: "auto", "float32", "bfloat16", "float16"; "" is auto: the checkpoint's
	Threads     int    // 0: as many as the process may use
	Kernels     string // CPU variant; "": the best this machine runs

	// For decoders only.
	Bits         int    // 8 or 4: round the weights when they are loaded; 0: keep them as they are
	KVDType      string // as native.Options has it; "" is auto: float32
	KVCacheBytes int64  // 0: enough for two texts of full length, at most half of what the weights leave
	RopeScaling  string // see model.Spec.ScaleRope; "" and "none" are the checkpoint's own
	ChatTemplate string // Jinja source that makes a prompt of a pair; "": the checkpoint's

	MemoryBytes      int64 // memory that weights and keys and values may take; 0: no bound
	MaxModelLen      int   // 0: the checkpoint's own limit
	MaxNumSeqs       int   // texts per step; 0 is 64
	MaxBatchedTokens int   // tokens per step, of an encoder at least MaxModelLen; 0 is 512
	MaxQueue         int   // texts that wait before requests are refused; 0 is 512

	Log zerolog.Logger
}

// Engine serves one model. It implements engine.Engine, Embedder, Scorer, Tokenizer and Statser.
type Engine struct {
	opts     Options
	spec     *spec
	sentence *sentence
	tok      *token.Tokenizer
	dev      *kernels.Device
	weights  *weights // of an encoder, and of what follows the pooling
	decoder  *model.Model
	work     *workspace
	runner   *runner
	model    engine.Model
	maxLen   int

	prefix, suffix []int32        // around a text
	cls, sep       int32          // around an encoder's pairs
	pairs          *chat.Prompter // makes a decoder's prompt of a pair

	closing sync.Once
	active  sync.WaitGroup
	mu      sync.Mutex // guards closed
	closed  bool
}

var (
	_ engine.Engine    = (*Engine)(nil)
	_ engine.Embedder  = (*Engine)(nil)
	_ engine.Scorer    = (*Engine)(nil)
	_ engine.Tokenizer = (*Engine)(nil)
	_ engine.Statser   = (*Engine)(nil)
)

// New loads what o names and starts to serve it.
func New(o Options) (*Engine, error) {
	o.Root, o.PoolingType, o.DType = cmp.Or(o.Root, o.Name), cmp.Or(o.PoolingType, "auto"), cmp.Or(o.DType, "auto")
	o.KVDType, o.RopeScaling = cmp.Or(o.KVDType, "auto"), cmp.Or(o.RopeScaling, "none")
	o.MaxNumSeqs, o.MaxBatchedTokens, o.MaxQueue = cmp.Or(o.MaxNumSeqs, 64), cmp.Or(o.MaxBatchedTokens, 512), cmp.Or(o.MaxQueue, 512)
	e := &Engine{opts: o}
	if err := e.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("load %s: %w", o.Name, err), e.free())
	}
	go e.runner.loop()
	return e, nil
}

func (e *Engine) load() error {
	ck, err := checkpoint.Open(e.opts.Dir)
	if err != nil {
		return err
	}
	defer ck.Close()
	ck.Override(e.opts.Overrides)
	if e.spec, err = readSpec(ck); err != nil {
		return err
	}
	idle, err := ck.IdleOverrides(func() any {
		s, err := readSpec(ck)
		if err != nil {
			return err.Error()
		}
		return *s
	}, spec{}, struct {
		Original bool `json:"is_original_qwen3_reranker"` // which vLLM's users have in their line; the two tokens say it
	}{})
	if err != nil {
		return fmt.Errorf("hf_overrides: %w", err)
	}
	if len(idle) > 0 {
		e.opts.Log.Warn().Strs("keys", idle).Msg("hf_overrides that change nothing about this model")
	}
	if e.sentence, err = readSentence(ck); err != nil {
		return err
	}
	if err := e.chooseHead(); err != nil {
		return err
	}
	if err := e.checkOptions(); err != nil {
		return err
	}
	if err := e.chooseLength(); err != nil {
		return err
	}
	source, err := token.Read(ck)
	if err != nil {
		return fmt.Errorf("tokenizer: %w", err)
	}
	if e.tok, err = source.Load(token.Options{}); err != nil {
		return fmt.Errorf("tokenizer: %w", err)
	}
	if err := e.findSpecial(); err != nil {
		return err
	}
	if e.spec.labels {
		if err := e.findPairs(ck); err != nil {
			return err
		}
	}
	if e.dev, err = kernels.OpenCPU(kernels.CPUOptions{Threads: e.opts.Threads, Variant: e.opts.Kernels}); err != nil {
		return err
	}
	if err := e.loadTrunk(ck); err != nil {
		return err
	}
	e.model = engine.Model{ID: e.opts.Name, Root: e.opts.Root, Created: time.Now(), MaxLen: e.maxLen, Backend: "native"}
	e.runner = newRunner(e.work, e.dev.NewStream(), e.opts.MaxQueue, e.opts.Name, func(err error) {
		e.opts.Log.Error().Err(err).Msg("a step failed")
	})
	return nil
}

// chooseHead settles the pooling and what follows it: what the options say, else the files, else what is usual.
func (e *Engine) chooseHead() error {
	s, spec := e.sentence, e.spec
	scored := spec.HeadPooling // what a head scores
	if spec.decoder != nil {
		scored = poolLast
		if s.logits != nil {
			spec.labels = true
		}
	} else if s.logits != nil || len(spec.ScoreTokens) > 0 {
		return fmt.Errorf("modules.json or classifier_from_token: an encoder (%s) has no logits to score by", spec.arch)
	}
	if spec.labels {
		if len(s.dense) > 0 || s.normalize {
			return fmt.Errorf("modules.json: a model that scores (%s) has more behind it than is supported", spec.arch)
		}
		if err := spec.readScoreActivation(s.scoreAct); err != nil {
			return fmt.Errorf("config_sentence_transformers.json: %w", err)
		}
		s.pooling = scored
	}
	if p := e.opts.PoolingType; p != "auto" {
		if !isPooling(p) {
			return fmt.Errorf("pooling_type: %q is none of auto, %s", p, strings.Join(PoolingTypes(), ", "))
		}
		if spec.labels && p != scored {
			return fmt.Errorf("pooling_type: %s scores by %s, not %s", spec.arch, scored, p)
		}
		s.pooling = p
	}
	if s.pooling == "" { // what sentence-transformers makes of a plain checkpoint
		if s.pooling = poolMean; spec.decoder != nil && !spec.bothWays {
			s.pooling = poolLast
		}
	}
	return nil
}

// checkOptions refuses what has no effect.
func (e *Engine) checkOptions() error {
	o, encoder := &e.opts, e.spec.decoder == nil
	for name, idle := range map[string]bool{"quantization_bit": encoder && o.Bits != 0, "rope_scaling": encoder && o.RopeScaling != "none",
		"kv_cache_memory": encoder && o.KVCacheBytes != 0, "kv_cache_dtype": encoder && o.KVDType != "auto",
		"chat_template": o.ChatTemplate != "" && (encoder || !e.spec.labels)} {
		if idle {
			return fmt.Errorf("%s: has no effect on %s, which makes %s", name, e.spec.arch, e.makes())
		}
	}
	return nil
}

// makes says what texts become.
func (e *Engine) makes() string {
	if e.spec.labels {
		return "scores"
	}
	return "embeddings"
}

// chooseLength settles how long texts may be.
func (e *Engine) chooseLength() error {
	if kind := e.opts.RopeScaling; kind != "none" {
		if err := e.spec.decoder.ScaleRope(kind); err != nil {
			return fmt.Errorf("rope_scaling: %w", err)
		}
	}
	e.maxLen = e.spec.maxLen()
	if n := e.sentence.maxLen; n > 0 {
		e.maxLen = min(e.maxLen, n)
	}
	if n := e.opts.MaxModelLen; n > e.spec.longest() {
		return fmt.Errorf("max_model_len: %d tokens; the model has positions for %d", n, e.spec.longest())
	} else if n > 0 {
		e.maxLen = n
	}
	return nil
}

// findSpecial finds the tokens that stand around texts and pairs.
func (e *Engine) findSpecial() error {
	body, err := e.tok.Encode("a", false)
	if err != nil {
		return err
	}
	full, err := e.tok.Encode("a", true)
	if err != nil {
		return err
	}
	for at := 0; at+len(body) <= len(full); at++ {
		if slices.Equal(full[at:at+len(body)], body) {
			e.prefix, e.suffix = slices.Clone(full[:at]), slices.Clone(full[at+len(body):])
		}
	}
	return nil
}

func (e *Engine) free() error {
	var errs []error
	if e.work != nil {
		errs = append(errs, e.work.close())
	}
	if e.weights != nil {
		errs = append(errs, e.weights.close())
	}
	if e.decoder != nil {
		errs = append(errs, e.decoder.Close())
	}
	if e.dev != nil {
		errs = append(errs, e.dev.Close())
	}
	if e.tok != nil {
		errs = append(errs, e.tok.Close())
	}
	return errors.Join(errs...)
}

// dimensions is the length of a vector.
func (e *Engine) dimensions() int {
	n := e.work.pooled[len(e.work.pooled)-1].Cols
	if d := e.sentence.dims; d > 0 {
		n = min(n, d)
	}
	return n
}

// begin counts a request in, unless the engine is closing.
func (e *Engine) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return engine.Errorf(engine.Unavailable, "the server is shutting down")
	}
	e.active.Add(1)
	return nil
}

// check refuses what the engine does not know.
func (e *Engine) check(p *engine.Pooling) error {
	if p.Model != e.model.ID {
		return &engine.Error{Code: engine.NotFound, Param: "model", Message: "the model '" + p.Model + "' does not exist"}
	}
	for name := range p.Extra {
		if !p.IgnoreExtra {
			return engine.BadField(name, "%s is not a field that this server knows", name)
		}
	}
	return nil
}

// Embed makes vectors of texts.
func (e *Engine) Embed(ctx context.Context, req *engine.EmbedRequest) (*engine.Embedding, error) {
	if err := e.begin(); err != nil {
		return nil, err
	}
	defer e.active.Done()
	if err := e.check(&req.Pooling); err != nil {
		return nil, err
	}
	if e.spec.labels {
		return nil, engine.BadField("model", "the model '%s' scores pairs of texts, it makes no embeddings: use /v1/rerank or /v1/score", req.Model)
	}
	if err := e.checkDimensions(req.Dimensions); err != nil {
		return nil, err
	}
	texts := make([]*text, len(req.Inputs))
	var err error
	for i := range texts {
		if texts[i], err = e.embedText(req, i); err != nil {
			return nil, err
		}
	}
	if err := e.runner.run(ctx, req.Tenant, req.Priority, texts); err != nil {
		return nil, err
	}
	out := &engine.Embedding{}
	for _, t := range texts {
		v := t.out[:e.dimensions()]
		if req.Dimensions != nil {
			v = v[:*req.Dimensions]
		}
		if req.Normalize == nil && e.sentence.normalize || req.Normalize != nil && *req.Normalize {
			normalize(v)
		}
		out.Vectors, out.Tokens = append(out.Vectors, v), append(out.Tokens, len(t.ids))
	}
	return out, nil
}

// checkDimensions allows to cut vectors that were trained for it (Matryoshka): to the lengths that config.json lists, or any.
func (e *Engine) checkDimensions(d *int) error {
	switch n := e.dimensions(); {
	case d == nil || *d == n:
		return nil
	case len(e.spec.Dimensions) > 0:
		if !slices.Contains(e.spec.Dimensions, *d) || *d > n {
			return engine.BadField("dimensions", "dimensions is %d, must be one of %v", *d, e.spec.Dimensions)
		}
		return nil
	case !e.spec.Matryoshka:
		return engine.BadField("dimensions", "the model's vectors have %d dimensions and were not trained to be cut (is_matryoshka "+
			"or matryoshka_dimensions in config.json)", n)
	case *d < 1 || *d > n:
		return engine.BadField("dimensions", "dimensions is %d, must be 1 to %d", *d, n)
	}
	return nil
}

// Score says how well the texts of pairs go together: as a cross-encoder was trained to, or by the cosine of their vectors.
func (e *Engine) Score(ctx context.Context, req *engine.ScoreRequest) (*engine.Scores, error) {
	if err := e.begin(); err != nil {
		return nil, err
	}
	defer e.active.Done()
	if err := e.check(&req.Pooling); err != nil {
		return nil, err
	}
	if !e.spec.labels {
		return e.cosines(ctx, req)
	}
	texts := make([]*text, len(req.Pairs))
	var err error
	for i := range texts {
		if e.pairs != nil {
			texts[i], err = e.promptText(req, i)
		} else {
			texts[i], err = e.pairText(req, i)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := e.runner.run(ctx, req.Tenant, req.Priority, texts); err != nil {
		return nil, err
	}
	out := &engine.Scores{}
	for _, t := range texts {
		out.Scores, out.Tokens = append(out.Scores, e.score(t.out[0])), append(out.Tokens, len(t.ids))
	}
	return out, nil
}

// cosines scores pairs by the vectors of their texts.
func (e *Engine) cosines(ctx context.Context, req *engine.ScoreRequest) (*engine.Scores, error) {
	if req.MaxSecond > 0 {
		return nil, engine.BadField("max_tokens_per_doc", "the model '%s' compares embeddings; truncate_prompt_tokens cuts their texts", req.Model)
	}
	if req.Instruction != "" {
		return nil, engine.BadField("instruction", "the model '%s' compares embeddings and takes no instruction", req.Model)
	}
	query, document := e.sentence.first("query"), e.sentence.first("document", "passage", "corpus")
	firsts := map[string]*text{} // a query is computed once
	var texts, all []*text
	for i, p := range req.Pairs {
		first := firsts[p.First]
		if first == nil {
			var err error
			if first, err = e.inputText(&req.Pooling, fmt.Sprintf("the text before %s[%d]", req.Field, i), engine.Input{Text: p.First}, query, nil); err != nil {
				return nil, err
			}
			firsts[p.First] = first
			all = append(all, first)
		}
		second, err := e.inputText(&req.Pooling, fmt.Sprintf("%s[%d]", req.Field, i), engine.Input{Text: p.Second}, document, nil)
		if err != nil {
			return nil, err
		}
		texts, all = append(texts, second), append(all, second)
	}
	if err := e.runner.run(ctx, req.Tenant, req.Priority, all); err != nil {
		return nil, err
	}
	for _, t := range all {
		normalize(t.out)
	}
	out := &engine.Scores{}
	for i, t := range texts {
		first, sum := firsts[req.Pairs[i].First], 0.0
		for k, x := range first.out {
			sum += float64(x) * float64(t.out[k])
		}
		out.Scores, out.Tokens = append(out.Scores, sum), append(out.Tokens, len(first.ids)+len(t.ids))
	}
	return out, nil
}

// Generate refuses: the model does not go on with texts.
func (e *Engine) Generate(context.Context, *engine.Request) iter.Seq2[engine.Event, error] {
	route := "/v1/embeddings"
	if e.spec.labels {
		route = "/v1/rerank or /v1/score"
	}
	return func(yield func(engine.Event, error) bool) {
		yield(engine.Event{}, engine.BadField("model", "the model '%s' makes vectors or scores and generates nothing: use %s", e.model.ID, route))
	}
}

// Models lists the model.
func (e *Engine) Models() []engine.Model { return []engine.Model{e.model} }

// Stats reports the load.
func (e *Engine) Stats() []engine.Stats { return []engine.Stats{e.runner.load()} }

// Tokenize returns the tokens that a text has when it is embedded.
func (e *Engine) Tokenize(_ context.Context, req *engine.Request) ([]int32, error) {
	if req.Text == nil {
		return nil, engine.BadField("messages", "the model '%s' has no chats", e.model.ID)
	}
	ids, err := e.encode("", *req.Text)
	if err == nil && (req.AddSpecialTokens == nil || *req.AddSpecialTokens) {
		ids = slices.Concat(e.prefix, ids, e.suffix)
	}
	return ids, err
}

// Detokenize returns the text of tokens.
func (e *Engine) Detokenize(_ context.Context, _ string, tokens []int32) (string, error) {
	if err := e.checkTokens(tokens); err != nil {
		return "", err
	}
	return e.tok.Decode(tokens, false), nil
}

// TokenText returns the text of each token.
func (e *Engine) TokenText(_ context.Context, _ string, tokens []int32) ([]string, error) {
	if err := e.checkTokens(tokens); err != nil {
		return nil, err
	}
	out := make([]string, len(tokens))
	for i, id := range tokens {
		out[i] = strings.ToValidUTF8(string(e.tok.Bytes(id)), "\uFFFD")
	}
	return out, nil
}

func (e *Engine) checkTokens(tokens []int32) error {
	if i := slices.IndexFunc(tokens, func(id int32) bool { return !e.tok.Valid(id) }); i >= 0 {
		return engine.BadField("tokens", "token id %d is not in the vocabulary", tokens[i])
	}
	return nil
}

// Close refuses new requests, waits for the running ones until ctx ends, fails the rest and frees everything.
func (e *Engine) Close(ctx context.Context) (err error) {
	e.closing.Do(func() {
		e.mu.Lock()
		e.closed = true
		e.mu.Unlock()
		idle := make(chan struct{})
		go func() {
			e.active.Wait()
			close(idle)
		}()
		select {
		case <-idle:
		case <-ctx.Done():
		}
		e.runner.close()
		<-idle // what was left has failed
		err = e.free()
	})
	return err
}
