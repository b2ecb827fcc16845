package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pagoda/backends/native/model"
	"pagoda/bench"
	"pagoda/kernels"
)

const shapesDir = "bench/shapes"

// What can be measured, in the order of the tables.
var (
	shapes      = []string{"qwen2.5-0.5b", "llama-3.2-1b", "qwen3-0.6b"}
	weightKinds = []string{"bfloat16", "int8", "int4"}
	rows        = []row{
		{name: "decode", group: "decode", work: work{Seqs: 1, Gen: 64, Passes: 1}},
		{name: "prefill of 128", group: "prefill", work: work{Seqs: 1, Prompt: 128, Passes: 3}},
		{name: "prefill of 512", group: "prefill", work: work{Seqs: 1, Prompt: 512, Passes: 1}},
		{name: "2 sequences", group: "batch", most: true, work: work{Seqs: 2, Prompt: 64, Gen: 32, Passes: 1}},
		{name: "4 sequences", group: "batch", most: true, work: work{Seqs: 4, Prompt: 64, Gen: 32, Passes: 1}},
		{name: "8 sequences", group: "batch", most: true, work: work{Seqs: 8, Prompt: 64, Gen: 32, Passes: 1}},
		{name: "16 sequences", group: "batch", most: true, work: work{Seqs: 16, Prompt: 64, Gen: 32, Passes: 1}},
		{name: "32 sequences", group: "batch", most: true, work: work{Seqs: 32, Prompt: 64, Gen: 32, Passes: 1}},
		{name: "decode beside two busy processes", group: "busy", most: true, busy: 2, work: work{Seqs: 1, Gen: 32, Passes: 1}},
		{name: "memory, 8 sequences of 512", group: "memory", most: true, server: serverMemory},
		{name: "start to ready, file cached", group: "start", most: true, server: serverStart},
	}
)

// row is a line of the tables.
type row struct {
	name  string
	group string // as -rows names it
	work         // unless server
	most  bool   // with the most threads only
	busy  int    // processes that spin meanwhile

	server serverRow
}

// peak is the limit of the fastest arithmetic that products with a kind of weights can use.
func peak(weights string, l kernels.Limits) float64 {
	if weights == "bfloat16" {
		return max(l.F32GFLOPs, l.BF16GFLOPs)
	}
	return l.Int8GOPs
}

// weightBits is the number of bits that a kind of weights is rounded to, 0 for none.
var weightBits = map[string]int{"int8": 8, "int4": 4}

// modelOptions say how weights of a kind are loaded.
func modelOptions(weights string) model.Options {
	return model.Options{DType: model.BFloat16, Bits: weightBits[weights]}
}

func main() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 4 && args[0] == "child":
		err = child(args[1:])
	case len(args) == 1 && args[0] == "spin":
		spin()
	default:
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = measureAll(ctx, args)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-cpu:", err)
		os.Exit(1)
	}
}

// list is a flag that holds some of the allowed words.
type list struct {
	allowed, chosen []string
}

func (l *list) String() string { return strings.Join(l.chosen, ",") }

func (l *list) Set(text string) error {
	l.chosen = strings.Split(text, ",")
	for _, word := range l.chosen {
		if !slices.Contains(l.allowed, word) {
			return fmt.Errorf("%q is none of %s", word, strings.Join(l.allowed, ", "))
		}
	}
	return nil
}

// session is one call of the command.
type session struct {
	shapes, weights, groups, threads list

	rounds int
	watch  watch
	llama  llama
	pagoda string
	commit string

	file, tableFile string
	results         results
	disturbed       []string
}

// measureAll is the command. When ctx ends, so do the processes that it has started.
func measureAll(ctx context.Context, args []string) error {
	var groups []string
	for _, r := range rows {
		if !slices.Contains(groups, r.group) {
			groups = append(groups, r.group)
		}
	}
	all := func(words ...string) list { return list{words, words} }
	b := session{shapes: all(shapes...), weights: all(weightKinds...), groups: all(groups...), threads: all("1", "2"),
		watch: watch{clock: machineClock}}
	flags := flag.NewFlagSet("bench-cpu", flag.ContinueOnError)
	flags.Var(&b.shapes, "shapes", "which models' `shapes`")
	flags.Var(&b.weights, "weights", "which `kinds` of weights")
	flags.Var(&b.groups, "rows", "which `rows`")
	flags.Var(&b.threads, "threads", "with how many `threads`")
	flags.IntVar(&b.rounds, "rounds", 3, "samples of each figure; medians are shown")
	flags.IntVar(&b.watch.tries, "tries", 3, "how often a sample is taken at most, when others disturb it")
	flags.DurationVar(&b.watch.wait, "wait", time.Minute, "how long to wait for a quiet machine before a sample")
	flags.StringVar(&b.pagoda, "pagoda", "bin/pagoda", "the `program` whose start and memory are measured")
	flags.StringVar(&b.commit, "commit", "unknown", "what is measured, for the table")
	flags.StringVar(&b.file, "results", "build/bench/results.json", "`file` of all results on this machine so far")
	flags.StringVar(&b.tableFile, "table", "docs/performance.md", "Markdown `file` with the table, - for stdout only")
	accept := flags.Bool("accept-disturbed", false, "do not fail where other programs disturbed a row")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || b.rounds < 1 || b.watch.tries < 1 {
		return errors.New("-rounds and -tries are at least 1, and nothing follows the flags")
	}
	if err := b.measure(ctx); err != nil {
		return err
	}
	if len(b.disturbed) > 0 && !*accept {
		return fmt.Errorf("other programs disturbed %d rows:\n  %s", len(b.disturbed), strings.Join(b.disturbed, "\n  "))
	}
	return nil
}

func (b *session) measure(ctx context.Context) (err error) {
	if b.llama, err = llamaFromEnv(); err != nil {
		return err
	}
	if !b.llama.there() {
		b.say("LLAMA_BENCH, LLAMA_BATCHED_BENCH and LLAMA_MODELS are not set: without llama.cpp")
	}
	if b.results, err = readResults(b.file, bench.CPUName()); err != nil {
		return err
	}
	for _, shape := range b.shapes.chosen {
		for _, kind := range b.weights.chosen {
			for i, text := range b.threads.chosen {
				n, err := strconv.Atoi(text)
				if err != nil {
					return err
				}
				c := config{shape, kind, n}
				if err := b.config(ctx, c, i == len(b.threads.chosen)-1); err != nil {
					return fmt.Errorf("%s, %s, %d threads: %w", shape, kind, n, err)
				}
			}
		}
	}
	if b.tableFile == "-" {
		_, err := fmt.Print(b.results.table())
		return err
	}
	return b.results.writeTable(b.tableFile)
}

func (b *session) say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// config measures the chosen rows of a configuration.
func (b *session) config(ctx context.Context, c config, most bool) (err error) {
	var steps, server []row
	for _, r := range rows {
		switch {
		case !slices.Contains(b.groups.chosen, r.group) || r.most && !most:
		case r.server != notServer:
			server = append(server, r)
		default:
			steps = append(steps, r)
		}
	}
	defer func() { err = errors.Join(err, b.results.write(b.file)) }() // what there is, also after an error
	if len(steps) > 0 {
		if err := b.steps(ctx, c, steps); err != nil {
			return err
		}
	}
	for _, r := range server {
		if err := b.server(ctx, c, r); err != nil {
			return err
		}
	}
	return nil
}

func (b *session) newResult(c config, r row) result {
	return result{config: c, Row: r.name, CPU: bench.CPUName(), Commit: b.commit, Date: time.Now().UTC().Format(time.DateOnly)}
}

// finish takes a row that has all its samples.
func (b *session) finish(r result) {
	b.results.put(r)
	if r.disturbed() {
		b.disturbed = append(b.disturbed, fmt.Sprintf("%s, %s, %d threads, %s: others used %.2f CPUs", r.Shape, r.Weights,
			r.Threads, r.Row, r.Others))
	}
}

// steps measures rows that need the model only, all in turn.
func (b *session) steps(ctx context.Context, c config, chosen []row) error {
	o, err := startOurs(ctx, c)
	if err != nil {
		return err
	}
	defer o.stop() //nolint:errcheck // what it measured is known
	found := make([]result, len(chosen))
	for i, r := range chosen {
		found[i] = b.newResult(c, r)
		found[i].Variant = o.Variant
	}
	var limits kernels.Limits
	for range b.rounds {
		worst, err := b.limits(ctx, &limits, c.Threads, o.cmd.Process.Pid)
		if err != nil {
			return err
		}
		for i, r := range chosen {
			f := &found[i]
			f.Others = max(f.Others, worst)
			if err := b.sample(ctx, f, &f.Ours, r, func() (float64, error) { return o.do(r.work) }, o.cmd.Process.Pid); err != nil {
				return err
			}
			if b.llama.there() {
				err := b.sample(ctx, f, &f.Llama, r, func() (float64, error) { return b.llama.do(ctx, c, r.work) }, o.cmd.Process.Pid)
				if err != nil {
					return err
				}
			}
			b.say("%s %s, %d threads, %s: %.1f / %.1f tokens/s", c.Shape, c.Weights, c.Threads, r.name, f.Ours, f.Llama)
			f.ReadGBs, f.PeakGFLOPs = limits.ReadGBs, peak(c.Weights, limits)
			f.Bound = bound(o.facts, f.ReadGBs, f.PeakGFLOPs, r.work)
			b.results.put(*f)
		}
	}
	for _, f := range found {
		b.finish(f)
	}
	return nil
}

// sample adds one to a row's.
func (b *session) sample(ctx context.Context, f *result, to *[]float64, r row, measure func() (float64, error),
	children ...int) error {
	v, others, err := b.watch.sample(ctx, func() (float64, error) { return besideBusy(ctx, r.busy, measure) }, children...)
	*to = append(*to, v)
	f.Others = max(f.Others, others)
	return err
}

// limits raises l to what is measured now.
func (b *session) limits(ctx context.Context, l *kernels.Limits, threads, child int) (others float64, err error) {
	_, others, err = b.watch.sample(ctx, func() (float64, error) {
		now, err := kernels.MeasureLimits(kernels.CPUOptions{Threads: threads})
		l.ReadGBs = max(l.ReadGBs, now.ReadGBs)
		l.F32GFLOPs, l.BF16GFLOPs = max(l.F32GFLOPs, now.F32GFLOPs), max(l.BF16GFLOPs, now.BF16GFLOPs)
		l.Int8GOPs = max(l.Int8GOPs, now.Int8GOPs)
		return now.ReadGBs, err
	}, child)
	return others, err
}

// bound is the tokens per second at which reading the weights once a step, or their multiply-adds, reach the limit.
func bound(f facts, readGBs, peakGFLOPs float64, w work) float64 {
	tokens := w.Seqs
	if w.Gen == 0 {
		tokens *= w.Prompt
	}
	read := float64(f.StepBytes) / readGBs
	compute := 2 * float64(int64(tokens)*f.LayerParams+int64(w.Seqs)*f.HeadParams) / peakGFLOPs
	return float64(tokens) / max(read, compute) * 1e9
}
