package main

import (
	"context"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"pagoda/config"
	"pagoda/engine"
)

// TestModelsShareMemory: what a model took, written to or not, the next one has not.
func TestModelsShareMemory(t *testing.T) {
	mem := newMemoryBudget()
	before, of := mem.left()
	if before < 64<<20 || mem.start < before || of != mem.of {
		t.Fatalf("%d bytes (%s) of %+v", before, of, mem)
	}
	mem.start = 100 << 20 // as if there were no more
	load := func(name string) error {
		cfg := config.Defaults()
		cfg.ServedModelName, cfg.KVCacheMemory = name, 48<<20
		router := &engine.Router{}
		defer router.Close(context.Background())
		_, err := addModel(context.Background(), router, &cfg, false, mem, nil, zerolog.Nop())
		return err
	}
	if err := load("first"); err != nil {
		t.Fatal(err)
	}
	if left, of := mem.left(); left > 52<<20 || left != mem.start-mem.taken || !strings.Contains(of, "MiB of the models before") {
		t.Errorf("%d bytes are left (%s)", left, of)
	}
	if err := load("second"); err == nil || !strings.Contains(err.Error(), "of the models before") || !strings.Contains(err.Error(), "kv_cache_memory: ") {
		t.Errorf("a second one: %v", err)
	}
}
