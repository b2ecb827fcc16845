package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pagoda/bench"
)

// target is a way to the mock.
type target struct {
	name string
	url  string
	pids func() []int // whose CPU and memory count; nil: none
}

// processes are what a run started.
type processes struct {
	dir  string
	cmds []*exec.Cmd
}

func (p *processes) start(name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(p.dir, filepath.Base(name)+".log"))
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

// freePort finds a port that nobody uses.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// answers waits until a URL answers 200.
func answers(ctx context.Context, url string) error {
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

func (p *processes) pagoda(ctx context.Context, program, upstream string) (*target, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	cmd, err := p.start(program, "serve", "--port", strconv.Itoa(port), "--infer-backend", "vllm", "--upstream-url", upstream,
		"--access-log=false", "--log-format", "json")
	if err != nil {
		return nil, err
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	return &target{"Pagoda", url, func() []int { return []int{cmd.Process.Pid} }}, answers(ctx, url+"/ready")
}

const nginxConf = `
worker_processes auto;
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
		listen 127.0.0.1:%[3]d;
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

func (p *processes) nginx(ctx context.Context, program, upstream string) (*target, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, errNoNginx
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(p.dir, "nginx.conf")
	text := fmt.Sprintf(nginxConf, p.dir, strings.TrimPrefix(upstream, "http://"), port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd, err := p.start(path, "-e", "stderr", "-p", p.dir, "-c", conf)
	if err != nil {
		return nil, err
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	return &target{"nginx", url, func() []int { return append(childrenOf(cmd.Process.Pid), cmd.Process.Pid) }}, answers(ctx, url+"/health")
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
	if t.pids == nil {
		return 0
	}
	for _, pid := range t.pids() {
		sum += bench.CPUSeconds(pid)
	}
	return sum
}

// rss is the memory that a target holds now, in bytes.
func (t *target) rss() (sum int64) {
	if t.pids == nil {
		return 0
	}
	for _, pid := range t.pids() {
		if f := statFields(fmt.Sprintf("/proc/%d/stat", pid)); len(f) > 21 {
			pages, _ := strconv.ParseInt(f[21], 10, 64) // the kernel writes numbers
			sum += pages * int64(os.Getpagesize())
		}
	}
	return sum
}
