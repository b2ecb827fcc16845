package proxy

import (
	"bufio"
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the time series of all proxied models of a process. It is a prometheus.Collector.
type Metrics struct {
	requests *prometheus.CounterVec   // model, upstream, outcome
	retries  *prometheus.CounterVec   // model
	restarts *prometheus.CounterVec   // model
	first    *prometheus.HistogramVec // model, upstream

	mu      sync.Mutex // guards engines
	engines []*Engine
}

// The outcomes of a try.
const (
	outcomeOK       = "ok"
	outcomeRefused  = "refused"  // an error that is the request's own
	outcomeFailed   = "failed"   // an error of the upstream
	outcomeBroken   = "broken"   // the connection failed
	outcomeStalled  = "stalled"  // no sign of life
	outcomeCanceled = "canceled" // the client went away
)

// firstBuckets are vLLM's for the time to the first token.
var firstBuckets = []float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160}

var (
	upstreamLabels = []string{"model", "upstream"}

	descUp      = prometheus.NewDesc("pagoda_upstream_up", "1 while the upstream gets requests.", upstreamLabels, nil)
	descRunning = prometheus.NewDesc("pagoda_upstream_in_flight", "Requests at the upstream.", upstreamLabels, nil)
	descBreaker = prometheus.NewDesc("pagoda_upstream_breaker_open", "1 while the upstream's breaker refuses requests.",
		upstreamLabels, nil)
)

// NewMetrics makes an empty set.
func NewMetrics() *Metrics {
	return &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pagoda_upstream_requests_total",
			Help: "Tries of requests by how they ended: ok, refused, failed, broken, stalled, canceled."},
			[]string{"model", "upstream", "outcome"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pagoda_upstream_retries_total",
			Help: "Requests that were sent again because none of their answer had come."}, []string{"model"}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pagoda_upstream_restarts_total",
			Help: "Ends of a spawned server that nobody asked for."}, []string{"model"}),
		first: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "pagoda_upstream_first_event_seconds",
			Help: "From the sending of a try to the first piece of its answer.", Buckets: firstBuckets}, upstreamLabels),
	}
}

func (m *Metrics) add(e *Engine) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.engines = append(m.engines, e)
	m.retries.WithLabelValues(e.name)
	m.restarts.WithLabelValues(e.name)
}

func (m *Metrics) tried(model, upstream, outcome string) {
	m.requests.WithLabelValues(model, upstream, outcome).Inc()
}

// forget drops the series of an upstream that is gone.
func (m *Metrics) forget(model, upstream string) {
	labels := prometheus.Labels{"model": model, "upstream": upstream}
	m.requests.DeletePartialMatch(labels)
	m.first.DeletePartialMatch(labels)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range []prometheus.Collector{m.requests, m.retries, m.restarts, m.first} {
		c.Describe(ch)
	}
	ch <- descUp
	ch <- descRunning
	ch <- descBreaker
}

// Collect implements prometheus.Collector. It waits for no upstream.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{m.requests, m.retries, m.restarts, m.first} {
		c.Collect(ch)
	}
	m.mu.Lock()
	engines := m.engines
	m.mu.Unlock()
	for _, e := range engines {
		for _, r := range e.pool.list() {
			e.pool.mu.Lock()
			up, open := r.up, r.until.After(time.Now())
			e.pool.mu.Unlock()
			gauge := func(d *prometheus.Desc, v float64) {
				ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, e.name, r.id)
			}
			gauge(descUp, toFloat(up && !open))
			gauge(descBreaker, toFloat(open))
			gauge(descRunning, float64(r.running.Load()))
		}
	}
}

func toFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// scrape reads the upstream's own load and progress. An upstream without metrics keeps none.
func (r *replica) scrape(ctx context.Context) {
	if len(r.d.Progress) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.d.HealthTimeout)
	defer cancel()
	body, err := r.get(ctx, "/metrics")
	if err != nil {
		r.counters.Store(nil)
		return
	}
	sums := parseMetrics(body, append([]string{r.d.Running, r.d.Waiting, r.d.KVUsage}, r.d.Progress...))
	old := r.counters.Load()
	if old != nil {
		for _, name := range r.d.Progress {
			if sums[name] != (*old)[name] {
				r.alive()
			}
		}
	}
	r.counters.Store(&sums)
}

// load is a gauge of the upstream's as of the last look, 0 if it has none.
func (r *replica) load(name string) float64 {
	if sums := r.counters.Load(); sums != nil {
		return (*sums)[name]
	}
	return 0
}

// parseMetrics sums the series of each wanted name of the Prometheus text format.
func parseMetrics(text []byte, want []string) map[string]float64 {
	sums := make(map[string]float64, len(want))
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, len(text)+1)
	for lines.Scan() {
		line := lines.Text()
		for _, name := range want {
			rest, ok := strings.CutPrefix(line, name)
			if name == "" || !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
				continue
			}
			if i := strings.LastIndexByte(rest, '}'); i >= 0 {
				rest = rest[i+1:]
			}
			value, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				sums[name] += v
			}
			break
		}
	}
	return sums
}
