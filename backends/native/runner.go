package native

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"pagoda/backends/native/adapter"
	"pagoda/backends/native/sample"
	"pagoda/backends/native/sched"
	"pagoda/engine"
)

// job is a request on its way through the loop. The answering goroutine makes it, hands it over by submit, and then
// only reads box and sets the gone flags; all else is the loop's.
type job struct {
	id      string
	spec    sched.GroupSpec
	choices []*choice
	adapter *adapter.Adapter // nil for the base model; released by the loop when the job ends
	eos     []int32          // tokens that end a choice
	prompt  int              // alternatives wanted beside the prompt's log-probabilities; -1: none wanted
	box     *mailbox
	gone    atomic.Bool // nobody reads box any more

	live          int // choices not yet finished
	promptLogprob []engine.Logprob
}

func (j *job) releaseAdapter() {
	if j.adapter != nil {
		j.adapter.Release()
	}
}

// choice is one of a job's n sequences.
type choice struct {
	job     *job
	seq     *sched.Seq
	sampler *sample.Sampler
	guess   *guess      // nil: nothing is guessed ahead
	gone    atomic.Bool // the reader needs no more of it (a stop string was found)
	done    bool
}

// runner owns the scheduler, the blocks and, through its executor, the device. Only loop touches them.
type runner struct {
	submit chan *job     // callers → loop; full means Busy
	quit   chan struct{} // closed: the loop ends, failing what is left
	ended  chan struct{} // closed when the loop has ended

	sched   *sched.Scheduler
	exec    *executor
	spec    *speculator
	scratch *sample.Scratch
	jobs    []*job
	log     zerolog.Logger

	count  tokenCounts
	picked []int32 // of the item at hand
	// onLogits, for tests, sees (and may change) the logits that pick a choice's next token.
	onLogits func(c *choice, logits []float32)

	mu    sync.Mutex // guards load
	load  load
	speed atomic.Uint64 // tokens per second of recent steps, as float64 bits
}

// tokenCounts count since start.
type tokenCounts struct {
	prompt    uint64 // of admitted requests
	computed  uint64 // of prompt, not found in the prefix cache
	generated uint64

	drafts, drafted, accepted uint64
	acceptedAt                [maxSpeculativeTokens]uint64
}

// load is what the loop tells about itself after each step.
type load struct {
	sched     sched.Stats
	adapters  []sched.AdapterStats
	tokens    tokenCounts
	steps     uint64
	stepSizes []uint64 // histogram over engine.StepTokenBounds
	stepSum   uint64
}

func newRunner(s *sched.Scheduler, x *executor, d drafter, maxQueue int, log zerolog.Logger) *runner {
	r := &runner{
		submit:  make(chan *job, maxQueue),
		quit:    make(chan struct{}),
		ended:   make(chan struct{}),
		sched:   s,
		exec:    x,
		spec:    &speculator{drafter: d},
		scratch: sample.NewScratch(x.blockSums),
		log:     log,
	}
	r.load.stepSizes = make([]uint64, len(engine.StepTokenBounds)+1)
	r.load.sched = s.Stats()
	return r
}

// loop runs until quit is closed. A step's failure, even a panic, ends that step's requests and nothing else.
func (r *runner) loop() {
	defer close(r.ended)
	for r.admit() {
		r.turn()
	}
	for _, j := range slices.Clone(r.jobs) {
		r.fail(j, engine.Errorf(engine.Unavailable, "the server is shutting down"))
	}
	for len(r.submit) > 0 {
		j := <-r.submit
		r.reject(j, engine.Errorf(engine.Unavailable, "the server is shutting down"))
	}
	r.publishLoad(0)
}

// turn plans and computes one step, if there is something to do.
func (r *runner) turn() {
	r.dropGone()
	plan := r.sched.Next()
	if len(plan.Items) == 0 {
		r.publishLoad(0)
		return
	}
	r.stampScheduled(plan)
	start := time.Now()
	if err := r.spec.draft(r.sched, plan); err != nil {
		r.log.Error().Err(err).Msg("guessing ahead failed; it is off for the requests of this step")
	}
	drafted := time.Now()
	err := r.exec.step(plan)
	r.spec.cost.addStep(plan, time.Since(drafted))
	accepted := r.count.accepted
	r.finishStep(plan, err)
	r.measure(plan.NumTokens+int(r.count.accepted-accepted), time.Since(start))
	r.publishLoad(plan.NumRows())
}

// admit takes what waits and blocks only without work. It reports false when the loop is to end.
func (r *runner) admit() bool {
	select {
	case <-r.quit:
		return false
	default:
	}
	for {
		if r.sched.Idle() {
			select {
			case j := <-r.submit:
				r.add(j)
				continue
			default: // about to sleep: the load shown must be true meanwhile
				r.publishLoad(0)
			}
			select {
			case j := <-r.submit:
				r.add(j)
			case <-r.quit:
				return false
			}
			continue
		}
		select {
		case j := <-r.submit:
			r.add(j)
		default:
			return true
		}
	}
}

func (r *runner) add(j *job) {
	if j.gone.Load() {
		r.reject(j, engine.Errorf(engine.Canceled, "the request was cancelled"))
		return
	}
	seqs, err := r.sched.Add(j.spec)
	if err != nil {
		r.reject(j, r.admissionError(err))
		return
	}
	for i, q := range seqs {
		c := j.choices[i]
		c.seq = q
		q.Owner = c
	}
	j.live = len(seqs)
	r.jobs = append(r.jobs, j)
	r.count.prompt += uint64(len(j.spec.Prompt))
}

// reject ends a job that the scheduler never held.
func (r *runner) reject(j *job, err *engine.Error) {
	j.releaseAdapter()
	j.box.fail(err)
}

// dropGone frees the blocks of sequences that nobody waits for.
func (r *runner) dropGone() {
	for i := len(r.jobs) - 1; i >= 0; i-- {
		j := r.jobs[i]
		all := j.gone.Load()
		for _, c := range j.choices {
			if !c.done && (all || c.gone.Load()) {
				r.end(c)
			}
		}
	}
}

// end takes a choice out of the scheduler, and its job out of the runner with the last one.
func (r *runner) end(c *choice) {
	r.sched.Finish(c.seq)
	r.spec.drafter.forget(c)
	c.done = true
	j := c.job
	if j.live--; j.live > 0 {
		return
	}
	if i := slices.Index(r.jobs, j); i >= 0 {
		r.jobs = slices.Delete(r.jobs, i, i+1)
	}
	j.releaseAdapter()
}

// fail ends all of a job with an error.
func (r *runner) fail(j *job, err *engine.Error) {
	for _, c := range j.choices {
		if !c.done {
			r.end(c)
		}
	}
	j.box.fail(err)
}

func (r *runner) stampScheduled(plan sched.Plan) {
	for _, it := range plan.Items {
		c := it.Seq.Owner.(*choice)
		if c.seq.Index == 0 && it.Seq.NumOutput() == 0 {
			b := c.job.box
			b.mu.Lock()
			if b.timing.Scheduled.IsZero() {
				b.timing.Scheduled = time.Now()
				b.cached = it.Seq.NumCachedTokens
			}
			b.mu.Unlock()
		}
	}
}

// finishStep turns the step's logits into tokens, or its failure into its requests' failure.
func (r *runner) finishStep(plan sched.Plan, err error) {
	if err != nil {
		r.log.Error().Err(err).Int("sequences", len(plan.Items)).Msg("a step failed; its requests were ended")
	}
	row := 0
	for _, it := range plan.Items {
		c := it.Seq.Owner.(*choice)
		first := row
		row += it.NumRows() - it.LogitsFrom
		switch {
		case c.done: // its job failed earlier in this step
		case err != nil:
			r.fail(c.job, &engine.Error{Code: engine.Internal, Message: "the model failed on this request", Err: err})
		default:
			if e := r.finishItem(it, c, first); e != nil {
				r.log.Error().Err(e).Str("request_id", c.job.id).Msg("a sequence failed; its request was ended")
				r.fail(c.job, &engine.Error{Code: engine.Internal, Message: "the model failed on this request", Err: e})
			}
		}
	}
}

// finishItem handles one sequence's share of a step; first is its first row of the step's logits.
func (r *runner) finishItem(it sched.Item, c *choice, first int) (err error) {
	defer recovered(&err)
	j := c.job
	if it.Start+it.Len <= it.Seq.NumPrompt && it.Seq.NumOutput() == 0 {
		r.count.computed += uint64(it.Len)
	}
	if j.prompt >= 0 {
		if err := r.promptLogprobs(it, j, first); err != nil {
			return err
		}
	}
	if !it.Samples() {
		r.sched.Update(it)
		if it.Seq.MaxTokens == 0 && it.Start+it.Len == it.Seq.NumPrompt { // only the prompt was asked for
			r.publish(c, output{index: it.Seq.Index, finish: engine.FinishLength})
			r.end(c)
		}
		return nil
	}
	return r.pickTokens(it, c, first+it.Len-it.LogitsFrom-1)
}

// pickTokens picks an item's next token from a row of the step's logits and, as long as what was picked is what was
// drafted, one from each row after it. Each is picked as if nothing had been drafted, so the answer is the same.
func (r *runner) pickTokens(it sched.Item, c *choice, row int) error {
	r.picked = r.picked[:0]
	accepted := 0
	for {
		out, err := r.pick(it, c, row+len(r.picked))
		if err != nil {
			return err
		}
		n := len(r.picked)
		r.picked = append(r.picked, out.token.Token)
		right := n < len(it.Draft) && it.Draft[n] == out.token.Token
		if right {
			accepted++
		}
		if right && out.finish == "" {
			r.publish(c, out)
			continue
		}
		r.sched.Update(it, r.picked...)
		r.countDraft(it, c, accepted, len(r.picked))
		r.publish(c, out)
		if out.finish != "" {
			r.end(c)
		}
		return nil
	}
}

// pick samples the choice's next token from a row of logits and tells whether it is the last.
func (r *runner) pick(it sched.Item, c *choice, row int) (output, error) {
	logits := r.exec.row(row)
	if r.onLogits != nil {
		r.onLogits(c, logits)
	}
	res, err := c.sampler.Sample(r.scratch, logits)
	if err != nil {
		return output{}, err
	}
	c.sampler.Accept(res.Token)
	r.count.generated++
	out := output{index: it.Seq.Index, token: res, hasTok: true}
	switch {
	case slices.Contains(c.job.eos, res.Token):
		out.finish, out.stopToken = engine.FinishStop, true
	case it.Seq.NumOutput()+len(r.picked)+1 >= it.Seq.MaxTokens:
		out.finish = engine.FinishLength
	}
	return out, nil
}

// countDraft keeps the account of an item's draft, of which the first accepted tokens were right.
func (r *runner) countDraft(it sched.Item, c *choice, accepted, picked int) {
	if c.guess == nil {
		return
	}
	c.guess.learn(len(it.Draft), accepted, picked)
	if len(it.Draft) == 0 {
		return
	}
	r.count.drafts++
	r.count.drafted += uint64(len(it.Draft))
	r.count.accepted += uint64(accepted)
	for i := range accepted {
		r.count.acceptedAt[i]++
	}
}

// publish puts o into the job's mailbox, with what becomes final with the first and the last token.
func (r *runner) publish(c *choice, o output) {
	j := c.job
	now := time.Now()
	j.box.update(func(m *mailbox) {
		if !m.started {
			m.started = true
			m.prompt = j.promptLogprob
			m.timing.FirstToken = now
		}
		if o.finish != "" {
			m.timing.Finished = now
		}
		m.outputs = append(m.outputs, o)
	})
}

// promptLogprobs collects the log-probabilities of the prompt's tokens that this chunk's rows predict.
func (r *runner) promptLogprobs(it sched.Item, j *job, first int) error {
	for i := it.LogitsFrom; i < it.Len; i++ {
		next := it.Start + i + 1
		if next >= it.Seq.NumPrompt {
			break
		}
		tok := it.Seq.Tokens[next]
		lp, top, err := r.scratch.Logprobs(r.exec.row(first+i-it.LogitsFrom), tok, j.prompt)
		if err != nil {
			return err
		}
		j.promptLogprob = append(j.promptLogprob, logprob(tok, lp, top))
	}
	return nil
}

func logprob(token int32, lp float64, top []sample.TokenLogprob) engine.Logprob {
	l := engine.Logprob{TokenLogprob: engine.TokenLogprob{Token: token, Logprob: lp}}
	for _, t := range top {
		l.Top = append(l.Top, engine.TokenLogprob{Token: t.Token, Logprob: t.Logprob})
	}
	return l
}

// measure keeps a moving average of the tokens computed per second, for Retry-After.
func (r *runner) measure(tokens int, d time.Duration) {
	now := float64(tokens) / max(d.Seconds(), 1e-6)
	if old := math.Float64frombits(r.speed.Load()); old > 0 {
		now = 0.9*old + 0.1*now
	}
	r.speed.Store(math.Float64bits(now))
}

// publishLoad makes the loop's figures visible; tokens is the size of the step just done, 0 for none.
func (r *runner) publishLoad(tokens int) {
	st := r.sched.Stats()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.load.sched = st
	r.load.tokens = r.count
	r.load.adapters = r.sched.Adapters(r.load.adapters[:0])
	if tokens > 0 {
		i, _ := slices.BinarySearch(engine.StepTokenBounds, float64(tokens))
		r.load.stepSizes[i]++
		r.load.stepSum += uint64(tokens)
		r.load.steps++
	}
}

// retryAfter is how long the tokens that wait now will take at the present speed.
func (r *runner) retryAfter() time.Duration {
	r.mu.Lock()
	waiting := r.load.sched.NumWaitingTokens
	r.mu.Unlock()
	speed := math.Float64frombits(r.speed.Load())
	if speed <= 0 {
		return time.Second
	}
	d := time.Duration(float64(waiting) / speed * float64(time.Second))
	return min(max(d, time.Second), 5*time.Minute)
}

func (r *runner) busy() *engine.Error {
	return &engine.Error{Code: engine.Busy, RetryAfter: r.retryAfter(),
		Message: "the queue is full: too many requests are waiting"}
}

// stop ends the loop and waits for it.
func (r *runner) stop() {
	close(r.quit)
	<-r.ended
}

// check returns an error if an idle runner still holds blocks.
func (r *runner) check() error {
	if err := r.sched.CheckIntegrity(); err != nil {
		return err
	}
	if st := r.sched.Stats(); st.NumUsedBlocks != 0 {
		return fmt.Errorf("%d KV blocks are still in use", st.NumUsedBlocks)
	}
	return nil
}
