package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"pagoda/bench"
	"pagoda/config"
)

// TestMain lets the test program be pagoda itself when bench starts it as a server.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestBench measures the built-in model, shortly.
func TestBench(t *testing.T) {
	cfg, err := config.Load("bench", []string{"--rounds=1", "--requests=6", "--concurrency=3", "--input_tokens=20",
		"--output_tokens=8", "--max_num_seqs=4", "--max_model_len=200", "--json"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := runBench(context.Background(), cfg, &out); err != nil {
		t.Fatal(err)
	}
	var r bench.Report
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if len(r.Prefill) != 2 || r.Prefill[1].Tokens != 128 || len(r.Decode) != 2 || r.Decode[1].Sequences != 4 {
		t.Errorf("prefill %v, decode %v", r.Prefill, r.Decode)
	}
	for _, p := range r.Prefill {
		// More than all of the peak is no fault here: other programs may have had the cores when it was measured.
		if !(p.TokensPerSec.Median > 0 && p.OfPeak > 0 && p.OfPeak < 4) {
			t.Errorf("prefill %+v", p)
		}
	}
	for _, d := range r.Decode {
		if !(d.TokensPerSec.Median > 0 && d.GFLOPs > 0 && d.GBs > 0) {
			t.Errorf("decode %+v", d)
		}
	}
	if l := r.Load; len(l.Errors) > 0 || l.GotTokens != 6*8 || l.PromptTokens != 6*20 || l.CachedTokens != 0 || l.ITL.Count != 6*7 {
		t.Errorf("load %+v", r.Load)
	}
	// 3.87 M weights in two bytes, and the norms in four.
	if m := r.Model; m.LayerParams+m.HeadParams != 3866624 || m.WeightBytes < 2*3866624 || m.WeightBytes > 2*4000000 ||
		m.StepBytes != m.WeightBytes {
		t.Errorf("model %+v", m)
	}
	if !(r.Startup.ReadySeconds.Min > 0 && r.Limits.ReadGBs > 0 && r.Limits.F32GFLOPs > 0) {
		t.Errorf("start-up %+v, limits %+v", r.Startup, r.Limits)
	}
	// A prompt of 512 has no place in 200 tokens, batches of 16 and 64 none in four sequences.
	left := 0
	for _, n := range r.Notes {
		if strings.HasPrefix(n, "no prefill of 512") || strings.HasPrefix(n, "no decode of") {
			left++
		}
	}
	if left != 3 {
		t.Errorf("notes %q", r.Notes)
	}
	var text strings.Builder
	if err := r.Text(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"prefill, one prompt", "at once", "time to first token", "KV cache", "new process to ready",
		"max_num_seqs is 4"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing in\n%s", want, text.String())
		}
	}
}

func TestBenchStops(t *testing.T) {
	cfg, err := config.Load("bench", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errInterrupted)
	if err := runBench(ctx, cfg, &strings.Builder{}); err == nil {
		t.Error("a canceled benchmark reports success")
	}
	if _, err := bench.StartServer(ctx, os.Args[0], []string{"serve", "--port=0"}); err == nil {
		t.Error("a canceled start reports success")
	}
	_, err = bench.StartServer(context.Background(), os.Args[0], []string{"serve", "--port=0", "--model=/nowhere"})
	if err == nil || !strings.Contains(err.Error(), "model_name_or_path") || errors.Is(err, errInterrupted) {
		t.Errorf("a failed start: %v", err)
	}
}
