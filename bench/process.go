package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"time"
)

// Process is a server that StartServer started.
type Process struct {
	Pid          int
	URL          string
	ReadySeconds float64 // from its start until its log said that it is ready
	CPUSeconds   float64 // that it had used by then
	WeightBytes  int64
	KVBytes      int64

	cancel  context.CancelFunc
	drained chan struct{} // closed when its log has ended
	cmd     *exec.Cmd
}

// startTimeout is for a server that hangs.
const startTimeout = 10 * time.Minute

// StartServer runs program, which is pagoda with arguments that make it a server that logs JSON, until it is ready.
// Otherwise the error is the last line of its log. It ends with ctx or by Stop.
func StartServer(ctx context.Context, program string, args []string) (*Process, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	p := &Process{cancel: cancel, drained: make(chan struct{}), cmd: exec.CommandContext(ctx, program, args...)}
	p.cmd.WaitDelay = time.Second
	log, err := p.cmd.StderrPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	begin := time.Now()
	if err := p.cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	p.Pid = p.cmd.Process.Pid
	last, ready := p.readLog(log)
	p.ReadySeconds, p.CPUSeconds = time.Since(begin).Seconds(), CPUSeconds(p.Pid)
	go func() {
		defer close(p.drained)
		_, _ = io.Copy(io.Discard, log) // ends with the process
	}()
	if !ready {
		p.Stop()
		return nil, errors.New(last)
	}
	return p, nil
}

// readLog reads until the server is ready, and returns the last line.
func (p *Process) readLog(log io.Reader) (last string, ready bool) {
	for lines := bufio.NewScanner(log); lines.Scan(); {
		last = lines.Text()
		var line struct {
			Message     string
			URL         string
			WeightBytes int64 `json:"weight_bytes"`
			KVBytes     int64 `json:"kv_bytes"`
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Message == "ready" {
			p.URL, p.WeightBytes, p.KVBytes = line.URL, line.WeightBytes, line.KVBytes
			return last, true
		}
	}
	return last, false
}

// Stop kills the server.
func (p *Process) Stop() {
	p.cancel()
	<-p.drained
	_ = p.cmd.Wait() // it was killed
}
