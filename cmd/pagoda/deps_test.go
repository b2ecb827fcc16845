package main

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// row says what one of our packages may depend on, directly or not.
type row struct {
	deps  string // packages of ours, without the module's name; "*" is all
	never string // imports that the package itself must not have
}

// arrows says who may depend on whom. Every package has a row; imports "C" only where cgo is set.
var arrows = map[string]row{
	"engine":                      {never: "net/http"},
	"engine/fake":                 {deps: "engine", never: "net/http"},
	"openapi":                     {},
	"jsonstring":                  {},
	"rawconn":                     {never: "net/http"},
	"spelling":                    {},
	"lost":                        {},
	"server":                      {deps: "engine jsonstring openapi rawconn server/http1"},
	"server/http1":                {deps: "rawconn"},
	"hub":                         {},
	"config":                      {deps: "spelling", never: "net/http"},
	"checkpoint":                  {deps: "spelling", never: "net/http"},
	"ffi":                         {never: "net/http"},
	"kernels":                     {deps: "quant", never: "net/http"},
	"kernels/cudrv":               {never: "net/http"},
	"kernels/cuda":                {deps: "kernels/cudrv", never: "net/http"},
	"quant":                       {never: "net/http"},
	"models/demo":                 {never: "net/http"},
	"backends/native/sched":       {deps: "backends/native/kvcache backends/native/sample", never: "time net/http"},
	"backends/native/kvcache":     {deps: "backends/native/sched backends/native/sample", never: "time net/http"},
	"backends/native/sample":      {deps: "backends/native/sched backends/native/kvcache", never: "time net/http"},
	"backends/native/draft":       {never: "time net/http"},
	"backends/native/token":       {deps: "ffi", never: "net/http"},
	"backends/native/chat":        {deps: "engine ffi backends/native/token backends/native/jinja", never: "net/http"},
	"backends/native/jinja":       {never: "net/http"},
	"backends/native/template":    {deps: "backends/native/jinja", never: "net/http"},
	"backends/native/codec":       {deps: "engine ffi checkpoint backends/native/chat backends/native/jinja backends/native/template backends/native/token spelling", never: "net/http"},
	"backends/native/model":       {deps: "kernels quant checkpoint spelling", never: "net/http"},
	"backends/native/adapter":     {deps: "backends/native/model kernels quant checkpoint spelling", never: "net/http"},
	"backends/native/encoder":     {deps: "engine backends/native/chat backends/native/jinja backends/native/model backends/native/token kernels quant checkpoint ffi spelling", never: "net/http"},
	"backends/native":             {deps: "engine backends/native/... kernels quant checkpoint ffi spelling", never: "net/http"},
	"backends/proxy":              {deps: "engine jsonstring lost rawconn"},
	"backends/proxy/fakeupstream": {},
	"backends/vllm":               {deps: "engine jsonstring lost rawconn backends/proxy", never: "net/http"},
	"backends/sglang":             {deps: "engine jsonstring lost rawconn backends/proxy", never: "net/http"},
	"backends/ktransformers":      {deps: "engine jsonstring lost rawconn backends/proxy backends/sglang", never: "net/http"},
	"backends/templated":          {deps: "engine jsonstring lost rawconn ffi checkpoint backends/proxy backends/native/codec backends/native/chat backends/native/jinja backends/native/template backends/native/token spelling", never: "net/http"},
	"client":                      {},
	"bench":                       {deps: "engine client"},
	"bench/cpu":                   {deps: "bench client engine backends/native/model kernels quant checkpoint spelling"},
	"bench/proxy":                 {deps: "bench client engine"},
	"cmd/pagoda":                  {deps: "*"},
	"test/summary":                {},
	"test/blackbox":               {deps: "*"},
	"test/fakeupstream":           {deps: "backends/proxy/fakeupstream"},
}

// usesCgo are the only packages with import "C".
var usesCgo = []string{"kernels", "kernels/cudrv", "ffi"}

// pure are the packages that start no goroutine.
var pure = []string{"backends/native/sched", "backends/native/kvcache", "backends/native/sample", "backends/native/draft"}

type goPackage struct {
	Dir, ImportPath string
	GoFiles         []string
	Imports, Deps   []string
}

const module = "pagoda/"

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-tags=cuda", "-json=Dir,ImportPath,GoFiles,Imports,Deps", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func (r row) allows(dep string) bool {
	for _, pattern := range strings.Fields(r.deps) {
		prefix, isTree := strings.CutSuffix(pattern, "...")
		if pattern == "*" || pattern == dep || (isTree && strings.HasPrefix(dep, prefix)) {
			return true
		}
	}
	return false
}

func TestArrows(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		r, ok := arrows[name]
		if !ok {
			t.Errorf("%s has no row in the table", name)
			continue
		}
		for _, dep := range p.Deps {
			if ours, ok := strings.CutPrefix(dep, module); ok && !r.allows(ours) {
				t.Errorf("%s must not depend on %s", name, ours)
			}
		}
		for _, imp := range p.Imports {
			if slices.Contains(strings.Fields(r.never), imp) {
				t.Errorf("%s must not import %s", name, imp)
			}
			if imp == "C" && !slices.Contains(usesCgo, name) {
				t.Errorf("%s must not use cgo", name)
			}
		}
		if slices.Contains(pure, name) {
			noGoStatements(t, p)
		}
	}
}

// noGoStatements: the scheduler and its neighbours are functions of their inputs.
func noGoStatements(t *testing.T, p goPackage) {
	t.Helper()
	for _, f := range p.GoFiles {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, filepath.Join(p.Dir, f), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s: a go statement", fset.Position(g.Pos()))
			}
			return true
		})
	}
}
