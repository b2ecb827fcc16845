package native

import (
	"context"
	"sync"

	"pagoda/backends/native/sample"
	"pagoda/engine"
)

// output is what the loop says about one choice after one step.
type output struct {
	index  int // choice
	token  sample.Result
	hasTok bool
	finish engine.FinishReason // set on the choice's last output
	// stopToken tells that the token itself ended the choice: it is counted and listed but its text is not shown.
	stopToken bool
}

// mailbox carries outputs from the loop to the one goroutine that answers the request. put never blocks.
type mailbox struct {
	wake chan struct{} // capacity 1: something was put

	mu      sync.Mutex // guards what follows
	outputs []output
	prompt  []engine.Logprob // log-probabilities of the prompt, complete when started is set
	started bool             // the first token is there: timing.FirstToken and the prompt's figures are final
	err     *engine.Error    // ends the request
	timing  engine.Timing
	cached  int // prompt tokens found in the prefix cache
}

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

// update runs f under the lock and wakes the reader.
func (m *mailbox) update(f func(*mailbox)) {
	m.mu.Lock()
	f(m)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// fail ends the request with err, unless it has failed already.
func (m *mailbox) fail(err *engine.Error) {
	m.update(func(m *mailbox) {
		if m.err == nil {
			m.err = err
		}
	})
}

// take waits for outputs and returns all there are, reusing buf's memory; the returned slice is the caller's until the
// next take. Outputs put before a failure are returned before it.
func (m *mailbox) take(ctx context.Context, buf []output) ([]output, error) {
	for {
		m.mu.Lock()
		if len(m.outputs) > 0 {
			out := m.outputs
			m.outputs = buf[:0]
			m.mu.Unlock()
			return out, nil
		}
		err := m.err
		m.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-m.wake:
		case <-ctx.Done():
			return nil, &engine.Error{Code: engine.Canceled, Message: "the request was cancelled", Err: context.Cause(ctx)}
		}
	}
}
