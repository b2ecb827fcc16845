package server

import (
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"pagoda/engine"
)

// maxModelLabels bounds the values of the label "model": adapters may come and go for ever, time series may not.
const maxModelLabels = 512

// metrics holds all time series, under two families of names: pagoda_ for what is ours, and the vllm: names with vLLM's
// types, labels and buckets, which dashboards and gateways (the inference extension's endpoint picker) read already.
type metrics struct {
	s        *Server
	registry *prometheus.Registry

	httpRequests *prometheus.CounterVec   // route, method, status
	httpDuration *prometheus.HistogramVec // route
	inFlight     prometheus.Gauge
	panics       prometheus.Counter
	canceled     prometheus.Counter
	errors       []prometheus.Counter   // by engine.Code
	modelReqs    *prometheus.CounterVec // model, "other" beyond the bound

	mu     sync.Mutex                    // guards all below
	http   map[httpKey]httpSeries        // children of httpRequests and httpDuration
	models map[string]*modelMetrics      // by base model
	reqs   map[string]prometheus.Counter // children of modelReqs
}

type httpKey struct {
	route, method string
	status        int
}

type httpSeries struct {
	requests prometheus.Counter
	duration prometheus.Observer
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		s:        s,
		registry: prometheus.NewRegistry(),
		httpRequests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pagoda_http_requests_total",
			Help: "HTTP requests by route pattern, method and status."}, []string{"route", "method", "status"}),
		httpDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "pagoda_http_request_duration_seconds",
			Help: "From the end of a request's headers to the end of its answer.", Buckets: latencyBuckets},
			[]string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pagoda_http_in_flight",
			Help: "HTTP requests being answered."}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{Name: "pagoda_panics_total",
			Help: "Requests ended by a bug of ours."}),
		canceled: prometheus.NewCounter(prometheus.CounterOpts{Name: "pagoda_requests_canceled_total",
			Help: "Generations whose client went away before the end."}),
		modelReqs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pagoda_model_requests_total",
			Help: "Generations by the model or adapter named in the request; \"other\" beyond a bound."},
			[]string{"model"}),
		http:   map[httpKey]httpSeries{},
		models: map[string]*modelMetrics{},
		reqs:   map[string]prometheus.Counter{},
	}
	errs := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pagoda_errors_total",
		Help: "Requests that failed, by kind."}, []string{"code"})
	for c := engine.Internal; c <= engine.Upstream; c++ {
		m.errors = append(m.errors, errs.WithLabelValues(codeName(c)))
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "pagoda_build_info", Help: "Always 1.",
		ConstLabels: prometheus.Labels{"version": s.cfg.Version, "commit": s.cfg.Commit, "go": runtime.Version()}})
	build.Set(1)
	ready := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "pagoda_ready", Help: "1 while /ready answers 200."},
		func() float64 {
			if s.isReady() {
				return 1
			}
			return 0
		})
	m.registry.MustRegister(m.httpRequests, m.httpDuration, m.inFlight, m.panics, m.canceled, m.modelReqs, errs, build,
		ready, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(s.cfg.Collectors...)
	if st, ok := s.eng.(engine.Statser); ok {
		m.registry.MustRegister(&loadCollector{st})
	}
	for _, model := range s.eng.Models() {
		m.model(model.ID) // a scrape before the first request shows zeros, not gaps
	}
	return m
}

// handler serves the text format uncompressed: gateways scrape many times a second from nearby.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{DisableCompression: true})
}

func (m *metrics) request(route, method string, status int, took time.Duration) {
	s := m.httpSeries(httpKey{route, method, status})
	s.requests.Inc()
	s.duration.Observe(took.Seconds())
}

func (m *metrics) httpSeries(key httpKey) httpSeries {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.http[key]
	if !ok {
		s = httpSeries{m.httpRequests.WithLabelValues(key.route, key.method, strconv.Itoa(key.status)), m.httpDuration.WithLabelValues(key.route)}
		m.http[key] = s
	}
	return s
}

func (m *metrics) failed(c engine.Code) {
	if c < 0 || int(c) >= len(m.errors) {
		c = engine.Internal
	}
	m.errors[c].Inc()
}

// model returns the series of the base model that serves id, nil if id is not served: a client cannot make series up.
func (m *metrics) model(id string) *modelMetrics {
	m.mu.Lock()
	mm := m.models[id]
	m.mu.Unlock()
	if mm != nil { // base models stay, unlike adapters
		return mm
	}
	base, found := findBase(m.s.eng.Models(), id)
	if !found {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	mm = m.models[base.ID]
	if mm == nil {
		mm = newModelMetrics(base)
		m.registry.MustRegister(mm)
		m.models[base.ID] = mm
	}
	return mm
}

// findBase finds the base model of id, which may be an adapter.
func findBase(models []engine.Model, id string) (engine.Model, bool) {
	for i := range models {
		if models[i].ID != id {
			continue
		}
		if models[i].Parent == "" {
			return models[i], true
		}
		for j := range models {
			if models[j].ID == models[i].Parent {
				return models[j], true
			}
		}
		return models[i], true // an adapter whose base is not served itself
	}
	return engine.Model{}, false
}

// countModel counts a generation under the model's or adapter's own name.
func (m *metrics) countModel(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.reqs[id]
	if c == nil {
		label := id
		if len(m.reqs) >= maxModelLabels {
			label = "other"
		}
		c = m.modelReqs.WithLabelValues(label)
		if label != "other" {
			m.reqs[id] = c
		}
	}
	c.Inc()
}

// modelMetrics are one base model's request series, held as children so that no label is looked up on the way of a
// token. It is a prometheus.Collector.
type modelMetrics struct {
	all []prometheus.Collector

	promptTokens, cachedTokens, generationTokens prometheus.Counter
	success                                      map[string]prometheus.Counter // by finished_reason

	promptHist, generationHist, maxGenerationHist, paramN, paramMaxTokens prometheus.Histogram
	ttft, itl, perToken                                                   prometheus.Histogram
	e2e, queue, prefill, decode, inference                                prometheus.Histogram
}

// vLLM's buckets.
var (
	ttftBuckets = []float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
		640, 2560}
	tokenBuckets = []float64{.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}
	phaseBuckets = []float64{.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}
	nBuckets     = []float64{1, 2, 5, 10, 20}
)

// latencyBuckets suit everything from /version to a long stream.
var latencyBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}

// finishedReasons are vLLM's values. A choice that ends in tool calls counts as a stop, as there.
var finishedReasons = []string{"stop", "length", "abort", "error", "repetition"}

// seriesBuckets is 1, 2, 5, 10, 20, 50 ... up to limit.
func seriesBuckets(limit int) []float64 {
	out := []float64{1}
	for decade := 1.0; ; decade *= 10 {
		for _, mantissa := range []float64{1, 2, 5} {
			if b := mantissa * decade; b > float64(limit) {
				return out
			} else if b > 1 {
				out = append(out, b)
			}
		}
	}
}

func newModelMetrics(model engine.Model) *modelMetrics {
	labels := prometheus.Labels{"model_name": model.ID, "engine": "0"}
	mm := &modelMetrics{success: map[string]prometheus.Counter{}}
	counter := func(name, help string, more ...string) prometheus.Counter {
		l := prometheus.Labels{"model_name": model.ID, "engine": "0"}
		for i := 0; i < len(more); i += 2 {
			l[more[i]] = more[i+1]
		}
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "vllm:" + name, Help: help, ConstLabels: l})
		mm.all = append(mm.all, c)
		return c
	}
	hist := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "vllm:" + name, Help: help, Buckets: buckets,
			ConstLabels: labels})
		mm.all = append(mm.all, h)
		return h
	}
	lengths := seriesBuckets(model.MaxLen)

	mm.promptTokens = counter("prompt_tokens_total", "Prompt tokens of requests that began.")
	mm.cachedTokens = counter("prompt_tokens_cached_total", "Prompt tokens found in the prefix cache.")
	mm.generationTokens = counter("generation_tokens_total", "Tokens generated.")
	for _, reason := range finishedReasons {
		mm.success[reason] = counter("request_success_total", "Choices that ended, by reason.", "finished_reason", reason)
	}
	mm.promptHist = hist("request_prompt_tokens", "Prompt tokens of a request.", lengths)
	mm.generationHist = hist("request_generation_tokens", "Tokens generated for a choice.", lengths)
	mm.maxGenerationHist = hist("request_max_num_generation_tokens", "Tokens of a request's longest choice.", lengths)
	mm.paramN = hist("request_params_n", "Choices asked for.", nBuckets)
	mm.paramMaxTokens = hist("request_params_max_tokens", "Most tokens asked for.", lengths)
	mm.ttft = hist("time_to_first_token_seconds", "From a request's arrival to its first token.", ttftBuckets)
	mm.itl = hist("inter_token_latency_seconds", "Between two tokens of a choice.", tokenBuckets)
	mm.perToken = hist("request_time_per_output_token_seconds", "Mean time of a request's tokens after the first.",
		tokenBuckets)
	mm.e2e = hist("e2e_request_latency_seconds", "From a request's arrival to its end.", phaseBuckets)
	mm.queue = hist("request_queue_time_seconds", "From a request's arrival to its first step.", phaseBuckets)
	mm.prefill = hist("request_prefill_time_seconds", "From a request's first step to its first token.", phaseBuckets)
	mm.decode = hist("request_decode_time_seconds", "From a request's first token to its end.", phaseBuckets)
	mm.inference = hist("request_inference_time_seconds", "From a request's first step to its end.", phaseBuckets)
	return mm
}

// Describe implements prometheus.Collector.
func (mm *modelMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range mm.all {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (mm *modelMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range mm.all {
		c.Collect(ch)
	}
}

// loadCollector reads the engine's load at the moment of a scrape. Stats never waits for a step, so neither does this.
type loadCollector struct{ eng engine.Statser }

var (
	modelLabels = []string{"model_name", "engine"}

	descRunning = prometheus.NewDesc("vllm:num_requests_running", "Sequences in the running batch.", modelLabels, nil)
	descWaiting = prometheus.NewDesc("vllm:num_requests_waiting", "Sequences waiting for admission.", modelLabels, nil)
	descKVUsage = prometheus.NewDesc("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.", modelLabels, nil)
	descCache   = prometheus.NewDesc("vllm:cache_config_info", "Always 1.",
		[]string{"model_name", "engine", "block_size", "num_gpu_blocks", "cache_dtype"}, nil)
	descAdapters = prometheus.NewDesc("vllm:lora_requests_info", "Unix time; adapters in use are in the labels.",
		[]string{"max_lora", "running_lora_adapters", "waiting_lora_adapters"}, nil)
	descQueries     = prometheus.NewDesc("vllm:prefix_cache_queries_total", "Tokens looked up in the prefix cache.", modelLabels, nil)
	descHits        = prometheus.NewDesc("vllm:prefix_cache_hits_total", "Tokens found in the prefix cache.", modelLabels, nil)
	descPreemptions = prometheus.NewDesc("vllm:num_preemptions_total", "Sequences that lost their blocks and waited again.", modelLabels, nil)
	descStepTokens  = prometheus.NewDesc("vllm:iteration_tokens_total", "Tokens computed in one step.", modelLabels, nil)
	descComputed    = prometheus.NewDesc("pagoda_prompt_tokens_computed_total", "Prompt tokens computed.", modelLabels, nil)
	descSteps       = prometheus.NewDesc("pagoda_steps_total", "Steps of the running batch.", modelLabels, nil)

	descDrafts      = newSpecDescs("num_drafts_total", "Guesses at what an answer says next.")
	descDraftTokens = newSpecDescs("num_draft_tokens_total", "Tokens guessed ahead.")
	descAccepted    = newSpecDescs("num_accepted_tokens_total", "Tokens guessed ahead that were right.")
	descAcceptedAt  = newSpecDescs("num_accepted_tokens_per_pos_total", "The same by place in the guess, from 0.", "position")
)

// newSpecDescs are the names of one figure of speculative decoding in both families.
func newSpecDescs(name, help string, more ...string) [2]*prometheus.Desc {
	labels := append(slices.Clone(modelLabels), more...)
	return [2]*prometheus.Desc{prometheus.NewDesc("pagoda_spec_decode_"+name, help, labels, nil),
		prometheus.NewDesc("vllm:spec_decode_"+name, help, labels, nil)}
}

// Describe implements prometheus.Collector.
func (c *loadCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, both := range [][2]*prometheus.Desc{descDrafts, descDraftTokens, descAccepted, descAcceptedAt} {
		ch <- both[0]
		ch <- both[1]
	}
	for _, d := range []*prometheus.Desc{descRunning, descWaiting, descKVUsage, descCache, descAdapters, descQueries,
		descHits, descPreemptions, descStepTokens, descComputed, descSteps} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *loadCollector) Collect(ch chan<- prometheus.Metric) {
	var maxAdapters int
	var running, waiting []string
	for _, st := range c.eng.Stats() {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, st.Model, "0")
		}
		counter := func(d *prometheus.Desc, v uint64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), st.Model, "0")
		}
		gauge(descRunning, float64(st.Running))
		gauge(descWaiting, float64(st.Waiting))
		gauge(descKVUsage, st.KVUsage)
		counter(descQueries, st.PrefixQueries)
		counter(descHits, st.PrefixHits)
		counter(descPreemptions, st.Preemptions)
		counter(descComputed, st.ComputedTokens)
		counter(descSteps, st.Steps)
		counters := func(both [2]*prometheus.Desc, v uint64, labels ...string) {
			for _, d := range both {
				ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v),
					append([]string{st.Model, "0"}, labels...)...)
			}
		}
		counters(descDrafts, st.Drafts)
		counters(descDraftTokens, st.DraftTokens)
		counters(descAccepted, st.AcceptedTokens)
		for i, n := range st.AcceptedAt {
			counters(descAcceptedAt, n, strconv.Itoa(i))
		}
		ch <- prometheus.MustNewConstMetric(descCache, prometheus.GaugeValue, 1, st.Model, "0",
			strconv.Itoa(st.BlockSize), strconv.Itoa(st.NumBlocks), st.KVDType)
		buckets, steps := stepBuckets(st.StepTokens)
		ch <- prometheus.MustNewConstHistogram(descStepTokens, steps, float64(st.StepTokensSum), buckets, st.Model, "0")
		maxAdapters += st.MaxAdapters
		running, waiting = append(running, st.RunningAdapters...), append(waiting, st.WaitingAdapters...)
	}
	ch <- prometheus.MustNewConstMetric(descAdapters, prometheus.GaugeValue, float64(time.Now().UnixNano())/1e9,
		strconv.Itoa(maxAdapters), strings.Join(running, ","), strings.Join(waiting, ","))
}

// stepBuckets turns counts per bucket into Prometheus' cumulative ones, and their total.
func stepBuckets(counts []uint64) (map[float64]uint64, uint64) {
	out, sum := make(map[float64]uint64, len(engine.StepTokenBounds)), uint64(0)
	for i, bound := range engine.StepTokenBounds {
		if i < len(counts) {
			sum += counts[i]
		}
		out[bound] = sum
	}
	if n := len(engine.StepTokenBounds); n < len(counts) {
		sum += counts[n]
	}
	return out, sum
}

// observeBetween observes the time from a to b, if both were reached.
func observeBetween(h prometheus.Histogram, a, b time.Time) {
	if !a.IsZero() && !b.IsZero() {
		h.Observe(b.Sub(a).Seconds())
	}
}
