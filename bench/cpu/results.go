package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"pagoda/bench"
)

// result is a row of the table for one shape and kind of weights.
type result struct {
	config
	Row     string
	CPU     string
	Variant string `json:",omitempty"`
	Commit  string
	Date    string
	Others  float64 // CPUs that other programs used during the worst sample

	// Tokens per second, one sample of each round, and what the limits allow: of reading the weights once a step and of
	// multiply-adds, the one that binds.
	Ours, Llama []float64 `json:",omitempty"`
	Bound       float64   `json:",omitempty"`
	ReadGBs     float64   `json:",omitempty"`
	PeakGFLOPs  float64   `json:",omitempty"`

	// Of the server.
	ReadySeconds, ReadyCPUSeconds          []float64 `json:",omitempty"`
	Bytes, PeakBytes, WeightBytes, KVBytes int64     `json:",omitempty"`
}

func (r result) disturbed() bool { return r.Others > disturbed }

// results are the rows measured so far on one machine; a row measured again takes the place of the one before.
type results []result

// readResults reads what earlier runs found on this machine.
func readResults(file, cpu string) (results, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all results
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return slices.DeleteFunc(all, func(r result) bool { return r.CPU != cpu }), nil
}

func (rs results) find(c config, row string) (result, bool) {
	i := slices.IndexFunc(rs, func(r result) bool { return r.config == c && r.Row == row })
	if i < 0 {
		return result{}, false
	}
	return rs[i], true
}

func (rs *results) put(r result) {
	*rs = append(slices.DeleteFunc(*rs, func(old result) bool { return old.config == r.config && old.Row == r.Row }), r)
}

func (rs results) write(file string) error {
	data, err := json.MarshalIndent(rs, "", " ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err == nil {
		err = os.WriteFile(file, append(data, '\n'), 0o644)
	}
	return err
}

const tableBegin, tableEnd = "<!-- bench-cpu:begin -->\n", "<!-- bench-cpu:end -->\n"

// writeTable puts the table between its markers in a Markdown file.
func (rs results) writeTable(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(data), tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has not the two lines %q and %q", file, tableBegin, tableEnd)
	}
	return os.WriteFile(file, []byte(before+tableBegin+"\n"+rs.table()+"\n"+tableEnd+after), 0o644)
}

// table is a Markdown table for each shape, with a column for each kind of weights.
func (rs results) table() string {
	var b strings.Builder
	for _, shape := range shapes {
		of := slices.DeleteFunc(slices.Clone(rs), func(r result) bool { return r.Shape != shape })
		if len(of) > 0 {
			of.shapeTable(&b, shape)
		}
	}
	b.WriteString("† disturbed: other programs used more than a tenth of a processor in every try.\n")
	return b.String()
}

func (rs results) shapeTable(b *strings.Builder, shape string) {
	var kinds []string
	threads, notes, variant := map[int]bool{}, map[string]bool{}, ""
	for _, r := range rs {
		threads[r.Threads] = true
		if !slices.Contains(kinds, r.Weights) {
			kinds = append(kinds, r.Weights)
		}
		rounds := max(len(r.Ours), len(r.ReadySeconds), 1)
		notes[fmt.Sprintf("commit %s, %s, rounds: %d", r.Commit, r.Date, rounds)] = true
		variant = cmp.Or(variant, r.Variant)
	}
	slices.SortFunc(kinds, func(x, y string) int {
		return cmp.Compare(slices.Index(weightKinds, x), slices.Index(weightKinds, y))
	})
	fmt.Fprintf(b, "### %s\n\n%s, kernels %s; %s.\n\n| | threads |", shape, rs[0].CPU, variant,
		strings.Join(sortedKeys(notes), "; "))
	for _, kind := range kinds {
		fmt.Fprintf(b, " %s (%s) |", kind, strings.ToUpper(llamaTypes[kind]))
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(kinds)) + "\n")
	line := func(name string, n int, cell func(c config) string) {
		cells, some := "", false
		for _, kind := range kinds {
			text := cell(config{shape, kind, n})
			some = some || text != ""
			cells += " " + text + " |"
		}
		if some {
			fmt.Fprintf(b, "| %s | %d |%s\n", name, n, cells)
		}
	}
	for _, row := range rows {
		for _, n := range sortedKeys(threads) {
			line(row.name, n, func(c config) string { return rs.cell(c, row) })
		}
	}
	for _, n := range sortedKeys(threads) {
		line("limits beside them", n, rs.limitsCell)
	}
	b.WriteString("\n")
}

// cell shows a result, "" if there is none.
func (rs results) cell(c config, row row) string {
	r, ok := rs.find(c, row.name)
	if !ok {
		return ""
	}
	var text string
	switch {
	case row.server == serverMemory:
		rest := func(bytes int64) int64 { return (bytes - r.WeightBytes - r.KVBytes) >> 20 }
		text = fmt.Sprintf("%d MiB: weights + KV + %d (most: + %d)", r.Bytes>>20, rest(r.Bytes), rest(r.PeakBytes))
	case row.server == serverStart:
		text = fmt.Sprintf("%.2f s, %.2f CPU s", median(r.ReadySeconds), median(r.ReadyCPUSeconds))
	default:
		text = rs.speedCell(r, row)
	}
	if r.disturbed() {
		text += " †"
	}
	return text
}

func (rs results) speedCell(r result, row row) string {
	text := significant(median(r.Ours))
	if len(r.Llama) > 0 {
		text += fmt.Sprintf(" / %s, %.2f×", significant(median(r.Llama)), median(r.Ours)/median(r.Llama))
	}
	one, ok := rs.find(r.config, rows[0].name)
	switch {
	case row.busy > 0 && ok:
		text += "; " + percent(median(r.Ours), median(one.Ours))
		if len(r.Llama) > 0 && len(one.Llama) > 0 {
			text += " / " + percent(median(r.Llama), median(one.Llama))
		}
		text += " of quiet"
	case row.busy == 0:
		text += ", " + percent(median(r.Ours), r.Bound)
	}
	if row.Seqs > 1 && ok {
		text += fmt.Sprintf(", %.1f × one", median(r.Ours)/median(one.Ours))
	}
	return text
}

// limitsCell is the limits beside the decode row, which every complete run has.
func (rs results) limitsCell(c config) string {
	r, ok := rs.find(c, rows[0].name)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%.1f GB/s, %.0f G(FL)OP/s", r.ReadGBs, r.PeakGFLOPs)
}

func median(samples []float64) float64 { return bench.NewRate(samples).Median }

// significant shows three digits.
func significant(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func percent(part, whole float64) string { return fmt.Sprintf("%.0f %%", 100*part/whole) }

func sortedKeys[K cmp.Ordered](m map[K]bool) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
