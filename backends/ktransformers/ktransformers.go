// Package ktransformers is KTransformers in its present form: kt-kernel's expert kernels for the CPU inside of an SGLang
// server (kt-kernel 0.7 with sglang-kt), so SGLang with a further group of flags. The older server of its own, with
// injection rules, was archived in 2026 and is not supported.
package ktransformers

import (
	"strconv"

	"pagoda/backends/proxy"
	"pagoda/backends/sglang"
)

// Dialect is SGLang's.
func Dialect() *proxy.Dialect {
	d := sglang.Dialect()
	d.Name, d.Title = "ktransformers", "KTransformers"
	return d
}

// Spawn is how to start it.
func Spawn(o proxy.ServerOptions) (*proxy.Spawn, error) { return sglang.SpawnWith(o, Flags(o)) }

// Flags adds those of kt-kernel.
func Flags(o proxy.ServerOptions) func(f *proxy.Flags) {
	return func(f *proxy.Flags) {
		kt := o.KT
		weights := kt.WeightPath
		if weights == "" {
			weights = o.Model // the kernels read native precision from the checkpoint itself
		}
		f.Set("--kt-weight-path", weights)
		f.SetText("--kt-method", kt.Method)
		f.SetInt("--kt-cpuinfer", kt.CPUInfer)
		f.SetInt("--kt-threadpool-count", kt.ThreadPools)
		if kt.GPUExperts >= 0 {
			f.Set("--kt-num-gpu-experts", strconv.Itoa(kt.GPUExperts))
		}
		f.SetInt("--chunked-prefill-size", kt.ChunkSize)
		f.SetBool("--disable-cuda-graph", kt.CUDAGraphsOff)
	}
}
