package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"pagoda/backends/native"
	"pagoda/backends/proxy"
	"pagoda/config"
	"pagoda/engine"
	"pagoda/lost"
	"pagoda/server"
)

// serve listens first, so that probes get an answer while the model loads, and is ready when the model answers.
func serve(cfg *config.Result) error {
	start := time.Now()
	log, err := newLogger(&cfg.Config)
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings {
		log.Warn().Msg(w)
	}
	tuneRuntime(log)
	keys, err := cfg.Keys()
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	// Who reads the log may end before us: its lines are lost then, and nothing else. Ignored, the signal would be to our children too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	router := &engine.Router{}
	upstreams := proxy.NewMetrics()
	models := []config.Config{cfg.Config}
	if len(cfg.Models) > 0 {
		models = models[:0]
		for _, m := range cfg.Models {
			models = append(models, m.Config)
		}
	}
	web := serverConfig(&cfg.Config, keys)
	if web.ForwardRoutes = forwardRoutes(models); slices.ContainsFunc(models, func(m config.Config) bool { return m.Proxied() }) {
		web.Collectors = append(web.Collectors, upstreams)
	}
	srv, err := server.New(router, web, log)
	if err != nil {
		return err
	}
	l, err := listen(cfg.Address(), cfg.WriteTimeout)
	if err != nil {
		return err
	}
	log.Info().Str("url", baseURL(l.Addr())).Str("version", version).Msg("listening, loading the model")
	if len(keys) == 0 && !isLoopback(l.Addr()) {
		log.Warn().Msg("no api_key is set: everybody who reaches this address may use the model")
	}

	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	go stopOnSignal(signals, stop, log)
	go func() {
		made, err := addModels(ctx, router, models, upstreams, log)
		if err == nil && !cfg.AllowRuntimeLoRAUpdating { // else it may come
			err = checkDefaultModel(cfg.DefaultModel, router.Models())
		}
		if err != nil {
			stop(err)
			return
		}
		srv.SetReady(true)
		logReady(log, router, made, l.Addr(), time.Since(start))
	}()
	// A load that is still going on when Run returns ends with the process.
	runErr := srv.Run(ctx, l, cfg.DrainTimeout)
	stop(nil) // in case Run ended by itself
	if err := context.Cause(ctx); err != context.Canceled {
		return err // of the load
	}
	return runErr
}

// checkDefaultModel reports a default_model that there is not.
func checkDefaultModel(name string, models []engine.Model) error {
	var ids []string
	for _, m := range models {
		ids = append(ids, m.ID)
	}
	if name == "" || slices.Contains(ids, name) {
		return nil
	}
	return fmt.Errorf("default_model: there is no model or adapter %q, only %s", name, strings.Join(ids, ", "))
}

// listen gives up clients that acknowledge nothing for that long, so that nothing is computed for those that are gone without a word.
func listen(address string, silence time.Duration) (net.Listener, error) {
	c := net.ListenConfig{Control: lost.Control(silence), KeepAliveConfig: lost.KeepAlive(silence)}
	c.SetMultipathTCP(false)
	return c.Listen(context.Background(), "tcp", address)
}

// addModels adds the models one after another. Of several, those at running servers do not wait for these: one that is down
// must not keep the others away. made adds to the log what a single one is; of several each has a line of its own.
func addModels(ctx context.Context, router *engine.Router, models []config.Config, upstreams *proxy.Metrics, log zerolog.Logger) (
	made func(*zerolog.Event), err error) {
	mem := newMemoryBudget()
	for i := range models {
		before := len(router.Models())
		if made, err = addModel(ctx, router, &models[i], len(models) > 1, mem, upstreams, log); err != nil {
			if len(models) > 1 {
				err = fmt.Errorf("models[%d]: %w", i, err)
			}
			return nil, err
		}
		if len(models) > 1 {
			ev := log.Info().Str("model", router.Models()[before].ID)
			made(ev)
			ev.Msg("loaded")
			made = func(*zerolog.Event) {}
		}
	}
	return made, nil
}

// addModel loads the model, or connects to its upstream, and puts it behind the router. made adds to the log what it is.
func addModel(ctx context.Context, router *engine.Router, cfg *config.Config, noWait bool, mem *memoryBudget, upstreams *proxy.Metrics,
	log zerolog.Logger) (made func(*zerolog.Event), err error) {
	var eng engine.Engine
	isEncoder := false
	if !cfg.Proxied() {
		own := *cfg // which findModel changes
		cfg = &own
		if err := findModel(ctx, cfg, log); err != nil {
			return nil, err
		}
		if isEncoder, err = servesEncoder(cfg); err != nil {
			return nil, err
		}
	}
	if isEncoder {
		eng, err = loadEncoder(cfg, mem, log)
		made = func(ev *zerolog.Event) { ev.Str("device", "cpu").Bool("encoder", true) }
	} else if cfg.Proxied() {
		eng, err = connect(ctx, cfg, noWait, upstreams, log)
		made = func(ev *zerolog.Event) { ev.Str("backend", cfg.InferBackend) }
	} else {
		var own *native.Engine
		if own, err = loadModel(ctx, cfg, mem, log); err == nil {
			eng, made = own, func(ev *zerolog.Event) { logNative(ev, own) }
		}
	}
	if err != nil {
		return nil, err
	}
	if err := router.Add(eng); err != nil { // stopped meanwhile
		_ = eng.Close(ctx)
		return nil, err
	}
	return made, nil
}

func serverConfig(cfg *config.Config, keys []string) server.Config {
	return server.Config{
		Keys: keys, DefaultModel: cfg.DefaultModel, RootPath: cfg.RootPath, AllowedHosts: cfg.AllowedHosts, CORSOrigins: cfg.CORSOrigins, UnknownFields: cfg.UnknownFields,
		MaxBodyBytes: cfg.MaxBodyBytes, MaxHeaderBytes: int(cfg.MaxHeaderBytes), MaxN: cfg.MaxN,
		RequestTimeout: cfg.RequestTimeout, WriteTimeout: cfg.WriteTimeout,
		AdapterUpdates: cfg.AllowRuntimeLoRAUpdating,
		Version:        version, Commit: commit, AccessLog: cfg.AccessLog,
	}
}

// forwardRoutes are none without an upstream.
func forwardRoutes(models []config.Config) (routes []string) {
	for _, m := range models {
		for _, r := range m.UpstreamRoutes {
			if m.Proxied() && !slices.Contains(routes, r) {
				routes = append(routes, r)
			}
		}
	}
	return routes
}

// stopOnSignal drains on the first SIGINT or SIGTERM and ends the process on the second.
func stopOnSignal(signals <-chan os.Signal, stop context.CancelCauseFunc, log zerolog.Logger) {
	log.Info().Stringer("signal", <-signals).Msg("stopping; a second signal stops at once")
	stop(nil)
	<-signals
	os.Exit(1)
}

// logReady is the line that says what is served and how.
func logReady(log zerolog.Logger, router *engine.Router, made func(*zerolog.Event), addr net.Addr, took time.Duration) {
	var models, adapters []string
	maxLen := 0
	for _, m := range router.Models() {
		if m.Parent != "" {
			adapters = append(adapters, m.ID)
			continue
		}
		models, maxLen = append(models, m.ID), m.MaxLen
	}
	ev := log.Info().Str("url", baseURL(addr)).Str("model", strings.Join(models, ", ")).Strs("adapters", adapters).
		Int("max_model_len", maxLen)
	made(ev)
	ev.Dur("ready_ms", took).Msg("ready")
}

// logNative adds what the native engine computes with.
func logNative(ev *zerolog.Event, eng *native.Engine) {
	f := eng.Footprint()
	ev.Str("device", "cpu").Str("kernels", f.Variant).Int("threads", f.Threads).
		Str("dtype", f.DType).Str("weights", f.Weights).Int64("weight_bytes", f.WeightBytes).Int64("kv_bytes", f.KVBytes).
		Int64("other_bytes", f.OtherBytes)
	for _, s := range eng.Stats() {
		ev.Str("kv_dtype", s.KVDType).Int("kv_blocks", s.NumBlocks).Int("kv_tokens", s.NumBlocks*s.BlockSize)
	}
}

// baseURL is the address as a browser on this machine takes it.
func baseURL(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return fmt.Sprintf("http://%s", net.JoinHostPort(host, port))
}

func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
