package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendBuffer holds the largest request and a whole streamed answer: no write of a socket is ever short.
const sendBuffer = 1 << 20

// dial connects to an address.
func dial(to netip.AddrPort) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %s: %w", to, err)
	}
	return fd, nil
}

// listen opens a port, a free one if it is 0.
func listen(port int) (fd int, at netip.AddrPort, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, at, err
	}
	local := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: local.As4(), Port: port}),
		unix.Listen(fd, unix.SOMAXCONN))
	if err != nil {
		unix.Close(fd)
		return -1, at, err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		unix.Close(fd)
		return -1, at, err
	}
	return fd, netip.AddrPortFrom(local, uint16(name.(*unix.SockaddrInet4).Port)), nil
}

// write writes all of data at once.
func write(fd int, data []byte) error {
	n, err := unix.Write(fd, data)
	if err == nil && n < len(data) {
		err = fmt.Errorf("a write of %d bytes ended after %d: the peer does not read", len(data), n)
	}
	return err
}

// read returns 0 if there is nothing to read yet, and io.EOF at the end.
func read(fd int, into []byte) (int, error) {
	n, err := unix.Read(fd, into)
	switch {
	case err == unix.EAGAIN:
		return 0, nil
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// poller waits in the kernel for sockets and for a time. A thread that does nothing else is on its way sooner, and costs less,
// than goroutines that wake one another. Go's scheduler is not told of the waits (RawSyscall): it would hand the rest of the
// process to another thread each time, of which there is nothing to do.
type poller struct {
	fd     int
	events [16]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &poller{fd: fd}, err
}

// exactTimers lets waits of this thread end when they should, not up to 50 µs later as is the kernel's habit.
func exactTimers() error { return unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) }

// add watches a socket, which does not wait from now on.
func (p *poller) add(fd int) error {
	return errors.Join(
		unix.SetNonblock(fd, true),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer),
		unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
}

// wait returns the sockets with something to read, none after d or when a signal ends it.
func (p *poller) wait(d time.Duration) ([]unix.EpollEvent, error) {
	until := unix.NsecToTimespec(max(0, d.Nanoseconds()))
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)),
		uintptr(unsafe.Pointer(&until)), 0, 0)
	switch errno {
	case 0:
		return p.events[:n], nil
	case unix.EINTR: // Go's runtime signals its threads
		return nil, nil
	}
	return nil, fmt.Errorf("epoll_pwait2: %w", errno)
}
