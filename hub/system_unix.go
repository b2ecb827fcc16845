//go:build unix

package hub

import (
	"errors"
	"os"
	"syscall"
)

var errLocked = errors.New("locked by another process")

func tryLock(f *os.File) error {
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err {
	case syscall.EWOULDBLOCK:
		return errLocked
	case syscall.ENOSYS, syscall.ENOTSUP:
		return errors.ErrUnsupported
	default:
		return err
	}
}

// room is the number of bytes that may be written below a folder; -1: unknown.
func room(dir string) int64 {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return -1
	}
	return int64(st.Bavail) * int64(st.Bsize)
}
