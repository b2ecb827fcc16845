//go:build unix

package model_test

import (
	"os/exec"
	"testing"
	"time"

	"pagoda/backends/native/model"
)

// BenchmarkBusy measures decode on a machine that is shared: steps of one sequence while nothing else runs, and beside
// as many busy processes as there are threads, in turns. Best run with -benchtime 1x.
func BenchmarkBusy(b *testing.B) {
	for _, m := range []struct {
		name string
		rig  func(b *testing.B) *rig
	}{
		{"demo", func(b *testing.B) *rig { return demoRig(b, "", model.Options{}) }},
		{"0.6B", dummyRig},
	} {
		b.Run(m.name, func(b *testing.B) {
			r := m.rig(b)
			batch := benchBatch(1, 1, 256)
			rate := func(during time.Duration) float64 {
				steps, start := 0, time.Now()
				for time.Since(start) < during {
					r.forward(batch)
					steps++
				}
				return float64(steps) / time.Since(start).Seconds()
			}
			rate(time.Second / 4)
			const turns = 3
			var quiet, busy float64
			for b.Loop() {
				for range turns {
					quiet += rate(time.Second)
					stop := spin(b, r.dev.Threads())
					time.Sleep(time.Second / 4) // the system spreads them over the processors
					busy += rate(2 * time.Second)
					stop()
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(quiet/turns/float64(b.N), "quiet-tok/s")
			b.ReportMetric(busy/turns/float64(b.N), "busy-tok/s")
			b.ReportMetric(busy/quiet, "busy/quiet")
		})
	}
}

// spin starts n processes that do nothing but compute, until stop is called.
func spin(b *testing.B, n int) (stop func()) {
	var all []*exec.Cmd
	stop = func() {
		for _, cmd := range all {
			_ = cmd.Process.Kill() // it has not ended by itself
			_ = cmd.Wait()
		}
		all = nil
	}
	b.Cleanup(stop)
	for range n {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		all = append(all, cmd)
	}
	return stop
}
