package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"time"

	"pagoda/bench"
)

func main() {
	var o options
	flag.StringVar(&o.program, "pagoda", "bin/pagoda", "the program to measure")
	flag.StringVar(&o.nginx, "nginx", "nginx", "nginx's program, the yardstick where it is installed")
	flag.StringVar(&o.loads, "loads", "", "comma-separated names of the loads to measure; all if empty")
	flag.DurationVar(&o.during, "time", 3*time.Second, "length of each measurement")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds in which the targets take turns")
	flag.IntVar(&o.tries, "tries", 2, "how often a measurement is taken at most, when other programs disturb it")
	flag.IntVar(&o.clients, "clients", 64, "clients at once that find the saturation rate")
	flag.StringVar(&o.commit, "commit", "unknown", "commit of the program")
	flag.StringVar(&o.write, "write", "", "file with the markers of bench-proxy, to write the table to")
	isMock := flag.Bool("mock", false, "be the mock upstream")
	flag.Parse()
	if *isMock {
		fail(runMock())
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
	program, nginx, commit, write, loads string
	during                               time.Duration
	rounds, clients, tries               int
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

func runMock() error {
	l, err := net.Listen("tcp", "127.0.0.1:"+flag.Arg(0))
	if err != nil {
		return err
	}
	return mock(l)
}

// row is a line of the table.
type row struct {
	load  load
	rate  float64 // half of what saturates Pagoda
	cells map[string]*cell
}

// cell is what one target took for one load, all rounds together.
type cell struct {
	result
	cpu      float64 // seconds
	requests int
	rss      int64   // largest
	others   float64 // CPUs that other programs used; the most of all rounds
}

// disturbed is how many CPUs others may use before a measurement is taken again, and marked if it stays so.
const disturbed = 0.1

func run(ctx context.Context, o options) error {
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
	runtime.LockOSThread() // the processes end with the thread that started them
	targets, err := p.targets(ctx, o)
	if err != nil {
		return err
	}
	var rows []*row
	for _, l := range chosen {
		r := &row{load: l, cells: map[string]*cell{}}
		for _, t := range targets {
			if t.name == "Pagoda" {
				most, err := newClient(t.url, l).saturate(ctx, o.clients, o.during)
				if err != nil {
					return fmt.Errorf("%s: %w", l.name, err)
				}
				r.rate = most / 2
			}
		}
		for range o.rounds {
			for _, t := range targets {
				if err := r.measure(ctx, t, o, p.pids()); err != nil {
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
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if _, err := p.start(self, "-mock", fmt.Sprint(port)); err != nil {
		return nil, err
	}
	upstream := fmt.Sprintf("http://127.0.0.1:%d", port)
	if err := answers(ctx, upstream+"/health"); err != nil {
		return nil, err
	}
	out := []*target{{name: "direct", url: upstream}}
	pagoda, err := p.pagoda(ctx, o.program, upstream)
	if err != nil {
		return nil, err
	}
	out = append(out, pagoda)
	nginx, err := p.nginx(ctx, o.nginx, upstream)
	switch {
	case errors.Is(err, errNoNginx):
		fmt.Fprintln(os.Stderr, "bench-proxy: no yardstick:", err)
	case err != nil:
		return nil, err
	default:
		out = append(out, nginx)
	}
	return out, nil
}

// measure runs one load against one target, once more if other programs than ours, whose pids are given, disturb it.
func (r *row) measure(ctx context.Context, t *target, o options, ours []int) error {
	c := newClient(t.url, r.load)
	defer c.http.CloseIdleConnections()
	c.open(ctx, r.rate, o.during/10) // opens connections
	var least *cell
	for range o.tries {
		others := bench.StartCPUClock(ours...)
		before := t.cpu()
		got := c.open(ctx, r.rate, o.during)
		now := &cell{result: *got, cpu: t.cpu() - before, requests: len(got.latencies), rss: t.rss()}
		if got.failed > 0 {
			return fmt.Errorf("%d requests failed: %w", got.failed, got.first)
		}
		if used := others.Others(); used != nil { // not every system tells
			now.others = *used
		}
		if least == nil || now.others < least.others {
			least = now
		}
		if least.others <= disturbed || ctx.Err() != nil {
			break
		}
	}
	have := r.cells[t.name]
	if have == nil {
		have = &cell{}
		r.cells[t.name] = have
	}
	have.add(&least.result)
	have.cpu += least.cpu
	have.requests += least.requests
	have.rss, have.others = max(have.rss, least.rss), max(have.others, least.others)
	return ctx.Err()
}

// report is the table in Markdown.
func report(rows []*row, targets []*target, o options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %d processors; commit %s, %s, rounds of %v: %d.\n\n", machine(), runtime.NumCPU(), o.commit,
		time.Now().UTC().Format(time.DateOnly), o.during, o.rounds)
	b.WriteString("| load | way | requests/s | p50 | p99 | chunk p50 | chunk p99 | CPU of 1,000 | of nginx | memory |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|\n")
	var marked bool
	for _, r := range rows {
		base, yardstick := r.cells["direct"], r.cells["nginx"]
		for _, t := range targets {
			c := r.cells[t.name]
			mark := ""
			if c.others > disturbed {
				mark, marked = " †", true
			}
			fmt.Fprintf(&b, "| %s | %s%s | %.0f |", r.load.name, t.name, mark, r.rate)
			between := func(list, base []time.Duration, measured bool) {
				p50, p99 := percentile(list, 0.5), percentile(list, 0.99)
				switch {
				case !measured:
					b.WriteString(" | |")
				case t.pids == nil:
					fmt.Fprintf(&b, " %s | %s |", micros(p50), micros(p99))
				default:
					fmt.Fprintf(&b, " + %s | + %s |", micros(p50-percentile(base, 0.5)), micros(p99-percentile(base, 0.99)))
				}
			}
			between(c.latencies, base.latencies, true)
			between(c.chunks, base.chunks, r.load.stream)
			if t.pids == nil {
				b.WriteString(" | | |\n")
				continue
			}
			times := ""
			if yardstick != nil {
				times = fmt.Sprintf("%.1f", c.each()/yardstick.each())
			}
			fmt.Fprintf(&b, " %.0f ms | %s | %.0f MiB |\n", c.each()*1e6, times, float64(c.rss)/(1<<20))
		}
	}
	if marked {
		fmt.Fprintf(&b, "\n† disturbed: other programs used more than a tenth of a processor in all of %d tries.\n", o.tries)
	}
	b.WriteString("\n")
	return b.String()
}

// each is the CPU time of a request, in seconds.
func (c *cell) each() float64 { return c.cpu / float64(c.requests) }

func micros(d time.Duration) string { return fmt.Sprintf("%d µs", d.Microseconds()) }

// machine is the processor's name.
func machine() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	_, rest, _ := strings.Cut(string(data), "model name")
	_, rest, _ = strings.Cut(rest, ":")
	name, _, _ := strings.Cut(rest, "\n")
	if name = strings.TrimSpace(name); name == "" {
		return runtime.GOARCH
	}
	return name
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
