package native

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"sync"
	"time"

	"pagoda/backends/native/adapter"
	"pagoda/backends/native/codec"
	"pagoda/backends/native/model"
	"pagoda/backends/native/sched"
	"pagoda/backends/native/token"
	"pagoda/checkpoint"
	"pagoda/engine"
	"pagoda/kernels"
)

// BlockSize is the number of tokens of a KV block.
const BlockSize = 16

// Engine serves one checkpoint and its adapters. It implements engine.Engine, engine.Tokenizer and engine.Statser.
type Engine struct {
	opts      Options
	models    []engine.Model
	started   time.Time
	codec     *codec.Codec
	tok       *token.Tokenizer // the codec's
	defaults  samplingDefaults
	maxLen    int
	numBlocks int  // of the KV cache
	stateful  bool // the model keeps states: see sched.Config.States
	vocab     int  // tokens that may be sampled: the tokenizer's, without the padding of the model's rows
	adapters  *adapter.Registry
	runner    *runner

	// What is freed, in reverse order, once the loop has ended.
	owned  []func() error
	device *kernels.Device
	model  *model.Model
	draft  *model.Model // nil: none guesses ahead
	kv     *model.KV

	mu       sync.Mutex // guards what follows
	closing  bool
	inflight map[*job]struct{}
	idle     chan struct{} // closed when closing and inflight is empty
}

var (
	_ engine.Engine    = (*Engine)(nil)
	_ engine.Tokenizer = (*Engine)(nil)
	_ engine.Statser   = (*Engine)(nil)
)

// New loads what o names and starts to serve it.
func New(o Options) (*Engine, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	e := &Engine{
		opts:     o,
		started:  time.Now(),
		inflight: map[*job]struct{}{},
		idle:     make(chan struct{}),
	}
	if err := e.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("load %s: %w", o.Name, err), e.free())
	}
	go e.runner.loop()
	return e, nil
}

// own notes that c is to be closed after all that was owned later.
func (e *Engine) own(c func() error) { e.owned = append(e.owned, c) }

// free closes what is owned. The loop must not run.
func (e *Engine) free() error {
	var errs []error
	for i := len(e.owned) - 1; i >= 0; i-- {
		errs = append(errs, e.owned[i]())
	}
	e.owned = nil
	return errors.Join(errs...)
}

func openCheckpoint(dir string, files fs.FS) (*checkpoint.Checkpoint, error) {
	if dir != "" {
		return checkpoint.Open(dir)
	}
	return checkpoint.OpenFS(files), nil
}

// checkOverrides tells of overrides that change nothing about the model, and refuses those with a name that no configuration has.
func (e *Engine) checkOverrides(ck *checkpoint.Checkpoint) error {
	idle, err := ck.IdleOverrides(func() any {
		cfg, err := ck.Config()
		if err != nil {
			return err.Error()
		}
		spec, err := model.NewSpec(cfg)
		if err != nil {
			return err.Error()
		}
		end, err := ck.EndTokens()
		return []any{spec, end, err, cfg.ModelType, cfg.BOSTokenIDs, cfg.PadTokenID, cfg.QuantizationConfig}
	})
	if err != nil {
		return fmt.Errorf("hf_overrides: %w", err)
	}
	if len(idle) > 0 {
		e.opts.Log.Warn().Strs("keys", idle).Msg("hf_overrides that change nothing about this model")
	}
	return nil
}

func (e *Engine) load() error {
	ck, err := openCheckpoint(e.opts.Dir, e.opts.Files)
	if err != nil {
		return err
	}
	defer ck.Close()
	ck.Override(e.opts.Overrides)
	cfg, err := ck.Config()
	if err != nil {
		return err
	}
	gen, err := ck.GenerationConfig()
	if err != nil {
		return err
	}
	spec, err := model.NewSpec(cfg)
	if err != nil {
		return err
	}
	if err := e.checkOverrides(ck); err != nil {
		return err
	}
	if e.stateful = spec.StateBytes() > 0; e.stateful && e.opts.SpeculativeMethod != "none" {
		return fmt.Errorf("speculative_method: %q is not possible with %s, whose state cannot forget a wrong guess",
			e.opts.SpeculativeMethod, spec.Arch)
	}
	if e.opts.RopeScaling != "none" {
		if err := spec.ScaleRope(e.opts.RopeScaling); err != nil {
			return fmt.Errorf("rope_scaling: %w", err)
		}
	}
	files, err := codec.Read(ck)
	if err != nil {
		return err
	}
	tok := e.startCodec(files)
	if e.opts.Vocabulary.grows() {
		if err := tok.wait(); err != nil { // the weights depend on it
			return err
		}
	}
	err = e.loadModel(ck, spec, tok.failed)
	if tokErr := tok.wait(); tokErr != nil {
		err = tokErr // if the weights failed too, it is because of this
	}
	if e.codec != nil {
		e.own(e.codec.Close)
	}
	if err != nil {
		return err
	}
	e.vocab = min(e.tok.VocabSize(), e.model.VocabSize())
	e.codec.Bound(e.vocab)
	if err := e.loadAdapters(); err != nil {
		return err
	}
	if err := e.loadDraft(); err != nil {
		return fmt.Errorf("draft model: %w", err)
	}
	if e.opts.NoGenerationConfig {
		gen = nil
	}
	e.defaults = newSamplingDefaults(gen, e.opts.Sampling)
	if err := e.startRunner(); err != nil {
		return err
	}
	e.listModels()
	return nil
}

// loadModel opens the device and packs the weights, unless all of the engine would not fit into memory, or failed says in between
// that it is for nothing.
func (e *Engine) loadModel(ck *checkpoint.Checkpoint, spec *model.Spec, failed func() error) (err error) {
	grow, err := e.growth(spec)
	if err != nil {
		return err
	}
	size, err := e.newSizer(spec, grow)
	if err != nil {
		return err
	}
	if e.numBlocks, err = size.blocks(e.opts); err != nil {
		return err
	}
	if e.device, err = kernels.OpenCPU(kernels.CPUOptions{Threads: e.opts.Threads, Variant: e.opts.Kernels}); err != nil {
		return err
	}
	e.own(e.device.Close)
	o := e.opts.model(grow)
	o.Check = failed
	if e.model, err = e.loadWeights(ck, spec, o); err != nil {
		return err
	}
	e.maxLen = e.model.MaxLen()
	return nil
}

// loadWeights loads a checkpoint's model, which the engine owns.
func (e *Engine) loadWeights(ck *checkpoint.Checkpoint, spec *model.Spec, o model.Options) (m *model.Model, err error) {
	if e.opts.LoadFormat == "dummy" {
		m, err = model.LoadDummy(e.device, spec, 1, o)
	} else {
		var w *checkpoint.Weights
		if w, err = ck.Weights(); err != nil {
			return nil, err
		}
		m, err = model.Load(e.device, spec, w, o)
		if o.Mapped {
			e.own(w.Close)
		} else {
			err = errors.Join(err, w.Close())
		}
	}
	if m != nil {
		e.own(m.Close)
	}
	return m, err
}

func (e *Engine) loadAdapters() error {
	e.adapters = adapter.NewRegistry(e.device, e.model)
	e.own(e.adapters.Close)
	for _, src := range e.opts.Adapters {
		ck, err := openCheckpoint(src.Dir, src.Files)
		if err == nil {
			_, err = e.adapters.Load(src.Name, ck)
			err = errors.Join(err, ck.Close())
		}
		if err != nil {
			return fmt.Errorf("adapter %s: %w", src.Name, err)
		}
	}
	return nil
}

func (e *Engine) startRunner() error {
	var err error
	if e.kv, err = e.model.NewKV(e.numBlocks, BlockSize); err != nil {
		return err
	}
	e.own(e.kv.Close)
	if err := e.model.AddStates(e.kv, e.opts.MaxNumSeqs); err != nil {
		return err
	}
	vocab := e.model.VocabSize()
	work, err := e.model.NewWorkspace(e.kv, e.opts.limits(vocab))
	if err != nil {
		return err
	}
	e.own(work.Close)
	s, err := sched.New(sched.Config{
		MaxNumSeqs:       e.opts.MaxNumSeqs,
		MaxBatchedTokens: e.opts.MaxBatchedTokens,
		MaxPromptLogits:  e.opts.promptLogits(vocab),
		MaxWaiting:       e.opts.MaxQueue,
		BlockSize:        BlockSize,
		NumBlocks:        e.numBlocks,
		MaxLen:           e.maxLen,
		PrefixCache:      !e.opts.NoPrefixCache && !e.stateful,
		States:           e.stateful,
		SwitchLen:        e.model.SwitchLen(),
	})
	if err != nil {
		return err
	}
	x := newExecutor(e.device.NewStream(), work, vocab, e.vocab, BlockSize)
	d, err := e.newDrafter()
	if err != nil {
		return err
	}
	e.runner = newRunner(s, x, d, e.opts.MaxQueue, e.opts.Log)
	return nil
}

func (e *Engine) listModels() {
	base := engine.Model{ID: e.opts.Name, Root: e.opts.Root, Created: e.started, MaxLen: e.maxLen, Backend: "native"}
	e.models = []engine.Model{base}
	for _, a := range e.opts.Adapters {
		m := base
		m.ID, m.Parent, m.Root = a.Name, base.ID, a.Name
		e.models = append(e.models, m)
	}
}

// Models lists the base model and its adapters.
func (e *Engine) Models() []engine.Model { return e.models }

// Stats reports the load as of the last step.
func (e *Engine) Stats() []engine.Stats {
	r := e.runner
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.load.sched
	st := engine.Stats{
		Model:           e.opts.Name,
		Ready:           true,
		Running:         s.NumRunning,
		Waiting:         s.NumWaiting + len(r.submit),
		KVUsage:         float64(s.NumUsedBlocks) / float64(s.NumBlocks),
		NumBlocks:       s.NumBlocks,
		BlockSize:       BlockSize,
		KVDType:         e.kv.DType().String(),
		PrefixQueries:   uint64(s.PrefixQueryTokens),
		PrefixHits:      uint64(s.PrefixHitTokens),
		Preemptions:     uint64(s.NumPreemptions),
		PromptTokens:    r.load.tokens.prompt,
		ComputedTokens:  r.load.tokens.computed,
		GeneratedTokens: r.load.tokens.generated,
		Steps:           r.load.steps,
		StepTokens:      append([]uint64(nil), r.load.stepSizes...),
		StepTokensSum:   r.load.stepSum,
		Drafts:          r.load.tokens.drafts,
		DraftTokens:     r.load.tokens.drafted,
		AcceptedTokens:  r.load.tokens.accepted,
		AcceptedAt:      slices.Clone(r.load.tokens.acceptedAt[:e.opts.NumSpeculativeTokens]),
		MaxAdapters:     len(e.opts.Adapters),
	}
	names := map[uint64]string{}
	for _, a := range e.adapters.List() {
		names[a.ID()] = a.Name()
	}
	for _, a := range r.load.adapters {
		name, ok := names[a.Adapter]
		if !ok {
			continue // the base model
		}
		if a.NumRunning > 0 {
			st.RunningAdapters = append(st.RunningAdapters, name)
		}
		if a.NumWaiting > 0 {
			st.WaitingAdapters = append(st.WaitingAdapters, name)
		}
	}
	return []engine.Stats{st}
}

// Generate answers req.
func (e *Engine) Generate(ctx context.Context, req *engine.Request) iter.Seq2[engine.Event, error] {
	return func(yield func(engine.Event, error) bool) {
		arrived := time.Now()
		a, err := e.newAnswer(ctx, req)
		if err == nil {
			a.job.box.timing.Arrived = arrived
			err = e.begin(a.job)
		}
		if err != nil {
			yield(engine.Event{}, err)
			return
		}
		defer e.end(a.job)
		a.events(ctx, yield)
	}
}

// begin hands j to the loop.
func (e *Engine) begin(j *job) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		j.releaseAdapter()
		return engine.Errorf(engine.Unavailable, "the server is shutting down")
	}
	select {
	case e.runner.submit <- j:
		e.inflight[j] = struct{}{}
		return nil
	default:
		j.releaseAdapter()
		return e.runner.busy()
	}
}

// end tells the loop that nobody reads j any more.
func (e *Engine) end(j *job) {
	j.gone.Store(true)
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.inflight, j)
	if e.closing && len(e.inflight) == 0 {
		close(e.idle)
	}
}

// Close refuses new requests, waits for the running ones until ctx ends, cancels the rest and frees everything. It
// reports blocks and device memory that were not given back.
func (e *Engine) Close(ctx context.Context) error {
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		return nil
	}
	e.closing = true
	if len(e.inflight) == 0 {
		close(e.idle)
	}
	e.mu.Unlock()
	select {
	case <-e.idle:
	case <-ctx.Done():
	}
	e.runner.stop()
	return errors.Join(e.runner.check(), e.free())
}
