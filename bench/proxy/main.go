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
	"strings"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.program, "pagoda", "bin/pagoda", "the program to measure")
	flag.StringVar(&o.nginx, "nginx", "nginx", "nginx's program, the yardstick where it is installed")
	flag.DurationVar(&o.during, "time", 10*time.Second, "length of each measurement")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds in which the targets take turns")
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
	program, nginx, commit, write string
	during                        time.Duration
	rounds, clients               int
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
	cpu      time.Duration
	requests int
	rss      int64 // largest
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "bench-proxy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p := &processes{dir: dir}
	defer p.end()
	runtime.LockOSThread() // the processes end with the thread that started them
	targets, err := p.targets(ctx, o)
	if err != nil {
		return err
	}
	var rows []*row
	for _, l := range loads {
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
				if err := r.measure(ctx, t, o.during); err != nil {
					return fmt.Errorf("%s, %s: %w", l.name, t.name, err)
				}
			}
		}
		rows = append(rows, r)
		fmt.Fprintf(os.Stderr, "%s: done\n", l.name)
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

// measure runs one load against one target.
func (r *row) measure(ctx context.Context, t *target, during time.Duration) error {
	c := newClient(t.url, r.load)
	defer c.http.CloseIdleConnections()
	c.open(ctx, r.rate, during/10) // opens connections
	have := r.cells[t.name]
	if have == nil {
		have = &cell{}
		r.cells[t.name] = have
	}
	var before time.Duration
	if t.pids != nil {
		before = cpu(t.pids())
	}
	got := c.open(ctx, r.rate, during)
	if t.pids != nil {
		have.cpu += cpu(t.pids()) - before
		have.rss = max(have.rss, rss(t.pids()))
	}
	have.requests += len(got.latencies)
	have.add(got)
	if got.failed > 0 {
		return fmt.Errorf("%d requests failed: %w", got.failed, got.first)
	}
	return ctx.Err()
}

// report is the table in Markdown.
func report(rows []*row, targets []*target, o options) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %d processors; commit %s, %s, rounds of %v: %d.\n\n", machine(), runtime.NumCPU(), o.commit,
		time.Now().UTC().Format(time.DateOnly), o.during, o.rounds)
	b.WriteString("| load | way | requests/s | p50 | p99 | added p50 | added p99 | chunk p50 | chunk p99 | added p99 a chunk | CPU of 1,000 | memory |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		base := r.cells["direct"]
		for _, t := range targets {
			c := r.cells[t.name]
			p50, p99 := percentile(c.latencies, 0.5), percentile(c.latencies, 0.99)
			fmt.Fprintf(&b, "| %s | %s | %.0f | %s | %s |", r.load.name, t.name, r.rate, micros(p50), micros(p99))
			if t.pids == nil {
				b.WriteString(" | |")
			} else {
				fmt.Fprintf(&b, " %s | %s |", micros(p50-percentile(base.latencies, 0.5)), micros(p99-percentile(base.latencies, 0.99)))
			}
			switch chunk := percentile(c.chunks, 0.99); {
			case !r.load.stream:
				b.WriteString(" | | |")
			case t.pids == nil:
				fmt.Fprintf(&b, " %s | %s | |", micros(percentile(c.chunks, 0.5)), micros(chunk))
			default:
				fmt.Fprintf(&b, " %s | %s | %s |", micros(percentile(c.chunks, 0.5)), micros(chunk), micros(chunk-percentile(base.chunks, 0.99)))
			}
			if t.pids == nil {
				b.WriteString(" | |\n")
			} else {
				fmt.Fprintf(&b, " %.0f ms | %.0f MiB |\n", float64(c.cpu.Milliseconds())/float64(c.requests)*1000, float64(c.rss)/(1<<20))
			}
		}
	}
	b.WriteString("\n")
	return b.String()
}

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
