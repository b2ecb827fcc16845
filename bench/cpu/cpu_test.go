package main

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pagoda/backends/native"
	"pagoda/backends/native/token"
	"pagoda/bench"
)

// TestMain lets the test program be the child and the busy processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "child" || os.Args[1] == "spin") {
		main()
		return
	}
	os.Exit(m.Run())
}

// What llama.cpp's programs printed, shortened by keys that nobody reads.
const (
	benchOutput = `[
  {
    "build_commit": "unknown",
    "cpu_info": "Intel(R) Xeon(R) Processor",
    "n_threads": 2,
    "n_prompt": 128,
    "n_gen": 0,
    "n_depth": 0,
    "avg_ns": 3069980203,
    "stddev_ns": 138584883,
    "avg_ts": 41.736605,
    "stddev_ts": 1.884072,
    "samples_ns": [ 2971985892, 3167974514 ],
    "samples_ts": [ 43.0688, 40.4044 ]
  }
]
`
	batchedOutput = `
{"n_kv_max": 512, "n_batch": 2048, "n_ubatch": 512, "flash_attn": -1, "is_pp_shared": 0, "n_gpu_layers": -1, "n_threads": 2, "n_threads_batch": 2, "pp": 64, "tg": 32, "pl": 2, "n_kv": 192, "t_pp": 0.529788, "speed_pp": 241.606064, "t_tg": 1.466460, "speed_tg": 43.642513, "t": 1.996248, "speed": 96.180435}

`
)

func TestParse(t *testing.T) {
	prefill, batch := work{Seqs: 1, Prompt: 128, Passes: 2}, work{Seqs: 2, Prompt: 64, Gen: 32}
	if v, err := parseBench([]byte(benchOutput), prefill); v != 41.736605 || err != nil {
		t.Errorf("llama-bench: %v, %v", v, err)
	}
	if v, err := parseBatched([]byte(batchedOutput), batch); v != 43.642513 || err != nil {
		t.Errorf("llama-batched-bench: %v, %v", v, err)
	}
	for _, out := range []string{"", "[]", "error", strings.Replace(benchOutput, "128", "512", 1),
		strings.Replace(benchOutput, "41.736605", "0", 1), strings.Replace(benchOutput, `"n_gen": 0`, `"n_gen": 1`, 1)} {
		if v, err := parseBench([]byte(out), prefill); err == nil {
			t.Errorf("llama-bench: %v from %q", v, out)
		}
	}
	for _, out := range []string{"", "{", strings.Replace(batchedOutput, `"pl": 2`, `"pl": 4`, 1),
		strings.Replace(batchedOutput, "43.642513", "0", 1)} {
		if v, err := parseBatched([]byte(out), batch); err == nil {
			t.Errorf("llama-batched-bench: %v from %q", v, out)
		}
	}
}

func TestBound(t *testing.T) {
	f := facts{LayerParams: 300e6, HeadParams: 100e6, StepBytes: 800e6}
	tests := []struct {
		name          string
		work          work
		readGBs, peak float64
		want          float64
	}{
		{"decode reads", work{Seqs: 1, Gen: 64}, 20, 200, 25},
		{"four share the reading", work{Seqs: 4, Prompt: 64, Gen: 32}, 20, 200, 100},
		{"many are bound by arithmetic", work{Seqs: 32, Prompt: 64, Gen: 32}, 20, 200, 250},
		{"prefill computes the head once", work{Seqs: 1, Prompt: 100}, 20, 200, 1e4 / 30.1},
	}
	for _, tt := range tests {
		if got := bound(f, tt.readGBs, tt.peak, tt.work); !(math.Abs(got-tt.want) < 1e-9*max(1, tt.want)) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestTable(t *testing.T) {
	one, two := config{"qwen2.5-0.5b", "bfloat16", 1}, config{"qwen2.5-0.5b", "bfloat16", 2}
	made := func(c config, row string, r result) result {
		r.config, r.Row, r.CPU, r.Variant, r.Commit, r.Date = c, row, "A CPU", "fast", "abc", "2026-01-02"
		return r
	}
	var rs results
	rs.put(made(one, "decode", result{Ours: []float64{9, 99, 20}, Llama: []float64{16, 16, 1}, Bound: 25, ReadGBs: 25, PeakGFLOPs: 150}))
	rs.put(made(two, "decode", result{Ours: []float64{1}, Others: 0.5}))
	rs.put(made(two, "decode", result{Ours: []float64{32}, Llama: []float64{30}, Bound: 40, ReadGBs: 40, PeakGFLOPs: 300}))
	rs.put(made(two, "4 sequences", result{Ours: []float64{96}, Bound: 160, Others: 0.2}))
	rs.put(made(two, "decode beside two busy processes", result{Ours: []float64{16}, Llama: []float64{3}, Bound: 40}))
	rs.put(made(two, "memory, 8 sequences of 512", result{Bytes: 1200 << 20, PeakBytes: 1300 << 20, WeightBytes: 1000 << 20, KVBytes: 100 << 20}))
	rs.put(made(two, "start to ready, file cached", result{ReadySeconds: []float64{3, 0.5, 0.4}, ReadyCPUSeconds: []float64{0.7}}))
	rs.put(made(config{"qwen3-0.6b", "bfloat16", 2}, "prefill of 128", result{Ours: []float64{1234}, Bound: 2000}))

	file := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(file, []byte("before\n"+tableBegin+"old\n"+tableEnd+"after\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := rs.writeTable(file); err != nil {
		t.Fatal(err)
	}
	got := readFile(t, file)
	want := `before
<!-- bench-cpu:begin -->

### qwen2.5-0.5b

A CPU, kernels fast; commit abc, 2026-01-02, rounds: 1; commit abc, 2026-01-02, rounds: 3.

| | threads | bfloat16 (BF16) |
|---|---|---|
| decode | 1 | 20.0 / 16.0, 1.25×, 80 % |
| decode | 2 | 32.0 / 30.0, 1.07×, 80 % |
| 4 sequences | 2 | 96.0, 60 %, 3.0 × one † |
| decode beside two busy processes | 2 | 16.0 / 3.00, 5.33×; 50 % / 10 % of quiet |
| memory, 8 sequences of 512 | 2 | 1200 MiB: weights + KV + 100 (most: + 200) |
| start to ready, file cached | 2 | 0.50 s, 0.70 CPU s |
| limits beside them | 1 | 25.0 GB/s, 150 G(FL)OP/s |
| limits beside them | 2 | 40.0 GB/s, 300 G(FL)OP/s |

### qwen3-0.6b

A CPU, kernels fast; commit abc, 2026-01-02, rounds: 1.

| | threads | bfloat16 (BF16) |
|---|---|---|
| prefill of 128 | 2 | 1234, 62 % |

† disturbed: other programs used more than a tenth of a processor in every try.

<!-- bench-cpu:end -->
after
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := os.WriteFile(file, []byte("no markers"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := rs.writeTable(file); err == nil {
		t.Error("wrote a table where there is no place for it")
	}
}

// TestResultsStay: what was measured on this machine before stays, other machines' results go.
func TestResultsStay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "results.json")
	if rs, err := readResults(file, "here"); err != nil || rs != nil {
		t.Fatalf("%v, %v without a file", rs, err)
	}
	c := config{"a", "bfloat16", 1}
	rs := results{{config: c, Row: "decode", CPU: "here", Ours: []float64{1, 2}}, {config: c, Row: "prefill", CPU: "there"}}
	if err := rs.write(file); err != nil {
		t.Fatal(err)
	}
	got, err := readResults(file, "here")
	if err != nil || len(got) != 1 || got[0].Row != "decode" || !slices.Equal(got[0].Ours, []float64{1, 2}) || got[0].config != c {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestDisturbedSamples: the least disturbed of the tries counts, and a quiet one is the last.
func TestDisturbedSamples(t *testing.T) {
	for _, tt := range []struct {
		others             []float64 // of each try
		tries, value, used float64
	}{
		{[]float64{0.02}, 1, 1, 0.02},
		{[]float64{0.9, 0.1}, 2, 2, 0.1},
		{[]float64{0.9, 0.3, 0.4}, 3, 2, 0.3},
	} {
		tries := 0.0
		clock := func(...int) func() float64 { return func() float64 { return tt.others[int(tries)-1] } }
		v, used, err := watch{tries: 3, clock: clock}.sample(t.Context(), func() (float64, error) { tries++; return tries, nil })
		if v != tt.value || used != tt.used || tries != tt.tries || err != nil {
			t.Errorf("%v: value %g, others %g after %g tries, %v", tt.others, v, used, tries, err)
		}
	}
}

// TestWaitForQuiet: a sample begins when others have been quiet for a while.
func TestWaitForQuiet(t *testing.T) {
	left := []float64{1, 0.5, 0.05}
	clock := func(...int) func() float64 {
		return func() float64 { v := left[0]; left = left[1:]; return v }
	}
	watch{wait: time.Minute, clock: clock}.waitForQuiet(t.Context(), nil)
	if len(left) != 0 {
		t.Errorf("began although %v was to come", left)
	}
}

const tinyShape = `{"architectures":["Qwen2ForCausalLM"],"torch_dtype":"bfloat16","vocab_size":600,"hidden_size":64,
	"intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
	"max_position_embeddings":4096,"rms_norm_eps":1e-6,"hidden_act":"silu","tie_word_embeddings":true}`

// TestMeasure runs all rows of steps with a tiny shape, beside programs that stand in for llama.cpp's.
func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(name, text string) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	write(shapesDir+"/tiny/config.json", tinyShape)
	write("doc.md", tableBegin+tableEnd)
	// They answer with what they were asked.
	t.Setenv("LLAMA_BENCH", write("llama-bench", `#!/bin/sh
echo "[{\"n_prompt\": $6, \"n_gen\": $8, \"avg_ts\": 7}]"
`))
	t.Setenv("LLAMA_BATCHED_BENCH", write("llama-batched-bench", `#!/bin/sh
echo "{\"pp\": ${10}, \"tg\": ${12}, \"pl\": ${14}, \"speed_tg\": 8}"
`))
	t.Setenv("LLAMA_MODELS", dir)
	before := shapes
	shapes = []string{"tiny"}
	defer func() { shapes = before }()
	err := measureAll(t.Context(), []string{"-threads", "1", "-weights", "bfloat16,int4", "-rows", "decode,prefill,batch,busy", "-rounds", "1", "-tries", "1", "-wait", "0s",
		"-table", "doc.md", "-results", "results.json", "-accept-disturbed", "-commit", "abc"})
	if err != nil {
		t.Fatal(err)
	}
	rs, err := readResults("results.json", bench.CPUName())
	if err != nil || len(rs) != 18 {
		t.Fatalf("%d results, %v", len(rs), err)
	}
	for _, r := range rs {
		llama := 7.0
		if strings.HasSuffix(r.Row, " sequences") {
			llama = 8
		}
		if len(r.Ours) != 1 || !(r.Ours[0] > 0) || !slices.Equal(r.Llama, []float64{llama}) || !(r.Bound > 0 && r.ReadGBs > 0) {
			t.Errorf("result %+v", r)
		}
	}
	if text := readFile(t, "doc.md"); strings.Count(string(text), "\n| ") != 11 {
		t.Errorf("table %s", text)
	}
}

// TestInterrupted: the processes end with the command.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	begin := time.Now()
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := run(ctx, "sleep", "60"); err == nil || time.Since(begin) > 30*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
	_, err := besideBusy(t.Context(), 1, func() (float64, error) { return 0, errors.New("failed") })
	if err == nil || err.Error() != "failed" {
		t.Errorf("error %v", err)
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range [][]string{{"-shapes", "x"}, {"-rows", "decode,x"}, {"-threads", "0"}, {"-rounds", "0"}, {"x"}} {
		if err := measureAll(t.Context(), args); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
	t.Setenv("LLAMA_BENCH", "/dev/null")
	if _, err := llamaFromEnv(); err == nil || !strings.Contains(err.Error(), "LLAMA_MODELS") {
		t.Errorf("half of llama.cpp: %v", err)
	}
}

// TestCheckpoint: what is written for the server loads and has a token for each row of the vocabulary.
func TestCheckpoint(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tiny")
	config := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(config, []byte(tinyShape), 0o644); err != nil {
		t.Fatal(err)
	}
	spec, err := readSpec(filepath.Dir(config))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds it there
		if err := writeCheckpoint(dir, config, spec); err != nil {
			t.Fatal(err)
		}
	}
	e, err := native.New(native.Options{Dir: dir, Name: "tiny", MaxModelLen: 64, MaxNumSeqs: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	tok, err := token.Load(readFile(t, filepath.Join(dir, "tokenizer.json")), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	ids, err := tok.Encode("the ca\x00t", false)
	if err != nil || tok.VocabSize() != spec.Vocab || len(ids) < 3 || tok.Decode(ids, false) != "the ca\x00t" {
		t.Errorf("%d tokens of %d, %v: %q", len(ids), tok.VocabSize(), err, tok.Decode(ids, false))
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
