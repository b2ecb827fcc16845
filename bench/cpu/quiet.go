package main

import (
	"context"
	"os"
	"os/exec"
	"time"

	"pagoda/bench"
)

const (
	disturbed   = 0.1                    // CPUs used by others from which a sample does not count
	quietWindow = 300 * time.Millisecond // that the machine must have been quiet before a sample
)

// watch takes samples when the machine is quiet.
type watch struct {
	wait  time.Duration // at most, for quiet
	tries int           // of a sample, at most
	clock clock
}

// clock starts to count and returns the CPUs that others than this process and the children used since.
type clock func(children ...int) (others func() float64)

func machineClock(children ...int) (others func() float64) {
	c := bench.StartCPUClock(children...)
	return func() float64 {
		if used := c.Others(); used != nil {
			return *used
		}
		return 0 // not every system tells
	}
}

// sample measures until others leave the machine alone, and returns the least disturbed value with the CPUs that others
// used meanwhile. children are running processes of ours.
func (q watch) sample(ctx context.Context, measure func() (float64, error), children ...int) (value, others float64,
	err error) {
	for try := range q.tries {
		q.waitForQuiet(ctx, children)
		since := q.clock(children...)
		v, err := measure()
		if err != nil {
			return 0, 0, err
		}
		used := since()
		if try == 0 || used < others {
			value, others = v, used
		}
		if others <= disturbed {
			break
		}
	}
	return value, others, nil
}

func (q watch) waitForQuiet(ctx context.Context, children []int) {
	for begin := time.Now(); time.Since(begin) < q.wait && ctx.Err() == nil; {
		since := q.clock(children...)
		time.Sleep(quietWindow)
		if since() <= disturbed {
			return
		}
	}
}

// besideBusy runs f while n processes spin.
func besideBusy(ctx context.Context, n int, f func() (float64, error)) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	var busy []*exec.Cmd
	defer func() {
		for _, cmd := range busy {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		}
	}()
	for range n {
		cmd := exec.CommandContext(ctx, self, "spin")
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		busy = append(busy, cmd)
	}
	return f()
}

// spin is what the busy processes do: it ends with the process that started it, or by a bound of its own.
func spin() {
	parent := os.Getppid()
	for begin := time.Now(); time.Since(begin) < 10*time.Minute; {
		for i := 0; i < 1<<27; i++ {
		}
		if os.Getppid() != parent {
			return
		}
	}
}
