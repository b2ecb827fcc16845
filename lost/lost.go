// Package lost makes TCP connections notice that their other end is gone without a word: it has lost its power, its network, or its
// place in a firewall's table. By itself Linux goes on sending for a quarter of an hour, and to a silent connection Go for two minutes.
package lost

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// longest is beyond what anybody waits for, and within what the kernel takes.
const longest = time.Hour

// Control is for the field of this name of [net.Dialer] and [net.ListenConfig]: the kernel gives up a TCP connection on which nothing is
// acknowledged for that long (an hour at most), be it what was sent or keep-alive probes. Of connections that are accepted, those of
// a listener without Multipath TCP heed it.
func Control(after time.Duration) func(network, address string, c syscall.RawConn) error {
	ms := int(max(min(after, longest).Milliseconds(), 1))
	return func(network, _ string, c syscall.RawConn) (err error) {
		if !strings.HasPrefix(network, "tcp") {
			return nil
		}
		controlErr := c.Control(func(fd uintptr) {
			err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms))
		})
		return errors.Join(controlErr, err)
	}
}

// KeepAlive are the probes of a connection on which nothing moves. They take whole seconds.
func KeepAlive(after time.Duration) net.KeepAliveConfig {
	after = min(after, longest)
	return net.KeepAliveConfig{Enable: true, Idle: after / 2, Interval: after / 6, Count: 3}
}
