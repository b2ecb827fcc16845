package jinja_test

import (
	"os"
	"path/filepath"
	"testing"

	"pagoda/backends/native/jinja"
)

func BenchmarkRender(b *testing.B) {
	for _, c := range readCases(b, "families.json") {
		switch c.Name {
		case "chatml/turns", "chatml/tools", "llama/tools":
		default:
			continue
		}
		source, err := os.ReadFile(filepath.Join("testdata", "templates", c.File))
		if err != nil {
			b.Fatal(err)
		}
		template, err := jinja.Compile(string(source), jinja.Options{Now: clock})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := template.Render(c.Context); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
