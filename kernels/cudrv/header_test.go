package cudrv_test

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestHeader: constants, sizes and functions are those of a real cuda.h of CUDA 12, in the folder PAGODA_CUDA_INCLUDE.
func TestHeader(t *testing.T) {
	include := os.Getenv("PAGODA_CUDA_INCLUDE")
	if include == "" {
		t.Skip("PAGODA_CUDA_INCLUDE names no folder with a cuda.h of CUDA 12")
	}
	ours, err := os.ReadFile("libcuda/cuda.h")
	if err != nil {
		t.Fatal(err)
	}
	var print strings.Builder
	count := 0
	for _, m := range regexp.MustCompile(`(?m)^\t(CU\w+) = (-?\d+),$`).FindAllStringSubmatch(string(ours), -1) {
		print.WriteString("_Static_assert(" + m[1] + " == " + m[2] + ", \"" + m[1] + "\");\n")
		count++
	}
	if count < 250 {
		t.Fatalf("found %d constants", count)
	}
	// The types' sizes as our header has them are asserted with the real one.
	var sizes strings.Builder
	sizes.WriteString("#include \"cuda.h\"\n#include <stdio.h>\nint main(void) {\n")
	types := regexp.MustCompile(`(?m)^(?:typedef [^{]*?|\} )(\w+);$`).FindAllStringSubmatch(string(ours), -1)
	if len(types) < 60 {
		t.Fatalf("found %d types", len(types))
	}
	for _, m := range types {
		sizes.WriteString("printf(\"_Static_assert(sizeof(" + m[1] + ") == %zu, \\\"" + m[1] + "\\\");\\n\", sizeof(" + m[1] + "));\n")
	}
	sizes.WriteString("}\n")
	dir := t.TempDir()
	compile := func(source, out string, args ...string) {
		t.Helper()
		file := filepath.Join(dir, out+".c")
		if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		if msg, err := exec.Command(cmp.Or(os.Getenv("CC"), "cc"), append(args, "-o", filepath.Join(dir, out), file)...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", out, err, msg)
		}
	}
	compile(sizes.String(), "sizes", "-Ilibcuda")
	asserts, err := exec.Command(filepath.Join(dir, "sizes")).Output()
	if err != nil {
		t.Fatal(err)
	}
	functions, err := filepath.Abs("libcuda/functions.h")
	if err != nil {
		t.Fatal(err)
	}
	compile("#include <cuda.h>\n"+print.String()+string(asserts)+"#define FUNCTION(name, parameters) CUresult name parameters;\n#include \""+functions+"\"\n",
		"real", "-c", "-I", include)
}
