package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// llama runs llama.cpp's own benchmark programs, the yardstick. Its zero value runs nothing.
type llama struct {
	bench, batched, models string
}

// llamaFromEnv is what the environment names; nothing at all is fine.
func llamaFromEnv() (llama, error) {
	l := llama{os.Getenv("LLAMA_BENCH"), os.Getenv("LLAMA_BATCHED_BENCH"), os.Getenv("LLAMA_MODELS")}
	if l == (llama{}) {
		return l, nil
	}
	var errs []error
	for name, path := range map[string]string{"LLAMA_BENCH": l.bench, "LLAMA_BATCHED_BENCH": l.batched, "LLAMA_MODELS": l.models} {
		if path == "" {
			errs = append(errs, fmt.Errorf("%s is not set, but others of LLAMA_BENCH, LLAMA_BATCHED_BENCH, LLAMA_MODELS are", name))
		} else if _, err := os.Stat(path); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return l, errors.Join(errs...)
}

func (l llama) there() bool { return l.bench != "" }

// llamaTypes are the types of llama.cpp that our kinds of weights are compared with.
var llamaTypes = map[string]string{"bfloat16": "bf16", "int8": "q8_0", "int4": "q4_0"}

// do computes w and returns its tokens per second.
func (l llama) do(ctx context.Context, c config, w work) (float64, error) {
	file := filepath.Join(l.models, c.Shape+"-"+llamaTypes[c.Weights]+".gguf")
	threads := strconv.Itoa(c.Threads)
	// Weights are read into memory, not mapped: mapped ones are slower.
	if w.Seqs == 1 {
		out, err := run(ctx, l.bench, "-m", file, "-t", threads, "-p", strconv.Itoa(w.Prompt), "-n", strconv.Itoa(w.Gen),
			"-r", strconv.Itoa(w.Passes), "-mmp", "0", "-o", "json")
		if err != nil {
			return 0, err
		}
		return parseBench(out, w)
	}
	out, err := run(ctx, l.batched, "-m", file, "-t", threads, "-tb", threads, "-c", strconv.Itoa(numBlocks*blockSize),
		"-npp", strconv.Itoa(w.Prompt), "-ntg", strconv.Itoa(w.Gen), "-npl", strconv.Itoa(w.Seqs), "--no-mmap",
		"--output-format", "jsonl")
	if err != nil {
		return 0, err
	}
	return parseBatched(out, w)
}

func run(ctx context.Context, program string, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", cmd, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// parseBench reads what llama-bench -o json says: a list of one test.
func parseBench(out []byte, w work) (float64, error) {
	var tests []struct {
		NPrompt int     `json:"n_prompt"`
		NGen    int     `json:"n_gen"`
		AvgTS   float64 `json:"avg_ts"`
	}
	if err := json.Unmarshal(out, &tests); err != nil {
		return 0, fmt.Errorf("llama-bench: %w", err)
	}
	if len(tests) != 1 || tests[0].NPrompt != w.Prompt || tests[0].NGen != w.Gen || !(tests[0].AvgTS > 0) {
		return 0, fmt.Errorf("llama-bench answers %+v to %+v", tests, w)
	}
	return tests[0].AvgTS, nil
}

// parseBatched reads what llama-batched-bench --output-format jsonl says: a line for one test, perhaps among others.
func parseBatched(out []byte, w work) (float64, error) {
	for line := range bytes.Lines(out) {
		if !bytes.HasPrefix(line, []byte("{")) {
			continue
		}
		var test struct {
			PP, TG, PL int
			SpeedTG    float64 `json:"speed_tg"`
		}
		if err := json.Unmarshal(line, &test); err != nil {
			return 0, fmt.Errorf("llama-batched-bench: %w", err)
		}
		if test.PP == w.Prompt && test.TG == w.Gen && test.PL == w.Seqs && test.SpeedTG > 0 {
			return test.SpeedTG, nil
		}
	}
	return 0, fmt.Errorf("llama-batched-bench answers %q to %+v", out, w)
}
