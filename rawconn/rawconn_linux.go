//go:build linux && (amd64 || arm64) && !race

package rawconn

import (
	"syscall"
	"unsafe"
)

// read reads without waiting. Like all here it is tried again when a signal comes between.
func read(fd uintptr, p []byte) (int, error) {
	for {
		n, _, err := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch err {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, err
		}
	}
}

// write writes parts, or some of their bytes, without waiting.
func write(fd uintptr, parts *[3][]byte) (int, error) {
	var list [len(parts)]syscall.Iovec
	for i, p := range parts {
		list[i].Base = unsafe.SliceData(p)
		list[i].SetLen(len(p))
	}
	for {
		n, _, err := syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&list)), uintptr(len(list)))
		switch err {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, err
		}
	}
}

// peek looks whether there is something to read, an end or an error: nil or what the system says.
func peek(fd uintptr) error {
	var one [1]byte
	for {
		_, _, err := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&one)), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		switch err {
		case 0:
			return nil
		case syscall.EINTR:
		default:
			return err
		}
	}
}
