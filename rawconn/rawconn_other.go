//go:build !linux || !(amd64 || arm64) || race

package rawconn

import "syscall"

// The race detector learns from package syscall what sockets put in order.

func read(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

func write(fd uintptr, parts *[3][]byte) (int, error) {
	first := parts[0]
	for i := 1; i < len(parts) && len(first) == 0; i++ {
		first = parts[i]
	}
	for {
		n, err := syscall.Write(int(fd), first)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

func peek(fd uintptr) error {
	var one [1]byte
	_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err
}
