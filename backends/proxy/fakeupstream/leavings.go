package fakeupstream

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// leavings are processes that a server starts and leaves to others: by flag, what a shell runs in their place, $0 being a file that is
// to hold a process's number. Each shell is in a session of its own, as daemons are (Ray's, which vLLM may start, are).
var leavings = map[string]struct {
	script string
	naked  bool // without the server's environment
}{
	"--fake-daemon":   {script: `sleep 1000 & echo $! >"$0"`},
	"--fake-stranger": {script: `sleep 1000 & echo $! >"$0"`, naked: true},
	// Its parent does not wait for it, and ends before it does.
	"--fake-zombie": {script: `(until grep -q gone "$0"; do sleep 0.01; done) & echo $! >"$0.tmp"; mv "$0.tmp" "$0"`},
}

func leave(flags flagList) error {
	for flag, l := range leavings {
		file := flags.value(flag)
		if file == "" {
			continue
		}
		cmd := exec.Command("/bin/sh", "-c", l.script, file)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if l.naked {
			cmd.Env = []string{"PATH=/usr/bin:/bin"}
		}
		if err := cmd.Run(); err != nil {
			return err
		}
	}
	return nil
}

// shout writes that many MB without an end of line.
func shout(mb int) {
	for range mb {
		_, _ = os.Stdout.WriteString(strings.Repeat("x", 1<<20)) // whether anybody reads it is what is tested
	}
}

// lostPackets makes a listener whose packets are lost from SIGUSR1 to SIGUSR2: the kernel drops what comes for it and its connections,
// without a word to the sender, as a broken network does. Nothing that comes is acknowledged.
type lostPackets struct {
	net.Listener
	mu    sync.Mutex // guards all below
	lost  bool
	conns map[syscall.RawConn]struct{}
}

func losePackets(l net.Listener) net.Listener {
	p := &lostPackets{Listener: l, conns: map[syscall.RawConn]struct{}{}}
	p.add(l.(syscall.Conn))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range signals {
			p.mu.Lock()
			p.lost = s == syscall.SIGUSR1
			for c := range p.conns {
				p.set(c)
			}
			p.mu.Unlock()
		}
	}()
	return p
}

// Accept implements net.Listener.
func (p *lostPackets) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	if err == nil {
		p.add(conn.(syscall.Conn))
	}
	return conn, err
}

func (p *lostPackets) add(c syscall.Conn) {
	raw, err := c.SyscallConn()
	if err != nil {
		panic(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[raw] = struct{}{}
	p.set(raw)
}

// set is called with mu held.
func (p *lostPackets) set(c syscall.RawConn) {
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K} // no byte of a packet is kept
	var err error
	_ = c.Control(func(fd uintptr) { // an error means that the connection is closed
		if p.lost {
			err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
		} else if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err == unix.ENOENT {
			err = nil // there was none
		}
	})
	if err != nil {
		panic(err)
	}
}

// mute accepts connections and never answers.
type mute struct{}

func (mute) ServeHTTP(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
