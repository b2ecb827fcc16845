package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"pagoda/backends/native"
	"pagoda/bench"
	"pagoda/client"
	"pagoda/config"
	"pagoda/kernels"
)

// errInterrupted is the end by SIGINT or SIGTERM.
var errInterrupted = errors.New("interrupted")

// What the native engine is measured with, as far as the model allows.
var (
	benchPrompts = []int{32, 128, 512}
	benchBatches = []int{1, 4, 16, 64}
)

const (
	benchDecodePrompt = 32 // tokens of the prompts in the decode table
	benchMinDecode    = 16 // tokens of the answers at least
	benchMinSample    = 200 * time.Millisecond
	benchStarts       = 3
	benchDisturbed    = 0.1 // CPUs that others use
)

// benchmark measures the model in this process, or the server at url, and prints the report.
func benchmark(cfg *config.Result) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		<-signals
		signal.Stop(signals) // a second one ends the process at once
		cancel(errInterrupted)
	}()
	err := runBench(ctx, cfg, os.Stdout)
	if context.Cause(ctx) == errInterrupted {
		return errInterrupted // whatever error it led to
	}
	return err
}

func runBench(ctx context.Context, cfg *config.Result, out io.Writer) error {
	cfg.LogLevel = quieter(cfg)
	log, err := newLogger(&cfg.Config)
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		log.Warn().Msg(w)
	}
	b := &benchRun{cfg: cfg, log: log, progress: progressLine{w: os.Stderr, tty: isTerminal(os.Stderr)}}
	b.report = &bench.Report{Version: version, Commit: commit, Date: time.Now().Format(time.RFC3339), CPU: cpuName(),
		CPUs: runtime.GOMAXPROCS(0)}
	clock := bench.StartCPUClock()
	if cfg.URL != "" {
		err = b.server(ctx)
	} else {
		err = b.process(ctx)
	}
	b.progress.done()
	if err != nil {
		return err
	}
	b.report.Others = clock.Others()
	if others := b.report.Others; others != nil && *others > benchDisturbed && cfg.URL == "" {
		b.note("other programs disturbed the measurement: the figures are lower bounds, the shares of the limits rough")
	}
	if cfg.JSON {
		err = b.report.JSON(out)
	} else {
		err = b.report.Text(out)
	}
	if err == nil && b.report.Load.E2E.Count == 0 {
		return errors.New("no request of the load succeeded")
	}
	return err
}

// benchRun fills a report.
type benchRun struct {
	cfg      *config.Result
	log      zerolog.Logger
	progress progressLine
	report   *bench.Report
}

func (b *benchRun) note(format string, args ...any) {
	b.report.Notes = append(b.report.Notes, fmt.Sprintf(format, args...))
}

func (b *benchRun) loadOptions() bench.LoadOptions {
	return bench.LoadOptions{Requests: b.cfg.Requests, Concurrency: b.cfg.Concurrency, InputTokens: b.cfg.InputTokens,
		OutputTokens: b.cfg.OutputTokens}
}

func (b *benchRun) drive(ctx context.Context, t bench.Target) error {
	o := b.loadOptions()
	load, err := bench.Drive(ctx, t, o, func(done int) {
		b.progress.show("load: %d of %d requests", done, o.Requests)
	})
	b.report.Load = &load
	return err
}

// server measures a server over HTTP.
func (b *benchRun) server(ctx context.Context) error {
	keys, err := b.cfg.Keys()
	if err != nil {
		return err
	}
	if b.cfg.Source("rounds") != "default" {
		b.log.Warn().Msg("rounds has no effect with url")
	}
	c := client.New(b.cfg.URL, firstKey(keys))
	name := b.cfg.ModelID()
	if name == "" {
		models, err := c.Models(ctx)
		if err != nil {
			return err
		}
		if len(models) == 0 {
			return errors.New("the server has no model")
		}
		name = models[0]
	}
	b.report.Server = &bench.Server{URL: c.Base(), Model: name, Endpoint: b.cfg.Endpoint}
	t := bench.NewURLTarget(c, name, b.cfg.Endpoint == "chat")
	b.progress.show("asking %s", c.Base())
	notes, err := t.Probe(ctx, b.cfg.InputTokens)
	if err != nil {
		return err
	}
	b.report.Notes = append(b.report.Notes, notes...)
	return b.drive(ctx, t)
}

// process measures the configured model in this process.
func (b *benchRun) process(ctx context.Context) error {
	if b.cfg.Source("endpoint") != "default" {
		b.log.Warn().Msg("endpoint has no effect without url")
	}
	if b.cfg.Proxied() {
		return errors.New("infer_backend: pagoda bench measures models in this process, or a running server with --url")
	}
	tuneRuntime(b.log)
	b.progress.show("loading the model")
	begin := time.Now()
	eng, err := loadModel(ctx, &b.cfg.Config, newMemoryBudget(), b.log)
	if err != nil {
		return err
	}
	took := time.Since(begin)
	defer func() { _ = eng.Close(canceled()) }() // the process ends anyway
	plan, rates, err := b.engine(ctx, eng)
	if err != nil {
		return err
	}
	now, peak := bench.RSS(0)
	b.report.Memory = &bench.Memory{RSSBytes: now, PeakRSSBytes: peak}
	b.progress.show("the machine's limits")
	m := b.report.Model
	limits, err := kernels.MeasureLimits(kernels.CPUOptions{Variant: m.Variant, Threads: m.Threads})
	if err != nil {
		return err
	}
	b.report.Limits = &bench.Limits{ReadGBs: limits.ReadGBs, F32GFLOPs: limits.F32GFLOPs, BF16GFLOPs: limits.BF16GFLOPs,
		PeakGFLOPs: limits.F32GFLOPs, Int8GOPs: limits.Int8GOPs, CacheBytes: bench.CacheBytes()}
	switch {
	case m.Weights != m.DType:
		b.report.Limits.PeakGFLOPs = limits.Int8GOPs
	case m.DType == "bfloat16" && limits.BF16GFLOPs > 0:
		b.report.Limits.PeakGFLOPs = limits.BF16GFLOPs
	}
	b.report.SetRates(plan, rates)
	return b.startup(ctx, took)
}

// engine measures what needs the engine.
func (b *benchRun) engine(ctx context.Context, eng *native.Engine) (bench.Plan, bench.Rates, error) {
	model := eng.Models()[0]
	name := b.cfg.ModelID()
	if name == "" {
		name = model.ID
	}
	f := eng.Footprint()
	b.report.Model = &bench.Model{Name: name, Variant: f.Variant, Threads: f.Threads, DType: f.DType, Weights: f.Weights,
		KVDType: eng.Stats()[0].KVDType, LayerParams: f.LayerParams, HeadParams: f.HeadParams, WeightBytes: f.WeightBytes,
		StepBytes: f.StepBytes, KVBytes: f.KVBytes, KVTokens: f.KVTokens, OtherBytes: f.OtherBytes}
	plan := b.plan(model.MaxLen, f.KVTokens)
	t, err := bench.NewEngineTarget(ctx, eng, name)
	if err != nil {
		return plan, bench.Rates{}, err
	}
	rates, err := bench.MeasureRates(ctx, t, plan, func(what string) { b.progress.show("%s", what) })
	if err != nil {
		return plan, rates, err
	}
	return plan, rates, b.drive(ctx, t)
}

// plan leaves out what the model and the options do not allow, and says so.
func (b *benchRun) plan(maxLen, kvTokens int) bench.Plan {
	p := bench.Plan{Rounds: b.cfg.Rounds, MinSample: benchMinSample}
	for _, n := range benchPrompts {
		if n+1 > maxLen {
			b.note("no prefill of %d tokens: max_model_len is %d", n, maxLen)
			continue
		}
		p.PromptLengths = append(p.PromptLengths, n)
	}
	for _, n := range benchBatches {
		perSeq := min(maxLen, kvTokens/native.BlockSize/n*native.BlockSize) - 1 // a last token may need a block too
		d := bench.DecodePlan{Sequences: n, PromptTokens: benchDecodePrompt, MaxTokens: perSeq - benchDecodePrompt}
		switch {
		case n > b.cfg.MaxNumSeqs:
			b.note("no decode of %d at once: max_num_seqs is %d", n, b.cfg.MaxNumSeqs)
		case d.MaxTokens < benchMinDecode:
			b.note("no decode of %d at once: max_model_len is %d, the KV cache holds %d tokens", n, maxLen, kvTokens)
		default:
			p.Decodes = append(p.Decodes, d)
		}
	}
	return p
}

// startup starts servers like this process's configuration says, one after another.
func (b *benchRun) startup(ctx context.Context, load time.Duration) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append(append([]string{"serve"}, b.cfg.Args("serve")...), "--host=127.0.0.1", "--port=0", "--api_key=",
		"--log_level=info", "--log_format=json")
	s := &bench.Startup{LoadSeconds: load.Seconds()}
	var times []float64
	for i := range benchStarts {
		b.progress.show("start %d of %d", i+1, benchStarts)
		p, err := bench.StartServer(ctx, self, args)
		if err != nil {
			return fmt.Errorf("start of pagoda serve: %w", err)
		}
		times = append(times, p.ReadySeconds)
		s.RSSBytes, _ = bench.RSS(p.Pid)
		p.Stop()
	}
	s.ReadySeconds = bench.NewRate(times)
	b.report.Startup = s
	return nil
}

// canceled is a context that has ended.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// progressLine shows what is being done: one line that is overwritten on a terminal, nothing elsewhere.
type progressLine struct {
	w   io.Writer
	tty bool
}

func (p progressLine) show(format string, args ...any) {
	if p.tty {
		fmt.Fprintf(p.w, "\r\x1b[K"+format, args...)
	}
}

// done removes the line.
func (p progressLine) done() {
	if p.tty {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
