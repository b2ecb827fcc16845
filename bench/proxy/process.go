package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pagoda/bench"
)

// target is a way to the mock.
type target struct {
	name string
	addr netip.AddrPort
	pids func() []int // whose CPU and memory count; of the direct way, the client's and the mock's
}

// processes are what a run started.
type processes struct {
	dir  string
	cmds []*exec.Cmd
}

func (p *processes) start(name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(p.dir, fmt.Sprintf("%d-%s.log", len(p.cmds), filepath.Base(name))))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.cmds = append(p.cmds, cmd)
	return cmd, nil
}

// pids are those of all processes, and of those that they started.
func (p *processes) pids() (all []int) {
	for _, cmd := range p.cmds {
		all = append(append(all, cmd.Process.Pid), childrenOf(cmd.Process.Pid)...)
	}
	return all
}

func (p *processes) end() {
	for _, cmd := range p.cmds {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()                          // by the signal
	}
}

// freeAddr finds a port that nobody uses.
func freeAddr() (netip.AddrPort, error) {
	fd, addr, err := listen(0)
	if err != nil {
		return addr, err
	}
	return addr, unix.Close(fd)
}

// answers waits until a server answers a path with 200.
func answers(ctx context.Context, addr netip.AddrPort, path string) error {
	url := "http://" + addr.String() + path
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", url, err)
		}
	}
}

func (p *processes) pagoda(ctx context.Context, name, program string, upstream netip.AddrPort) (*target, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	cmd, err := p.start(program, "serve", "--port", strconv.Itoa(int(addr.Port())), "--infer-backend", "vllm", "--upstream-url",
		"http://"+upstream.String(), "--access-log=false", "--log-format", "json")
	if err != nil {
		return nil, err
	}
	return &target{name, addr, func() []int { return []int{cmd.Process.Pid} }}, answers(ctx, addr, "/ready")
}

const nginxConf = `
worker_processes %[4]d;
pid %[1]s/nginx.pid;
error_log stderr;
daemon off;
events { worker_connections 8192; }
http {
	access_log off;
	client_max_body_size 64m;
	client_body_buffer_size 1m;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	upstream mock { server %[2]s; keepalive 1024; keepalive_requests 1000000; }
	server {
		listen %[3]s;
		keepalive_requests 1000000;
		location / {
			proxy_pass http://mock;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_buffering off;
			proxy_read_timeout 300s;
		}
	}
}
`

// errNoNginx says that there is no yardstick.
var errNoNginx = errors.New("nginx is not installed")

func (p *processes) nginx(ctx context.Context, program string, workers int, upstream netip.AddrPort) (*target, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, errNoNginx
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(p.dir, "nginx.conf")
	text := fmt.Sprintf(nginxConf, p.dir, upstream, addr, workers)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd, err := p.start(path, "-e", "stderr", "-p", p.dir, "-c", conf)
	if err != nil {
		return nil, err
	}
	return &target{"nginx", addr, func() []int { return append(childrenOf(cmd.Process.Pid), cmd.Process.Pid) }}, answers(ctx, addr, "/health")
}

// childrenOf lists the processes that pid started.
func childrenOf(pid int) []int {
	var out []int
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		panic(err) // a bad pattern
	}
	for _, file := range stats {
		f := statFields(file)
		if len(f) > 1 && f[1] == strconv.Itoa(pid) {
			if n, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// statFields are those of /proc/PID/stat after the name: state, parent, ...
func statFields(file string) []string {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil // it has ended
	}
	return strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
}

// cpu is the processor time that a target has used so far, in seconds.
func (t *target) cpu() (sum float64) {
	for _, pid := range t.pids() {
		sum += bench.CPUSeconds(pid)
	}
	return sum
}

// rss is the memory that a target holds now, in bytes.
func (t *target) rss() (sum int64) {
	for _, pid := range t.pids() {
		if f := statFields(fmt.Sprintf("/proc/%d/stat", pid)); len(f) > 21 {
			pages, _ := strconv.ParseInt(f[21], 10, 64) // the kernel writes numbers
			sum += pages * int64(os.Getpagesize())
		}
	}
	return sum
}
