package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"pagoda/bench"
)

func main() {
	var o options
	flag.StringVar(&o.program, "pagoda", "bin/pagoda", "the program to measure")
	flag.StringVar(&o.before, "before", "", "an older program to measure beside it, in the same rounds")
	flag.StringVar(&o.nginx, "nginx", "nginx", "nginx's program, the yardstick where it is installed")
	flag.StringVar(&o.loads, "loads", "", "comma-separated names of the loads to measure; all if empty")
	flag.DurationVar(&o.during, "time", 2*time.Second, "length of each measurement")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds in which the targets take turns")
	flag.Float64Var(&o.share, "share", 0.5, "of the rate at which Pagoda is saturated, the rate to measure at")
	flag.IntVar(&o.tries, "tries", 2, "how often a measurement is taken at most, when other programs disturb it")
	flag.IntVar(&o.clients, "clients", 256, "requests at once that saturate a target; a quarter as many streams to begin with")
	flag.StringVar(&o.commit, "commit", "unknown", "commit of the program")
	flag.StringVar(&o.write, "write", "", "file with the markers of bench-proxy, to write the table to")
	flag.BoolVar(&o.split, "split", false, "give one processor to client and mock and the others to the proxies, instead of all to all")
	isMock := flag.Bool("mock", false, "be the mock upstream")
	flag.Parse()
	runtime.LockOSThread() // the processes end with the thread that started them, and its timers are exact
	if *isMock {
		fail(runMock(flag.Arg(0)))
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fail(run(ctx, o))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-proxy:", err)
		os.Exit(1)
	}
}

type options struct {
	program, before, nginx, commit, write, loads string
	during                                       time.Duration
	rounds, clients, tries                       int
	share                                        float64
	split                                        bool
}

// chosen are the loads that o asks for.
func (o options) chosen() ([]load, error) {
	if o.loads == "" {
		return loads, nil
	}
	var out []load
	for name := range strings.SplitSeq(o.loads, ",") {
		i := slices.IndexFunc(loads, func(l load) bool { return l.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no load %q", name)
		}
		out = append(out, loads[i])
	}
	return out, nil
}

func runMock(port string) error {
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	fd, _, err := listen(n)
	if err != nil {
		return err
	}
	m, err := newMock(fd)
	if err != nil {
		return err
	}
	if err := exactTimers(); err != nil {
		return err
	}
	return m.serve()
}

// row is what the targets took for one load. The first one is the direct way.
type row struct {
	load  load
	rate  float64 // of the requests: a share of what saturates Pagoda
	cells []*cell // one per target
}

// cell is what one target took for one load.
type cell struct {
	most   float64 // answers a second that saturate it
	rounds []round
	rss    int64 // largest
}

// round is one measurement.
type round struct {
	p50, p99, chunk50, chunk99, late99 time.Duration
	cpu                                float64 // seconds a request
	others                             float64 // CPUs that other programs used
}

// disturbed is how many CPUs others may use before a measurement is taken again, and marked if it stays so.
const disturbed = 0.1

func run(ctx context.Context, o options) error {
	if !(o.share > 0 && o.share <= 1) {
		return fmt.Errorf("-share %v must be above 0 and at most 1", o.share)
	}
	dir, err := os.MkdirTemp("", "bench-proxy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	chosen, err := o.chosen()
	if err != nil {
		return err
	}
	p := &processes{dir: dir}
	defer p.end()
	targets, err := p.targets(ctx, o)
	if err != nil {
		return err
	}
	if err := exactTimers(); err != nil { // not before: the targets would inherit it
		return err
	}
	var rows []*row
	for _, l := range chosen {
		r := &row{load: l}
		for _, t := range targets {
			c := &cell{}
			if c.most, err = saturate(ctx, t, l, o); err != nil {
				return fmt.Errorf("%s, %s: %w", l.name, t.name, err)
			}
			if t.name == "Pagoda" {
				r.rate = c.most * o.share
			}
			r.cells = append(r.cells, c)
		}
		for range o.rounds {
			for i, t := range targets {
				if err := r.cells[i].measure(ctx, t, r, o, p.pids()); err != nil {
					return fmt.Errorf("%s, %s: %w", l.name, t.name, err)
				}
			}
		}
		rows = append(rows, r)
		fmt.Fprintf(os.Stderr, "bench-proxy: %s: done\n", l.name)
	}
	table := report(rows, targets, o)
	fmt.Print(table)
	if o.write == "" {
		return nil
	}
	return writeTable(o.write, table)
}

// targets starts the mock and what stands in front of it.
func (p *processes) targets(ctx context.Context, o options) ([]*target, error) {
	upstream, err := freeAddr()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	own, proxies, err := split(o.split)
	if err != nil {
		return nil, err
	}
	if err := unix.SchedSetaffinity(0, &own); err != nil { // the mock inherits it
		return nil, err
	}
	mock, err := p.start(self, "-mock", strconv.Itoa(int(upstream.Port())))
	if err != nil {
		return nil, err
	}
	if err := answers(ctx, upstream, "/health"); err != nil {
		return nil, err
	}
	out := []*target{{"direct", upstream, func() []int { return []int{os.Getpid(), mock.Process.Pid} }}}
	if err := unix.SchedSetaffinity(0, &proxies); err != nil { // they inherit it
		return nil, err
	}
	pagoda, err := p.pagoda(ctx, "Pagoda", o.program, upstream)
	if err != nil {
		return nil, err
	}
	out = append(out, pagoda)
	if o.before != "" {
		before, err := p.pagoda(ctx, "before", o.before, upstream)
		if err != nil {
			return nil, err
		}
		out = append(out, before)
	}
	nginx, err := p.nginx(ctx, o.nginx, proxies.Count(), upstream)
	switch {
	case errors.Is(err, errNoNginx):
		fmt.Fprintln(os.Stderr, "bench-proxy: no yardstick:", err)
	case err != nil:
		return nil, err
	default:
		out = append(out, nginx)
	}
	return out, unix.SchedSetaffinity(0, &own)
}

// split chooses the processors of the client and the mock and those of the proxies: all for all, or, if they are not to share and
// there are two, one for the former and the others for the latter.
func split(apart bool) (own, proxies unix.CPUSet, err error) {
	if err := unix.SchedGetaffinity(0, &proxies); err != nil {
		return own, proxies, err
	}
	if !apart || proxies.Count() == 1 {
		return proxies, proxies, nil
	}
	first := 0
	for !proxies.IsSet(first) {
		first++
	}
	own.Set(first)
	proxies.Clear(first)
	return own, proxies, nil
}

// saturate finds how many answers a second a target gives at most. Streams become more until half of their chunks come later than
// the next one is written: beyond that chunks are passed on many at a time, which costs less than any stream that is in time.
func saturate(ctx context.Context, t *target, l load, o options) (most float64, err error) {
	c, err := newClient(t.addr, l)
	if err != nil {
		return 0, err
	}
	defer c.close()
	if !l.stream {
		most, _, err = c.saturate(ctx, o.clients, o.during)
		return most, err
	}
	late := 0 // steps one after another; a single one may be the machine's
	for n := o.clients / 4; late < 2; n += n / 3 {
		perSecond, took, err := c.saturate(ctx, n, o.during/4)
		if err != nil {
			return 0, err
		}
		if took > chunkGap {
			late++
		} else {
			late = 0
		}
		if late == 0 || most == 0 {
			most = max(most, perSecond)
		}
	}
	return most, nil
}

// measure takes one round, and takes it once more if other programs than ours, whose pids are given, disturb it.
func (c *cell) measure(ctx context.Context, t *target, r *row, o options, ours []int) error {
	client, err := newClient(t.addr, r.load)
	if err != nil {
		return err
	}
	defer client.close()
	if _, err := client.open(ctx, r.rate, o.during/10); err != nil { // opens connections
		return err
	}
	best := round{others: math.Inf(1)}
	for try := 0; try < o.tries && best.others > disturbed; try++ {
		clock := bench.StartCPUClock(ours...)
		before := t.cpu()
		got, err := client.open(ctx, r.rate, o.during)
		if err != nil {
			return err
		}
		now := round{percentile(got.latencies, 0.5), percentile(got.latencies, 0.99), percentile(got.chunks, 0.5), percentile(got.chunks, 0.99),
			percentile(got.late, 0.99), (t.cpu() - before) / float64(len(got.latencies)), 0}
		if others := clock.Others(); others != nil { // not every system tells
			now.others = *others
		}
		if now.others < best.others {
			best = now
		}
	}
	c.rounds = append(c.rounds, best)
	c.rss = max(c.rss, t.rss())
	return nil
}

// report is the table in Markdown.
func report(rows []*row, targets []*target, o options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %d processors; commit %s, %s, rounds of %v: %d.\n\n", bench.CPUName(), runtime.NumCPU(), o.commit,
		time.Now().UTC().Format(time.DateOnly), o.during, o.rounds)
	b.WriteString("| load | way | at most | measured at | p50 | p99 | chunk p50 | chunk p99 | CPU of 1,000 | of nginx | memory |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	var marked bool
	var late time.Duration
	for _, r := range rows {
		direct, yardstick := r.cells[0], r.cells[len(r.cells)-1]
		for i, c := range r.cells {
			mark := ""
			if median(c.rounds, func(r round) float64 { return r.others }) > disturbed {
				mark, marked = " †", true
			}
			fmt.Fprintf(&b, "| %s | %s%s | %.0f/s | %.0f/s |", r.load.name, targets[i].name, mark, c.most, r.rate)
			columns := []func(round) time.Duration{func(r round) time.Duration { return r.p50 }, func(r round) time.Duration { return r.p99 },
				func(r round) time.Duration { return r.chunk50 }, func(r round) time.Duration { return r.chunk99 }}
			for n, column := range columns {
				switch {
				case n >= 2 && !r.load.stream:
					b.WriteString(" |")
				case c == direct:
					fmt.Fprintf(&b, " %d µs |", median(c.rounds, column).Microseconds())
				default:
					fmt.Fprintf(&b, " %+d µs |", c.added(direct, column).Microseconds())
				}
			}
			times := ""
			if c != direct && targets[len(targets)-1].name == "nginx" {
				times = fmt.Sprintf("%.1f", c.each()/yardstick.each())
			}
			fmt.Fprintf(&b, " %.0f ms | %s | %.0f MiB |\n", c.each()*1e6, times, float64(c.rss)/(1<<20))
			late = max(late, median(c.rounds, func(r round) time.Duration { return r.late99 }))
		}
	}
	fmt.Fprintf(&b, "\nOf 100 requests 99 left at most %v after their time.\n", late.Round(time.Microsecond))
	if marked {
		fmt.Fprintf(&b, "\n† disturbed: other programs used more than a tenth of a processor in most rounds, in all of %d tries.\n", o.tries)
	}
	b.WriteString("\n")
	return b.String()
}

// added is the median of what each round took longer than the direct way in the same round.
func (c *cell) added(direct *cell, of func(round) time.Duration) time.Duration {
	more := make([]time.Duration, len(c.rounds))
	for i, r := range c.rounds {
		more[i] = of(r) - of(direct.rounds[i])
	}
	return median(more, func(d time.Duration) time.Duration { return d })
}

// each is the CPU time of a request, in seconds.
func (c *cell) each() float64 { return median(c.rounds, func(r round) float64 { return r.cpu }) }

// median is of at least one figure.
func median[T any, F cmp.Ordered](list []T, of func(T) F) F {
	figures := make([]F, len(list))
	for i, t := range list {
		figures[i] = of(t)
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}

const (
	beginMark = "<!-- bench-proxy:begin -->\n"
	endMark   = "<!-- bench-proxy:end -->"
)

// writeTable puts the table between the markers of a file.
func writeTable(file, table string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, found := strings.Cut(string(data), beginMark)
	_, tail, ended := strings.Cut(rest, endMark)
	if !found || !ended {
		return fmt.Errorf("%s lacks the markers of bench-proxy", file)
	}
	return os.WriteFile(file, []byte(head+beginMark+table+endMark+tail), 0o644)
}
