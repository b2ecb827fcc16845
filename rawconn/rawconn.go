// Package rawconn makes short reads and writes of connections cheaper on Linux.
//
// Go tells its scheduler of each system call, lest one that blocks hold a processor. The first one after a moment without work wakes the
// scheduler's monitor thread (sysmon), which then looks about every 70 µs until there is a moment without work again. In a
// server that waits for others most of the time that is a fifth to a third of all processor time. The connections
// here are non-blocking, so that no call on them ever waits, and Go need not hear of short ones: RawSyscall does not tell it.
//
// The monitor is also who polls the network, every 10 ms, while goroutines compute for long without a system call, and who interrupts
// them. What they compute for long on has been long to read: large reads and writes are Go's own and wake it, and so is a
// short read now and then.
package rawconn

import (
	"io"
	"net"
	"os"
	"syscall"
)

const (
	long  = 256 << 10 // bytes from which a buffer is read into and written the usual way
	often = 1 << 20   // bytes of short reads after which one is the usual way
)

// Conn is a connection with cheaper short reads and writes. One goroutine at a time may read and one may write; all other methods are
// safe for concurrent use.
type Conn struct {
	net.Conn
	raw syscall.RawConn // nil: all is done the usual way

	// Of the read that is under way: what to read into, and what became of it.
	in      []byte
	read    int
	readErr error
	reader  func(fd uintptr) bool
	quiet   int // bytes of short reads since the last usual one

	untouched bool
	peeker    func(fd uintptr) bool

	// Of the write that is under way: what is left of its parts, and what became of it.
	out      [3][]byte
	writeErr error
	writer   func(fd uintptr) bool
}

// New wraps c. Connections that are no sockets of the system stay as they are.
func New(c net.Conn) *Conn {
	w := &Conn{Conn: c}
	s, ok := c.(syscall.Conn)
	if !ok {
		return w
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return w // it is closed, which its next use tells
	}
	w.raw, w.reader, w.peeker, w.writer = raw, w.tryRead, w.tryPeek, w.tryWrite
	return w
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if c.raw == nil || len(p) == 0 || len(p) >= long || c.quiet >= often {
		c.quiet = 0
		return c.Conn.Read(p)
	}
	c.in, c.read, c.readErr = p, 0, nil
	err := c.raw.Read(c.reader)
	c.in = nil
	c.quiet += c.read
	switch {
	case err != nil:
		return 0, named("read", err)
	case c.readErr != nil:
		return 0, c.failed("read", c.readErr)
	case c.read == 0:
		return 0, io.EOF
	}
	return c.read, nil
}

// tryRead reads once. It returns false if there is nothing yet.
func (c *Conn) tryRead(fd uintptr) bool {
	n, err := read(fd, c.in)
	if err == syscall.EAGAIN {
		return false
	}
	c.read, c.readErr = max(n, 0), err
	return true
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) { return c.WriteParts([3][]byte{p}) }

// WriteParts writes one part after the other, in one piece where that is possible. It returns how much of all was written.
func (c *Conn) WriteParts(parts [3][]byte) (int, error) {
	total := length(parts)
	switch {
	case c.raw == nil && total == len(parts[0]): // a connection that is not the system's writes the others one by one
		return c.Conn.Write(parts[0])
	case c.raw == nil || total >= long:
		list := net.Buffers(parts[:])
		n, err := list.WriteTo(c.Conn)
		return int(n), err
	}
	c.out, c.writeErr = parts, nil
	err := c.raw.Write(c.writer)
	n := total - length(c.out)
	c.out = [3][]byte{}
	switch {
	case err != nil:
		return n, named("write", err)
	case c.writeErr != nil:
		return n, c.failed("write", c.writeErr)
	default:
		return n, nil
	}
}

func length(parts [3][]byte) int { return len(parts[0]) + len(parts[1]) + len(parts[2]) }

// tryWrite writes as much as the system takes. It returns false if something is left that it may take later.
func (c *Conn) tryWrite(fd uintptr) bool {
	for length(c.out) > 0 {
		n, err := write(fd, &c.out)
		if err == syscall.EAGAIN {
			return false
		}
		if err != nil {
			c.writeErr = err
			return true
		}
		for i, part := range c.out {
			part = part[min(n, len(part)):]
			n -= len(c.out[i]) - len(part)
			c.out[i] = part
		}
	}
	return true
}

// Untouched says that the other side has neither closed the connection nor sent anything that was not read. It is a kind of read.
func (c *Conn) Untouched() bool {
	return c.raw == nil || c.raw.Read(c.peeker) == nil && c.untouched
}

func (c *Conn) tryPeek(fd uintptr) bool {
	c.untouched = peek(fd) == syscall.EAGAIN
	return true
}

// CloseWrite closes the writing side, if the connection can.
func (c *Conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return syscall.ENOTSUP
}

// named gives an error of syscall.RawConn the name of what was done, as net's errors have it.
func named(op string, err error) error {
	if e, ok := err.(*net.OpError); ok {
		e.Op = op
	}
	return err
}

func (c *Conn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}
