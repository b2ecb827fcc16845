package proxy

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spawn says how to start a server.
type Spawn struct {
	// Command returns the program with its arguments, and what is added to the environment, for a server that listens
	// where l says.
	Command func(l Listen) (args, env []string, err error)
	// Socket says that it can listen on a Unix socket; else it gets a port of the loopback interface.
	Socket bool
	// Environ is where its environment is taken from, os.Environ() if nil; most of it is not passed on.
	Environ []string
}

// Listen is where a spawned server is to listen, and the keys that it is to ask for.
type Listen struct {
	Socket   string // path; "" if Port counts
	Host     string
	Port     int
	Key      string
	AdminKey string // of administrative routes, where a server tells them apart
	Dir      string // a folder that nobody else can read, for what it needs
}

const (
	tailLines      = 30
	maxTailLine    = 1 << 10
	maxLogLine     = 8 << 10
	maxRestartWait = time.Minute
	logGrace       = 200 * time.Millisecond // for the last words in a pipe of which all writers should be gone
	steady         = time.Minute            // a server that was up that long begins with the shortest wait again
)

// child is a server of ours: it is started, watched, started again after any end that nobody asked for, and ended.
type child struct {
	e   *Engine
	s   *Spawn
	dir string // of the present start

	quit     context.CancelFunc // asks run to end
	quitting context.Context
	done     chan struct{} // closed when run has ended
	graceful context.Context
	started  chan error // the outcome of the first start

	mu   sync.Mutex // guards all below
	pid  int        // of the running process, which is its group's number too; 0 if none runs
	tail []string   // the last lines of its log
	up   bool
}

// spawn starts the server and waits until it answers.
func (e *Engine) spawn(ctx context.Context) error {
	// What a killed server leaves behind becomes ours to reap instead of init's, which a container may lack.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper of orphans: %w", err)
	}
	c := &child{e: e, s: e.cfg.Spawn, done: make(chan struct{}), started: make(chan error, 1)}
	c.quitting, c.quit = context.WithCancel(context.Background())
	e.child = c
	e.work.Go(e.reapOrphans)
	go c.run()
	select {
	case err := <-c.started:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// stop ends the server: SIGTERM, then SIGKILL when ctx or the time to stop is over.
func (c *child) stop(ctx context.Context) {
	c.mu.Lock()
	c.graceful = ctx
	c.mu.Unlock()
	c.quit()
	<-c.done
}

// kill ends the running process; run starts another.
func (c *child) kill(why string) {
	c.mu.Lock()
	pid := c.pid
	c.mu.Unlock()
	if pid != 0 {
		c.e.cfg.Log.Error().Str("model", c.e.pool.name()).Int("pid", pid).Str("reason", why).Msg("killing the model's server")
		_ = syscall.Kill(-pid, syscall.SIGKILL) // it may have ended by itself
	}
}

// run starts the server again and again. It keeps to one thread: the kernel ends a child when the thread that started it
// does (Pdeathsig; golang/go#27505).
func (c *child) run() {
	runtime.LockOSThread()
	defer close(c.done)
	log, wait := c.e.cfg.Log, c.e.cfg.Times.Restart
	for first := true; ; first = false {
		began := time.Now()
		wasUp, err := c.once()
		if c.quitting.Err() != nil {
			return
		}
		if first && !wasUp {
			c.started <- err
			return
		}
		c.e.cfg.Metrics.restarts.WithLabelValues(c.e.pool.name()).Inc()
		if wasUp && time.Since(began) > steady {
			wait = c.e.cfg.Times.Restart
		}
		log.Error().Str("model", c.e.pool.name()).Err(err).Dur("again_in_ms", wait).Strs("last_lines", c.lastLines()).
			Msg("the model's server ended")
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-c.quitting.Done():
			again.Stop()
			return
		}
		wait = min(2*wait, maxRestartWait)
	}
}

// once runs the server from its start to its end. wasUp says that it answered. The error says why it ended.
func (c *child) once() (wasUp bool, err error) {
	// A folder for each start: somebody may have cleared the last one away.
	if c.dir, err = os.MkdirTemp("", "pagoda-"+c.e.d.Name+"-"); err != nil {
		return false, err
	}
	defer os.RemoveAll(c.dir)
	l, url, release, err := c.listen()
	if err != nil {
		return false, err
	}
	defer release()
	r, err := newReplica(url, l.Key, c.e.d, c.e.cfg.Times.Lost)
	if err != nil {
		return false, err
	}
	r.id, r.admin = c.e.d.Name, l.AdminKey
	cmd, endLog, err := c.start(l)
	if err != nil {
		return false, err
	}
	guard, err := guardGroup(cmd.Process.Pid, c.dir)
	if err != nil {
		guard = func() {}
		c.e.cfg.Log.Warn().Str("model", c.e.pool.name()).Err(err).
			Msg("nothing watches over the model's server: what it starts may outlive this program if that is killed")
	}
	c.e.pool.add(r) // here, since below it is removed, however soon the process ends
	exited, watch := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watch)
		wasUp = c.watch(exited)
	}()
	waitErr := cmd.Wait() // on the thread that started it
	r.ended.Store(true)
	close(exited)
	c.e.pool.remove(r, false)
	c.endFamily(cmd.Process.Pid)
	<-watch
	guard()
	endLog()
	return wasUp, c.endError(cmd, waitErr, wasUp)
}

// watch ends the server when it does not become ready in time, or is to stop.
func (c *child) watch(exited <-chan struct{}) (wasUp bool) {
	ctx, cancel := context.WithTimeout(c.quitting, c.e.cfg.Times.Start)
	defer cancel()
	go func() {
		select {
		case <-exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := c.e.pool.waitUp(ctx)
	select {
	case <-exited:
		return false
	default:
	}
	pid := c.process()
	switch {
	case c.quitting.Err() != nil:
		c.term(pid, exited)
		return false
	case err != nil:
		c.note(fmt.Sprintf("(not ready after %v)", c.e.cfg.Times.Start))
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		return false
	}
	c.mu.Lock()
	c.up = true
	c.mu.Unlock()
	select {
	case c.started <- nil:
	default: // not the first time
	}
	select {
	case <-exited:
	case <-c.quitting.Done():
		c.term(pid, exited)
	}
	return true
}

// term asks the group to end and kills it when it takes too long.
func (c *child) term(pid int, exited <-chan struct{}) {
	c.mu.Lock()
	graceful := c.graceful
	c.mu.Unlock()
	if graceful == nil {
		graceful = canceledContext()
	}
	_ = syscall.Kill(-pid, syscall.SIGTERM) // it may have ended by itself
	limit := time.NewTimer(c.e.cfg.Times.Stop)
	defer limit.Stop()
	select {
	case <-exited:
		return
	case <-limit.C:
	case <-graceful.Done():
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
}

func (c *child) process() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pid
}

// listen chooses where the server is to listen, and keeps the place for it until release.
func (c *child) listen() (l Listen, url string, release func(), err error) {
	l = Listen{Key: rand.Text(), AdminKey: rand.Text(), Dir: c.dir}
	if c.s.Socket {
		l.Socket = filepath.Join(c.dir, "socket")
		return l, "unix://" + l.Socket, func() {}, nil
	}
	l.Host = "127.0.0.1"
	l.Port, release, err = holdPort()
	return l, "http://" + net.JoinHostPort(l.Host, strconv.Itoa(l.Port)), release, err
}

// holdPort chooses a port of 127.0.0.1 and keeps it bound until release, without listening. A server may listen there all the same,
// since it sets SO_REUSEADDR as we do; but the kernel gives the port to nobody who asks for any free one, neither in the minutes in
// which the server loads its model nor when it has died.
func holdPort() (port int, release func(), err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, os.NewSyscallError("socket", err)
	}
	release = func() { unix.Close(fd) }
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		release()
		return 0, nil, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		release()
		return 0, nil, os.NewSyscallError("bind", err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		release()
		return 0, nil, os.NewSyscallError("getsockname", err)
	}
	return name.(*unix.SockaddrInet4).Port, release, nil
}

// start starts the process in a session of its own, so that its group has what it starts, unless that leaves. endLog waits for the
// end of its output.
func (c *child) start(l Listen) (cmd *exec.Cmd, endLog func(), err error) {
	args, env, err := c.s.Command(l)
	if err != nil {
		return nil, nil, err
	}
	environ := c.s.Environ
	if environ == nil {
		environ = os.Environ()
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd = exec.Command(args[0], args[1:]...)
	cmd.Env = append(append(cleanEnviron(environ), env...), c.mark())
	cmd.Stdout, cmd.Stderr = write, write
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	c.mu.Lock()
	c.tail, c.up = nil, false
	c.mu.Unlock()
	err = cmd.Start()
	write.Close()
	if err != nil {
		read.Close()
		return nil, nil, err
	}
	c.mu.Lock()
	c.pid = cmd.Process.Pid
	c.mu.Unlock()
	c.e.cfg.Log.Info().Str("model", c.e.pool.name()).Int("pid", cmd.Process.Pid).Strs("command", args).Msg("starting the model's server")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.follow(read)
	}()
	return cmd, func() {
		_ = read.SetReadDeadline(time.Now().Add(logGrace)) // an error means that it is closed already
		<-ended
	}, nil
}

// follow copies the server's output to our log: all of it while it starts, later only for those who debug.
func (c *child) follow(read io.ReadCloser) {
	defer read.Close()
	in := bufio.NewReaderSize(read, maxLogLine)
	for {
		line, _, err := in.ReadLine() // a longer line comes in pieces
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.e.cfg.Log.Warn().Str("model", c.e.pool.name()).Msg("something holds on to the log of the model's server, which has ended")
		}
		if err != nil {
			return
		}
		text := strings.ToValidUTF8(strings.TrimRight(string(line), " \r"), "\uFFFD")
		if text == "" {
			continue
		}
		level := c.e.cfg.Log.Info()
		if c.note(text) {
			level = c.e.cfg.Log.Debug()
		}
		level.Str("from", c.e.d.Name).Msg(text)
	}
}

// note keeps a line for error messages, and says whether the server is up.
func (c *child) note(line string) (up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tail) == tailLines {
		c.tail = slices.Delete(c.tail, 0, 1)
	}
	c.tail = append(c.tail, strings.ToValidUTF8(line[:min(len(line), maxTailLine)], ""))
	return c.up
}

func (c *child) lastLines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.tail)
}

// endFamily ends what the server has left behind.
func (c *child) endFamily(pid int) {
	c.mu.Lock()
	c.pid = 0
	c.mu.Unlock()
	log := c.e.cfg.Log.With().Str("model", c.e.pool.name()).Logger()
	err := endFamily(pid, c.mark(), func(pids []int) {
		log.Warn().Ints("pids", pids).Msg("what the model's server has left behind does not end; waiting for it")
	})
	if err != nil {
		log.Warn().Err(err).Msg("what the model's server has left behind may live on")
	}
}

// mark is in the environment of all that the server starts.
func (c *child) mark() string { return markName + "=" + c.dir }

// endError says why the server ended. Whatever its exit code, nobody asked for it: vLLM ends with 0 when its engine dies
// (vllm issue 48966), SGLang with 137 after a clean stop (sglang pull request 16484).
func (c *child) endError(cmd *exec.Cmd, waitErr error, wasUp bool) error {
	state := "exit status 0"
	if waitErr != nil {
		state = waitErr.Error()
	}
	if wasUp {
		return fmt.Errorf("%s ended: %s", filepath.Base(cmd.Path), state)
	}
	return fmt.Errorf("%s did not start: %s; its last lines:\n%s", filepath.Base(cmd.Path), state, strings.Join(c.lastLines(), "\n"))
}

// guardGroup starts a process that kills the group, and what has its mark, and removes dir when we end in whatever way: it waits for
// the end of a pipe that only we hold. Pdeathsig alone ends the first process, and what that had started would live on and hold the GPU's memory (vllm
// issue 55510). The function returned ends the guard.
func guardGroup(pid int, dir string) (end func(), err error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	guard := exec.Command("/bin/sh", "-c", guardScript, strconv.Itoa(pid), dir, markName+"="+dir)
	guard.Stdin = read
	guard.Env = []string{"PATH=/usr/bin:/bin"}
	guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // signals to our group must not end it before us
	err = guard.Start()
	read.Close()
	if err != nil {
		write.Close()
		return nil, err
	}
	return func() {
		_, _ = write.WriteString("end\n") // fails if somebody ended the guard
		write.Close()
		_ = guard.Wait() // it says nothing that matters now
	}, nil
}

const guardScript = `read line
test "$line" = end && exit
kill -KILL -"$0"
for file in $(grep -lszxF "$2" /proc/[0-9]*/environ); do
	pid=${file#/proc/}
	kill -KILL "${pid%/environ}"
done
rm -rf "$1"`

// passed are the variables that a server may need, by name or by what a name begins with.
var passed = []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LC_*", "LD_LIBRARY_PATH", "LD_PRELOAD",
	"VIRTUAL_ENV", "CONDA_*", "PYTHON*", "XDG_*", "SSL_CERT_*", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
	"http_proxy", "https_proxy", "no_proxy", "all_proxy", "CUDA_*", "NVIDIA_*", "NCCL_*", "GLOO_*", "UCX_*", "ROCR_*", "HIP_*", "HSA_*",
	"ASCEND_*", "OMP_*", "MKL_*", "KMP_*", "GOMP_*", "OPENBLAS_*", "TORCH*", "PYTORCH_*", "TRITON_*", "FLASHINFER_*", "HF_*", "HUGGING*",
	"TRANSFORMERS_*", "TOKENIZERS_*", "MODELSCOPE_*", "USE_MODELSCOPE_HUB", "OPENMIND_*", "VLLM_*", "SGLANG_*", "SGL_*", "KT_*", "RAY_*",
	"DG_*", "LMCACHE_*", "MOONCAKE_*"}

// dropped are exceptions: what Kubernetes sets beside services of these names, and what is ours to decide.
var dropped = []string{"VLLM_PORT*", "VLLM_SERVICE_*", "VLLM_API_KEY", "VLLM_SERVER_DEV_MODE", "SGLANG_PORT*", "SGLANG_SERVICE_*",
	"SGLANG_GRPC_PORT"}

// cleanEnviron is what of environ a server is told: nothing of ours, no keys, none of the variables that are known to
// break servers.
func cleanEnviron(environ []string) []string {
	var out []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if matches(passed, name) && !matches(dropped, name) {
			out = append(out, kv)
		}
	}
	return out
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		prefix, open := strings.CutSuffix(p, "*")
		return p == name || open && strings.HasPrefix(name, prefix)
	})
}
