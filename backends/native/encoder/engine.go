package encoder

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

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

	PoolingType string // "auto" is what the checkpoint's files say; else one of PoolingTypes; "" is auto
	DType       string // of the weights: "auto", "float32", "bfloat16", "float16"; "" is auto: the checkpoint's
	Threads     int    // 0: as many as the process may use
	Kernels     string // CPU variant; "": the best this machine runs

	MemoryBytes      int64 // memory that the weights may take; 0: no bound
	MaxModelLen      int   // 0: the checkpoint's own limit
	MaxNumSeqs       int   // texts per step; 0 is 64
	MaxBatchedTokens int   // tokens per step, at least MaxModelLen; 0 is 512
	MaxQueue         int   // texts that wait before requests are refused; 0 is 512

	Log zerolog.Logger
}

// Engine serves one encoder. It implements engine.Engine, Embedder, Scorer, Tokenizer and Statser.
type Engine struct {
	opts     Options
	spec     *spec
	sentence *sentence
	tok      *token.Tokenizer
	dev      *kernels.Device
	weights  *weights
	work     *workspace
	runner   *runner
	model    engine.Model
	maxLen   int

	prefix, suffix []int32 // around a text
	cls, sep       int32   // around pairs

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
	for p, value := range map[*int]int{&o.MaxNumSeqs: 64, &o.MaxBatchedTokens: 512, &o.MaxQueue: 512} {
		if *p == 0 {
			*p = value
		}
	}
	if o.Root == "" {
		o.Root = o.Name
	}
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
	if e.spec, err = readSpec(ck); err != nil {
		return err
	}
	if e.sentence, err = readSentence(ck); err != nil {
		return err
	}
	if err := e.choosePooling(); err != nil {
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
	if err := e.loadWeights(ck); err != nil {
		return err
	}
	tokens := max(e.opts.MaxBatchedTokens, e.maxLen)
	if e.work, err = newWorkspace(e.dev, e.spec, e.weights, e.sentence.pooling, tokens, e.opts.MaxNumSeqs, e.maxLen); err != nil {
		return err
	}
	e.model = engine.Model{ID: e.opts.Name, Root: e.opts.Root, Created: time.Now(), MaxLen: e.maxLen, Backend: "native"}
	e.runner = newRunner(e.work, e.dev.NewStream(), e.opts.MaxQueue, e.opts.Name, func(err error) {
		e.opts.Log.Error().Err(err).Msg("a step failed")
	})
	return nil
}

// choosePooling settles the pooling and the length: what the options say, else the files, within what the model has.
func (e *Engine) choosePooling() error {
	if e.spec.labels {
		e.sentence = &sentence{pooling: poolCLS, maxLen: e.sentence.maxLen}
	}
	if p := e.opts.PoolingType; p != "" && p != "auto" {
		if !isPooling(p) {
			return fmt.Errorf("pooling_type: %q is none of auto, %s", p, strings.Join(PoolingTypes(), ", "))
		}
		if e.spec.labels && p != poolCLS {
			return fmt.Errorf("pooling_type: %s scores by its first token, not %s", e.spec.arch, p)
		}
		e.sentence.pooling = p
	}
	e.maxLen = e.spec.maxLen()
	if n := e.sentence.maxLen; n > 0 {
		e.maxLen = min(e.maxLen, n)
	}
	if n := e.opts.MaxModelLen; n > e.spec.maxLen() {
		return fmt.Errorf("max_model_len: %d tokens; the model has positions for %d", n, e.spec.maxLen())
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
	if !e.spec.labels {
		return nil
	}
	vars := e.tok.TemplateVars()
	var ok1, ok2 bool
	e.cls, ok1 = e.tok.ID(vars["cls_token"])
	e.sep, ok2 = e.tok.ID(vars["sep_token"])
	if !ok1 || !ok2 {
		return errors.New("tokenizer: there is no cls_token or no sep_token to join pairs with")
	}
	return nil
}

func (e *Engine) loadWeights(ck *checkpoint.Checkpoint) error {
	name := e.opts.DType
	if name == "" || name == "auto" {
		name = e.spec.stored()
	}
	dtypes := map[string]kernels.DType{"": kernels.F32, "float32": kernels.F32, "bfloat16": kernels.BF16, "float16": kernels.F16}
	dt, ok := dtypes[name]
	if !ok {
		return fmt.Errorf("infer_dtype: %q is none of auto, float32, bfloat16, float16", name)
	}
	var err error
	if e.dev, err = kernels.OpenCPU(kernels.CPUOptions{Threads: e.opts.Threads, Variant: e.opts.Kernels}); err != nil {
		return err
	}
	from, err := ck.Weights()
	if err != nil {
		return err
	}
	defer from.Close()
	e.weights = &weights{}
	l := &loader{weights: e.weights, dev: e.dev, from: from, dtype: dt, budget: e.opts.MemoryBytes, used: map[string]bool{}}
	l.all(e.spec)
	width := e.spec.Hidden
	for _, d := range e.sentence.dense {
		width = l.dense(func(folder string) (*checkpoint.Checkpoint, error) {
			if !filepath.IsLocal(folder) {
				return nil, errors.New("the folder is not in the checkpoint")
			}
			return checkpoint.Open(filepath.Join(e.opts.Dir, folder))
		}, d, width)
	}
	if len(l.problems) > 0 {
		return fmt.Errorf("the weights do not fit the configuration:\n%w", errors.Join(l.problems...))
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
	if e.dev != nil {
		errs = append(errs, e.dev.Close())
	}
	if e.tok != nil {
		errs = append(errs, e.tok.Close())
	}
	return errors.Join(errs...)
}

// dimensions is the length of a vector.
func (e *Engine) dimensions() int { return e.work.pooled[len(e.work.pooled)-1].Cols }

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
		v := t.out
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
		if texts[i], err = e.pairText(req, i); err != nil {
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
	firsts := map[string]*text{} // a query is computed once
	var texts, all []*text
	for i, p := range req.Pairs {
		first := firsts[p.First]
		if first == nil {
			var err error
			if first, err = e.inputText(&req.Pooling, fmt.Sprintf("the text before %s[%d]", req.Field, i), engine.Input{Text: p.First}, nil); err != nil {
				return nil, err
			}
			firsts[p.First] = first
			all = append(all, first)
		}
		second, err := e.inputText(&req.Pooling, fmt.Sprintf("%s[%d]", req.Field, i), engine.Input{Text: p.Second}, nil)
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
		yield(engine.Event{}, engine.BadField("model", "the model '%s' is an encoder and generates nothing: use %s", e.model.ID, route))
	}
}

// Models lists the model.
func (e *Engine) Models() []engine.Model { return []engine.Model{e.model} }

// Stats reports the load.
func (e *Engine) Stats() []engine.Stats { return []engine.Stats{e.runner.load()} }

// Tokenize returns the tokens that a text has when it is embedded.
func (e *Engine) Tokenize(_ context.Context, req *engine.Request) ([]int32, error) {
	if req.Text == nil {
		return nil, engine.BadField("messages", "the model '%s' is an encoder and has no chats", e.model.ID)
	}
	return e.tok.Encode(*req.Text, req.AddSpecialTokens == nil || *req.AddSpecialTokens)
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
