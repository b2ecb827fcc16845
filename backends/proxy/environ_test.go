package proxy

import (
	"slices"
	"testing"
)

func TestCleanEnviron(t *testing.T) {
	got := cleanEnviron([]string{"PATH=/bin", "HOME=/h", "HF_TOKEN=t", "CUDA_VISIBLE_DEVICES=0", "VLLM_CACHE_ROOT=/c", "LC_ALL=C",
		"VLLM_PORT=tcp://10.0.0.1:8000", "VLLM_PORT_8000_TCP=x", "VLLM_SERVICE_HOST=x", "VLLM_API_KEY=old", "PROMETHEUS_MULTIPROC_DIR=/d",
		"PAGODA_API_KEY=secret", "API_KEY=secret", "AWS_SECRET_ACCESS_KEY=secret", "SGLANG_PORT=1", "SGLANG_USE_MODELSCOPE=1", "PATHS=/x"})
	want := []string{"PATH=/bin", "HOME=/h", "HF_TOKEN=t", "CUDA_VISIBLE_DEVICES=0", "VLLM_CACHE_ROOT=/c", "LC_ALL=C", "SGLANG_USE_MODELSCOPE=1"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
