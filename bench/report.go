package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Report is what `pagoda bench` found, in SI units and bytes. Parts that do not apply are nil.
type Report struct {
	Version string    `json:"version"`
	Commit  string    `json:"commit"`
	Date    string    `json:"date"` // RFC 3339
	CPU     string    `json:"cpu"`
	CPUs    int       `json:"cpus"` // that this process may use
	Others  *float64  `json:"cpus_used_by_others,omitempty"`
	Server  *Server   `json:"server,omitempty"`
	Model   *Model    `json:"model,omitempty"`
	Limits  *Limits   `json:"limits,omitempty"`
	Prefill []Prefill `json:"prefill,omitempty"`
	Decode  []Decode  `json:"decode,omitempty"`
	Load    *Load     `json:"load,omitempty"`
	Memory  *Memory   `json:"memory,omitempty"`
	Startup *Startup  `json:"startup,omitempty"`
	Notes   []string  `json:"notes,omitempty"`
}

// Server is what was measured over HTTP.
type Server struct {
	URL      string `json:"url"`
	Model    string `json:"model"`
	Endpoint string `json:"endpoint"`
}

// Model is what was measured in this process.
type Model struct {
	Name        string `json:"name"`
	Variant     string `json:"kernels"`
	Threads     int    `json:"threads"`
	DType       string `json:"dtype"`
	Weights     string `json:"weights"` // what they are kept as: dtype, or int8 or int4
	KVDType     string `json:"kv_dtype"`
	LayerParams int64  `json:"layer_params"` // weights that each token is multiplied with in the layers
	HeadParams  int64  `json:"head_params"`  // weights that each token with logits is multiplied with
	WeightBytes int64  `json:"weight_bytes"`
	StepBytes   int64  `json:"step_bytes"` // of the weights, what a decode step reads
	KVBytes     int64  `json:"kv_bytes"`
	KVTokens    int    `json:"kv_tokens"`
	OtherBytes  int64  `json:"other_bytes"` // adapters and work buffers
}

// Limits is what the machine can do at most, measured in the same run.
type Limits struct {
	ReadGBs    float64 `json:"read_gb_per_second"`
	F32GFLOPs  float64 `json:"float32_gflop_per_second"`
	BF16GFLOPs float64 `json:"bfloat16_gflop_per_second"` // 0: no such instruction
	Int8GOPs   float64 `json:"int8_gop_per_second"`
	PeakGFLOPs float64 `json:"peak_gflop_per_second"` // the one of the three that the model's matrix products use
	CacheBytes int64   `json:"cache_bytes"`           // the CPU's largest cache, 0 if unknown
}

// Prefill is one prompt of a length on its own. A token counts 2 operations per weight of the layers.
type Prefill struct {
	Tokens       int     `json:"tokens"`
	TokensPerSec Rate    `json:"tokens_per_second"`
	GFLOPs       float64 `json:"gflop_per_second"` // at the median, attention not counted
	OfPeak       float64 `json:"of_peak"`
}

// Decode is a number of sequences at once. A step reads the weights once for all of them.
type Decode struct {
	Sequences    int     `json:"sequences"`
	TokensPerSec Rate    `json:"tokens_per_second"` // of all together
	GBs          float64 `json:"weights_gb_per_second"`
	OfMemory     float64 `json:"of_memory"` // of the read limit; above 1 if the weights stay in the cache
	GFLOPs       float64 `json:"gflop_per_second"`
	OfPeak       float64 `json:"of_peak"`
}

// Memory is of this process after the load, before the limits were measured.
type Memory struct {
	RSSBytes     int64 `json:"rss_bytes"`
	PeakRSSBytes int64 `json:"peak_rss_bytes"`
}

// Startup is the time from the start of a new server process to its first ready answer, and what it then takes.
type Startup struct {
	ReadySeconds Rate    `json:"ready_seconds"`
	LoadSeconds  float64 `json:"load_seconds"` // of the model in this process
	RSSBytes     int64   `json:"rss_bytes"`    // of the new process when ready
}

// SetRates fills in Prefill and Decode with what the rates mean for the model and the limits.
func (r *Report) SetRates(p Plan, rates Rates) {
	m, l := r.Model, r.Limits
	for i, n := range p.PromptLengths {
		row := Prefill{Tokens: n, TokensPerSec: rates.Prefill[i]}
		row.GFLOPs = 2 * float64(m.LayerParams) * row.TokensPerSec.Median / 1e9
		row.OfPeak = share(row.GFLOPs, l.PeakGFLOPs)
		r.Prefill = append(r.Prefill, row)
	}
	for i, d := range p.Decodes {
		n := d.Sequences
		row := Decode{Sequences: n, TokensPerSec: rates.Decode[i]}
		row.GBs = float64(m.StepBytes) * row.TokensPerSec.Median / float64(n) / 1e9
		row.OfMemory = share(row.GBs, l.ReadGBs)
		row.GFLOPs = 2 * float64(m.LayerParams+m.HeadParams) * row.TokensPerSec.Median / 1e9
		row.OfPeak = share(row.GFLOPs, l.PeakGFLOPs)
		r.Decode = append(r.Decode, row)
	}
}

// share is part/whole, 0 if whole is unknown.
func share(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return part / whole
}

// JSON writes the report for machines.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// Text writes the report for people.
func (r *Report) Text(w io.Writer) error {
	t := table{w: w}
	others := ""
	if r.Others != nil {
		who := "other programs"
		if r.Server != nil {
			who += ", the server among them if it runs here,"
		}
		others = fmt.Sprintf("; %s used %.2f of them meanwhile", who, *r.Others)
	}
	t.rows("",
		[]string{"pagoda", fmt.Sprintf("%s, commit %s, %s", r.Version, r.Commit, r.Date)},
		[]string{"cpu", fmt.Sprintf("%s, %d usable%s", r.CPU, r.CPUs, others)})
	if r.Server != nil {
		t.rows("", []string{"server", r.Server.URL}, []string{"model", r.Server.Model + ", " + r.Server.Endpoint})
	}
	if r.Model != nil {
		r.modelText(&t)
	}
	if r.Prefill != nil {
		rows := [][]string{{"tokens", "tok/s", "min", "max", "GFLOP/s", "of peak"}}
		for _, p := range r.Prefill {
			rows = append(rows, []string{fmt.Sprint(p.Tokens), num(p.TokensPerSec.Median), num(p.TokensPerSec.Min),
				num(p.TokensPerSec.Max), num(p.GFLOPs), percent(p.OfPeak)})
		}
		t.columns("prefill, one prompt at a time: median, least and most of "+rounds(r.Prefill[0].TokensPerSec), rows)
	}
	if r.Decode != nil {
		rows := [][]string{{"at once", "tok/s", "min", "max", "tok/s each", "weights GB/s", "of memory", "GFLOP/s", "of peak"}}
		for _, d := range r.Decode {
			rows = append(rows, []string{fmt.Sprint(d.Sequences), num(d.TokensPerSec.Median), num(d.TokensPerSec.Min),
				num(d.TokensPerSec.Max), num(d.TokensPerSec.Median / float64(d.Sequences)), num(d.GBs),
				percent(d.OfMemory), num(d.GFLOPs), percent(d.OfPeak)})
		}
		t.columns("decode: median, least and most of "+rounds(r.Decode[0].TokensPerSec), rows)
	}
	if r.Load != nil {
		r.Load.text(&t)
	}
	if r.Model != nil {
		r.memoryText(&t)
	}
	if s := r.Startup; s != nil {
		t.rows("start-up",
			[]string{"new process to ready", seconds(s.ReadySeconds.Median) + fmt.Sprintf(" (%s to %s)",
				seconds(s.ReadySeconds.Min), seconds(s.ReadySeconds.Max))},
			[]string{"model load here", seconds(s.LoadSeconds)},
			[]string{"memory when ready", mib(s.RSSBytes)})
	}
	if len(r.Notes) > 0 {
		t.printf("\nnotes\n")
		for _, n := range r.Notes {
			t.printf("  %s\n", n)
		}
	}
	return t.err
}

func rounds(r Rate) string {
	if r.Samples == 1 {
		return "one round"
	}
	return fmt.Sprintf("%d rounds", r.Samples)
}

func (r *Report) modelText(t *table) {
	m, l := r.Model, r.Limits
	t.rows("",
		[]string{"model", fmt.Sprintf("%s: %s weights in %s, %s; KV cache %s for %d tokens", m.Name,
			count(m.LayerParams+m.HeadParams), m.Weights, mib(m.WeightBytes), m.KVDType, m.KVTokens)},
		[]string{"kernels", fmt.Sprintf("%s, %d threads", m.Variant, m.Threads)})
	if l == nil {
		return
	}
	bf16 := "no bfloat16 instructions"
	if l.BF16GFLOPs > 0 {
		bf16 = fmt.Sprintf("%.0f GFLOP/s bfloat16", l.BF16GFLOPs)
	}
	t.rows("", []string{"limits", fmt.Sprintf("%.1f GB/s memory reads, %.0f GFLOP/s float32, %s, %.0f GOP/s int8; peak below is %.0f",
		l.ReadGBs, l.F32GFLOPs, bf16, l.Int8GOPs, l.PeakGFLOPs)})
	if m.StepBytes <= l.CacheBytes {
		t.rows("", []string{"", fmt.Sprintf("the weights fit into the CPU's cache of %s: the memory's limit does not bind here",
			mib(l.CacheBytes))})
	}
}

func (r *Report) memoryText(t *table) {
	rows := [][]string{
		{"weights", mib(r.Model.WeightBytes)},
		{"KV cache", mib(r.Model.KVBytes)},
		{"adapters, buffers", mib(r.Model.OtherBytes)},
	}
	if r.Memory != nil && r.Memory.PeakRSSBytes > 0 {
		rows = append(rows, []string{"process", fmt.Sprintf("%s at most, %s after the load", mib(r.Memory.PeakRSSBytes),
			mib(r.Memory.RSSBytes))})
	}
	t.rows("memory", rows...)
}

func (l *Load) text(t *table) {
	failed := 0
	for _, n := range l.Errors {
		failed += n
	}
	rows := [][]string{{"ms", "p50", "p90", "p99", "max", "samples"}}
	for _, s := range []struct {
		name string
		Spread
	}{{"time to first token", l.TTFT}, {"between pieces (ITL)", l.ITL}, {"per output token", l.TPOT},
		{"whole answer", l.E2E}} {
		rows = append(rows, []string{s.name, ms(s.P50), ms(s.P90), ms(s.P99), ms(s.Max), fmt.Sprint(s.Count)})
	}
	t.columns(fmt.Sprintf("load: %d requests, %d at once", l.Requests, l.Concurrency), rows)
	ok := max(1, l.Requests-failed)
	t.rows("",
		[]string{"  tokens", fmt.Sprintf("%d in, %d out per request (asked for: %d, %d)", l.PromptTokens/ok, l.GotTokens/ok,
			l.InputTokens, l.OutputTokens)},
		[]string{"  throughput", fmt.Sprintf("%s tok/s out, %s tok/s in and out, %s requests/s", num(l.OutputPerSec),
			num(l.TotalPerSec), num(l.RequestPerSec))})
	if l.CachedTokens > 0 {
		t.rows("", []string{"  prefix cache", fmt.Sprintf("%d of %d prompt tokens were found in it", l.CachedTokens, l.PromptTokens)})
	}
	if failed > 0 {
		t.rows("", []string{"  failed", fmt.Sprintf("%d requests, not counted above", failed)})
		for _, message := range slices.SortedFunc(maps.Keys(l.Errors), func(a, b string) int {
			return cmp.Or(cmp.Compare(l.Errors[b], l.Errors[a]), strings.Compare(a, b))
		}) {
			t.rows("", []string{"", fmt.Sprintf("%d x %s", l.Errors[message], message)})
		}
	}
}

// table prints aligned rows; the first error stays.
type table struct {
	w   io.Writer
	err error
}

func (t *table) printf(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, args...)
	}
}

// rows prints names and values, under a heading if there is one.
func (t *table) rows(heading string, rows ...[]string) {
	indent := ""
	if heading != "" {
		t.printf("\n%s\n", heading)
		indent = "  "
	}
	for _, r := range rows {
		t.printf("%-22s %s\n", indent+r[0], r[1])
	}
}

// columns prints figures, aligned to the right.
func (t *table) columns(heading string, rows [][]string) {
	t.printf("\n%s\n", heading)
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, r := range rows {
		fmt.Fprintln(tw, strings.Join(r, "\t")+"\t")
	}
	tw.Flush() // into memory
	t.printf("%s", b.String())
}

// num shows three significant figures or all digits before the point.
func num(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func ms(v float64) string { return fmt.Sprintf("%.2f", v) }

func seconds(v float64) string { return fmt.Sprintf("%.3f s", v) }

func percent(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

func count(n int64) string {
	if n >= 1e9 {
		return fmt.Sprintf("%.2f G", float64(n)/1e9)
	}
	return fmt.Sprintf("%.2f M", float64(n)/1e6)
}
