package server

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"pagoda/engine"
	"pagoda/engine/fake"
)

// gather returns the families by name.
func gather(t testing.TB, s *Server) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*dto.MetricFamily{}
	for _, f := range families {
		out[f.GetName()] = f
	}
	return out
}

func labels(m *dto.Metric) string {
	var out []string
	for _, l := range m.GetLabel() {
		out = append(out, l.GetName())
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// sampleOf is a counter's or gauge's value, or a histogram's count, of the first series whose label values contain want.
func sampleOf(t *testing.T, f *dto.MetricFamily, want ...string) float64 {
	t.Helper()
	for _, m := range f.GetMetric() {
		have := ""
		for _, l := range m.GetLabel() {
			have += l.GetName() + "=" + l.GetValue() + ";"
		}
		if slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(have, w+";") }) {
			continue
		}
		switch {
		case m.Counter != nil:
			return m.Counter.GetValue()
		case m.Gauge != nil:
			return m.Gauge.GetValue()
		}
		return float64(m.Histogram.GetSampleCount())
	}
	t.Fatalf("%s has no series %v", f.GetName(), want)
	return 0
}

// The names, types, labels and buckets that vLLM's dashboards and the gateways' endpoint pickers read.
func TestMetricNames(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	got := gather(t, s)
	common := "engine,model_name"
	lengths := "1 2 5 10 20 50 100 200 500 1000 2000"
	ttft := "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 20 40 80 160 640 2560"
	token := "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5 5 7.5 10 20 40 80"
	phase := "0.3 0.5 0.8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680"
	for _, tc := range []struct{ name, kind, labels, buckets string }{
		{"vllm:num_requests_running", "GAUGE", common, ""},
		{"vllm:num_requests_waiting", "GAUGE", common, ""},
		{"vllm:kv_cache_usage_perc", "GAUGE", common, ""},
		{"vllm:cache_config_info", "GAUGE", "block_size,cache_dtype,engine,model_name,num_gpu_blocks", ""},
		{"vllm:lora_requests_info", "GAUGE", "max_lora,running_lora_adapters,waiting_lora_adapters", ""},
		{"vllm:prefix_cache_queries_total", "COUNTER", common, ""},
		{"vllm:prefix_cache_hits_total", "COUNTER", common, ""},
		{"vllm:num_preemptions_total", "COUNTER", common, ""},
		{"vllm:spec_decode_num_drafts_total", "COUNTER", common, ""},
		{"vllm:spec_decode_num_draft_tokens_total", "COUNTER", common, ""},
		{"vllm:spec_decode_num_accepted_tokens_total", "COUNTER", common, ""},
		{"pagoda_spec_decode_num_accepted_tokens_total", "COUNTER", common, ""},
		{"vllm:prompt_tokens_total", "COUNTER", common, ""},
		{"vllm:prompt_tokens_cached_total", "COUNTER", common, ""},
		{"vllm:generation_tokens_total", "COUNTER", common, ""},
		{"vllm:request_success_total", "COUNTER", "engine,finished_reason,model_name", ""},
		{"vllm:request_prompt_tokens", "HISTOGRAM", common, lengths},
		{"vllm:request_generation_tokens", "HISTOGRAM", common, lengths},
		{"vllm:request_max_num_generation_tokens", "HISTOGRAM", common, lengths},
		{"vllm:request_params_max_tokens", "HISTOGRAM", common, lengths},
		{"vllm:request_params_n", "HISTOGRAM", common, "1 2 5 10 20"},
		{"vllm:iteration_tokens_total", "HISTOGRAM", common, "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384"},
		{"vllm:time_to_first_token_seconds", "HISTOGRAM", common, ttft},
		{"vllm:inter_token_latency_seconds", "HISTOGRAM", common, token},
		{"vllm:request_time_per_output_token_seconds", "HISTOGRAM", common, token},
		{"vllm:e2e_request_latency_seconds", "HISTOGRAM", common, phase},
		{"vllm:request_queue_time_seconds", "HISTOGRAM", common, phase},
		{"vllm:request_prefill_time_seconds", "HISTOGRAM", common, phase},
		{"vllm:request_decode_time_seconds", "HISTOGRAM", common, phase},
		{"vllm:request_inference_time_seconds", "HISTOGRAM", common, phase},
		{"pagoda_build_info", "GAUGE", "commit,go,version", ""},
		{"pagoda_ready", "GAUGE", "", ""},
		{"pagoda_http_in_flight", "GAUGE", "", ""},
		{"pagoda_requests_canceled_total", "COUNTER", "", ""},
		{"pagoda_errors_total", "COUNTER", "code", ""},
		{"go_goroutines", "GAUGE", "", ""},
		{"process_resident_memory_bytes", "GAUGE", "", ""},
	} {
		f := got[tc.name]
		if f == nil {
			t.Errorf("%s is missing", tc.name)
			continue
		}
		m := f.GetMetric()[0]
		var buckets []string
		for _, b := range m.GetHistogram().GetBucket() {
			buckets = append(buckets, strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64))
		}
		if f.GetType().String() != tc.kind || labels(m) != tc.labels || strings.Join(buckets, " ") != tc.buckets {
			t.Errorf("%s: %s {%s} %s", tc.name, f.GetType(), labels(m), buckets)
		}
	}
}

// Our own names follow Prometheus' rules; vLLM's are as they are.
func TestMetricLint(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	do(s.Handler(), "POST", chatPath, chatBody)
	families, err := s.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "vllm:") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestMetricValues(t *testing.T) {
	eng := fake.New()
	eng.StatList[0] = engine.Stats{Model: "fake", Waiting: 3, KVUsage: 0.25, NumBlocks: 64, BlockSize: 16, KVDType: "bfloat16",
		PrefixQueries: 100, PrefixHits: 40, Preemptions: 2, Steps: 6, StepTokens: []uint64{1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3},
		StepTokensSum: 70000, Drafts: 9, DraftTokens: 30, AcceptedTokens: 12, AcceptedAt: []uint64{7, 5}, MaxAdapters: 4, RunningAdapters: []string{"a", "b"}, WaitingAdapters: []string{"c"}}
	eng.Scripts["cut"] = fake.Fail(engine.Errorf(engine.Internal, "broken"), "He")
	eng.ModelList = append(eng.ModelList, engine.Model{ID: "cut", Parent: "fake", MaxLen: 100})
	s, _ := newTest(t, eng, Config{})
	post := func(body string) { do(s.Handler(), "POST", chatPath, body) }
	post(chatBody)
	post(strings.Replace(streamBody, `"fake"`, `"fake-adapter","n":2,"max_tokens":3`, 1))
	post(strings.Replace(chatBody, `"fake"`, `"cut"`, 1))
	post(strings.Replace(chatBody, `"fake"`, `"unknown"`, 1))
	got := gather(t, s)
	for _, tc := range []struct {
		name   string
		want   float64
		labels []string
	}{
		{"vllm:num_requests_waiting", 3, nil},
		{"vllm:kv_cache_usage_perc", 0.25, nil},
		{"vllm:cache_config_info", 1, []string{"block_size=16", "num_gpu_blocks=64", "cache_dtype=bfloat16"}},
		{"vllm:prefix_cache_queries_total", 100, nil},
		{"vllm:prefix_cache_hits_total", 40, nil},
		{"vllm:num_preemptions_total", 2, nil},
		{"vllm:iteration_tokens_total", 6, nil},
		{"vllm:spec_decode_num_drafts_total", 9, nil},
		{"vllm:spec_decode_num_draft_tokens_total", 30, nil},
		{"vllm:spec_decode_num_accepted_tokens_total", 12, nil},
		{"vllm:spec_decode_num_accepted_tokens_per_pos_total", 7, []string{"position=0"}},
		{"pagoda_spec_decode_num_drafts_total", 9, nil},
		{"pagoda_spec_decode_num_draft_tokens_total", 30, nil},
		{"pagoda_spec_decode_num_accepted_tokens_total", 12, nil},
		{"pagoda_spec_decode_num_accepted_tokens_per_pos_total", 5, []string{"position=1"}},
		{"vllm:generation_tokens_total", 6 + 2*3 + 2, []string{"model_name=fake"}},
		{"vllm:request_success_total", 1, []string{"finished_reason=stop"}},
		{"vllm:request_success_total", 2, []string{"finished_reason=length"}},
		{"vllm:request_success_total", 1, []string{"finished_reason=error"}},
		{"vllm:request_success_total", 0, []string{"finished_reason=abort"}},
		{"vllm:time_to_first_token_seconds", 3, nil},
		{"vllm:inter_token_latency_seconds", 1, nil}, // "Hello" + "!": the first event's tokens came together
		{"vllm:e2e_request_latency_seconds", 2, nil},
		{"vllm:request_params_n", 2, nil},
		{"vllm:request_params_max_tokens", 1, nil},
		{"vllm:request_generation_tokens", 3, nil},
		{"pagoda_model_requests_total", 1, []string{"model=fake-adapter"}},
		{"pagoda_errors_total", 1, []string{"code=internal"}},
		{"pagoda_errors_total", 1, []string{"code=not_found"}},
		{"pagoda_http_requests_total", 2, []string{"route=" + chatPath, "method=POST", "status=200"}},
		{"pagoda_http_requests_total", 1, []string{"status=404"}},
		{"pagoda_http_in_flight", 0, nil},
	} {
		if f := got[tc.name]; f == nil {
			t.Errorf("%s is missing", tc.name)
		} else if v := sampleOf(t, f, tc.labels...); v != tc.want {
			t.Errorf("%s%v = %v, want %v", tc.name, tc.labels, v, tc.want)
		}
	}
	lora := got["vllm:lora_requests_info"].GetMetric()[0]
	if text := fmt.Sprint(lora.GetLabel()); !strings.Contains(text, `"a,b"`) || !strings.Contains(text, `"4"`) ||
		!(lora.GetGauge().GetValue() > 1e9) {
		t.Error(text, lora.GetGauge().GetValue())
	}
	if h := got["vllm:iteration_tokens_total"].GetMetric()[0].GetHistogram(); h.GetBucket()[1].GetCumulativeCount() != 3 ||
		h.GetSampleSum() != 70000 {
		t.Error(h)
	}
}

func TestMetricLabelsAreBounded(t *testing.T) {
	s, _ := newTest(t, fake.New(), Config{})
	request := func(i int) {
		do(s.Handler(), "POST", chatPath, strings.Replace(chatBody, "fake", fmt.Sprint("model-", i), 1))
		do(s.Handler(), "GET", fmt.Sprint("/path/", i), "")
		do(s.Handler(), "GET", fmt.Sprint("/v1/models/", i), "")
		do(s.Handler(), fmt.Sprint("METHOD", i), "/v1/models", "")
	}
	count := func() int {
		n := 0
		for _, f := range gather(t, s) {
			n += len(f.GetMetric())
		}
		return n
	}
	request(0)
	before := count()
	for i := range 200 {
		request(i)
	}
	if after := count(); after != before {
		t.Errorf("%d series became %d", before, after)
	}
	for i := range 3 * maxModelLabels { // adapters that come and go
		s.metrics.countModel(fmt.Sprint("adapter-", i))
	}
	f := gather(t, s)["pagoda_model_requests_total"]
	if n := len(f.GetMetric()); n != maxModelLabels+1 {
		t.Errorf("%d series, want %d and other", n, maxModelLabels)
	}
	if v := sampleOf(t, f, "model=other"); v != 2*maxModelLabels {
		t.Errorf("other = %v", v)
	}
}

// Gateways scrape every 50 ms.
func BenchmarkScrape(b *testing.B) {
	s, _ := newTest(b, fake.New(), Config{})
	for range 100 {
		do(s.Handler(), "POST", chatPath, chatBody)
	}
	h, r := s.Handler(), httptest.NewRequest("GET", "http://localhost/metrics", nil)
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		b.SetBytes(int64(w.Body.Len()))
	}
}

// BenchmarkGenerate is the cost of the books per token.
func BenchmarkGenerate(b *testing.B) {
	eng := fake.New()
	eng.Scripts["fake"] = fake.Text(strings.Split(strings.Repeat("x", 1000), "")...)
	s, _ := newTest(b, eng, Config{})
	text := "p"
	for b.Loop() {
		r := httptest.NewRequest("POST", "/", nil)
		err := s.generate(r, 0, &engine.Request{Model: "fake", Text: &text}, func(*promptEvent) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/token")
}
