package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"

	"pagoda/backends/native/encoder"
	"pagoda/backends/native/model"
	"pagoda/bench"
	"pagoda/kernels"
)

// doctorCommand says what this machine can run and why not.
func doctorCommand() *cobra.Command {
	return &cobra.Command{Use: "doctor", Short: "what this machine can run and why not", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return doctor(os.Stdout) }}
}

func doctor(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("build", "%s", buildLine())
	row("cpu", "%s", cpuName())
	row("threads", "%s", threads())
	row("features", "%s", strings.Join(cpuFeatures(), " "))
	have := kernels.Variants()
	for _, v := range variants {
		switch at := slices.Index(have, v.name); {
		case at == 0:
			row("kernels "+v.name, "runs here, the default")
		case at > 0 && v.name == "avx512bf16":
			row("kernels "+v.name, "runs here; not the default, as Intel's bfloat16 dot products are the slower ones")
		case at > 0:
			row("kernels "+v.name, "runs here")
		default:
			row("kernels "+v.name, "not here: %s", v.lack())
		}
	}
	row("cuda", "%s", cuda())
	row("memory", "%s", memoryLine())
	row("huge pages", "%s", hugePages())
	row("models", "built in; checkpoints of %s", strings.Join(model.Architectures(), ", "))
	row("embedders", "those, and %s", strings.Join(encoder.Architectures(), ", "))
	return w.Flush()
}

// variant is a set of CPU kernels with what it needs.
type variant struct {
	name  string
	arch  string // "" is any
	needs []feature
}

type feature struct {
	name string
	has  bool
}

var variants = []variant{
	{"avx512bf16", "amd64", []feature{{"avx512f", cpu.X86.HasAVX512F}, {"avx512bw", cpu.X86.HasAVX512BW},
		{"avx512dq", cpu.X86.HasAVX512DQ}, {"avx512vl", cpu.X86.HasAVX512VL}, {"avx512_vnni", cpu.X86.HasAVX512VNNI},
		{"avx512_bf16", cpu.X86.HasAVX512BF16}}},
	{"avx512vnni", "amd64", []feature{{"avx512f", cpu.X86.HasAVX512F}, {"avx512bw", cpu.X86.HasAVX512BW},
		{"avx512dq", cpu.X86.HasAVX512DQ}, {"avx512vl", cpu.X86.HasAVX512VL}, {"avx512_vnni", cpu.X86.HasAVX512VNNI}}},
	{"avx512", "amd64", []feature{{"avx512f", cpu.X86.HasAVX512F}, {"avx512bw", cpu.X86.HasAVX512BW},
		{"avx512dq", cpu.X86.HasAVX512DQ}, {"avx512vl", cpu.X86.HasAVX512VL}}},
	{"avx2vnni", "amd64", []feature{{"avx2", cpu.X86.HasAVX2}, {"fma", cpu.X86.HasFMA}, {"avx_vnni", cpu.X86.HasAVXVNNI}}},
	{"avx2", "amd64", []feature{{"avx2", cpu.X86.HasAVX2}, {"fma", cpu.X86.HasFMA}}},
	{"neon", "arm64", nil},
	{"portable", "", nil},
	{"ref", "", nil},
}

// lack says why the variant does not run.
func (v variant) lack() string {
	if v.arch != "" && v.arch != runtime.GOARCH {
		return "it is for " + v.arch
	}
	var missing []string
	for _, f := range v.needs {
		if !f.has {
			missing = append(missing, f.name)
		}
	}
	if len(missing) == 0 {
		return "not in this build"
	}
	return "the CPU lacks " + strings.Join(missing, ", ")
}

// cpuFeatures lists what of the variants' needs this CPU has, and what later kernels may use.
func cpuFeatures() []string {
	all := []feature{{"avx512_vnni", cpu.X86.HasAVX512VNNI}, {"amx_tile", cpu.X86.HasAMXTile},
		{"amx_bf16", cpu.X86.HasAMXBF16}, {"asimd", cpu.ARM64.HasASIMD}, {"sve", cpu.ARM64.HasSVE}}
	for _, v := range variants {
		all = append(all, v.needs...)
	}
	var out []string
	for _, f := range all {
		if f.has {
			out = append(out, f.name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func cpuName() string { return cmp.Or(bench.CPUName(), runtime.GOARCH) }

func gib(bytes int64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30)) }

// threads says how many a CPU limit of the container or GOMAXPROCS leaves.
func threads() string {
	usable, all := runtime.GOMAXPROCS(0), runtime.NumCPU()
	switch {
	case usable == all:
		return fmt.Sprintf("%d, all that there are", all)
	case os.Getenv("GOMAXPROCS") != "":
		return fmt.Sprintf("%d of %d, as GOMAXPROCS says", usable, all)
	}
	return fmt.Sprintf("%d of %d: a CPU limit holds here, as in a container", usable, all)
}

func memoryLine() string {
	total := meminfo("MemTotal")
	limit := "no container's limit found"
	if n, err := memlimit.FromCgroup(); err == nil && (total == 0 || n < uint64(total)) {
		limit = "the container's limit is " + gib(int64(n))
	}
	available, _ := availableMemory()
	return fmt.Sprintf("%s for models, with KV cache and work buffers: %s free of %s, %s", gib(available), gib(meminfo("MemAvailable")),
		gib(total), limit)
}

// cuda says why no GPU is used.
func cuda() string {
	if found, _ := filepath.Glob("/dev/nvidia[0-9]*"); len(found) > 0 {
		return fmt.Sprintf("not in this build: the %d NVIDIA GPU(s) of this machine are not used", len(found))
	}
	return "not in this build, and no NVIDIA GPU is visible"
}

func hugePages() string {
	data, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil {
		return "not supported by this kernel"
	}
	mode := string(data)
	if i, j := strings.Index(mode, "["), strings.Index(mode, "]"); i >= 0 && j > i {
		mode = mode[i+1 : j]
	}
	switch mode {
	case "always", "madvise":
		return mode + ": used for weights and KV cache"
	}
	return mode + ": not used; weights are read up to a third slower"
}
