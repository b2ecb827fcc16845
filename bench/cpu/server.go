package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"

	"pagoda/bench"
	"pagoda/client"
)

// serverRow is what is measured of the program as a whole, `pagoda serve` with a checkpoint on disk.
type serverRow int

const (
	notServer serverRow = iota
	serverMemory
	serverStart
)

// What memory is measured with: as many sequences at once as fill a KV cache of contextTokens.
const (
	contextTokens  = 4096
	memorySeqs     = 8
	memoryGen      = 32
	memoryPrompt   = contextTokens/memorySeqs - memoryGen
	serverBlockKVs = 16 // tokens of a KV block of the engine
)

// server measures a row, once for memory and each round for the start.
func (b *session) server(ctx context.Context, c config, r row) error {
	shape := filepath.Join(shapesDir, c.Shape)
	spec, err := readSpec(shape)
	if err != nil {
		return err
	}
	dir := filepath.Join(filepath.Dir(b.file), c.Shape)
	if err := writeCheckpoint(dir, filepath.Join(shape, "config.json"), spec); err != nil {
		return err
	}
	kv := spec.KVBytesPerBlock(modelOptions(c.Weights), serverBlockKVs) * contextTokens / serverBlockKVs
	args := []string{"serve", "--host=127.0.0.1", "--port=0", "--log_level=info", "--log_format=json",
		"--model_name_or_path=" + dir, "--threads=" + strconv.Itoa(c.Threads), "--max_model_len=" + strconv.Itoa(contextTokens),
		"--max_num_seqs=" + strconv.Itoa(memorySeqs), "--kv_cache_memory=" + strconv.FormatInt(kv, 10),
		"--quantization_bit=" + strconv.Itoa(weightBits[c.Weights])}
	f := b.newResult(c, r)
	if r.server == serverMemory {
		err = b.serverMemory(ctx, &f, args)
	} else {
		err = b.serverStart(ctx, &f, args)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	b.finish(f)
	return nil
}

// serverStart starts the server once so that its file is cached, then once each round.
func (b *session) serverStart(ctx context.Context, f *result, args []string) error {
	start := func() (*bench.Process, error) { return bench.StartServer(ctx, b.pagoda, args) }
	p, err := start()
	if err != nil {
		return err
	}
	p.Stop()
	for round := range b.rounds {
		_, others, err := b.watch.sample(ctx, func() (float64, error) {
			if p, err = start(); err != nil {
				return 0, err
			}
			p.Stop()
			return p.ReadySeconds, nil
		})
		if err != nil {
			return err
		}
		f.ReadySeconds, f.ReadyCPUSeconds = append(f.ReadySeconds, p.ReadySeconds), append(f.ReadyCPUSeconds, p.CPUSeconds)
		f.Others = max(f.Others, others)
		b.say("%s %s, round %d, start: %.2f s, %.2f CPU s", f.Shape, f.Weights, round+1, p.ReadySeconds, p.CPUSeconds)
	}
	return nil
}

// serverMemory is the memory that the server has when as many sequences as may run at once have filled the KV cache.
func (b *session) serverMemory(ctx context.Context, f *result, args []string) error {
	p, err := bench.StartServer(ctx, b.pagoda, args)
	if err != nil {
		return err
	}
	defer p.Stop()
	errs := make([]error, memorySeqs)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = complete(ctx, p.URL, i) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	f.Bytes, f.PeakBytes = bench.RSS(p.Pid)
	f.WeightBytes, f.KVBytes = p.WeightBytes, p.KVBytes
	b.say("%s %s, memory: %d MiB, at most %d", f.Shape, f.Weights, f.Bytes>>20, f.PeakBytes>>20)
	return nil
}

// complete asks for an answer of full length to a prompt of token ids that begins unlike others.
func complete(ctx context.Context, url string, mark int) error {
	c := client.New(url, "")
	models, err := c.Models(ctx)
	if err != nil {
		return err
	}
	prompt := make([]int, memoryPrompt)
	for i := range prompt {
		prompt[i] = 100 + mark + i
	}
	got := 0
	body := map[string]any{"model": models[0], "prompt": prompt, "max_tokens": memoryGen, "temperature": 0, "ignore_eos": true,
		"stream": true, "stream_options": map[string]any{"include_usage": true}}
	for chunk, err := range c.Stream(ctx, "/completions", body) {
		if err != nil {
			return err
		}
		if chunk.Usage != nil {
			got = chunk.Usage.CompletionTokens
		}
	}
	if got != memoryGen {
		return fmt.Errorf("an answer of %d tokens, want %d", got, memoryGen)
	}
	return nil
}
