package kernels

import (
	"syscall"
	"unsafe"
)

const (
	hugePage     = 2 << 20
	madvHugePage = 14
)

// mapping is what has to be unmapped.
type mapping []byte

// mapMemory returns n zeroed bytes. From half a huge page on they are aligned to 2 MiB and asked to lie in huge pages:
// reading weights from those is up to a third faster.
func mapMemory(n int) ([]byte, mapping, error) {
	if n == 0 {
		return []byte{}, nil, nil
	}
	size, align := n, 1
	if n >= hugePage/2 {
		size, align = (n+hugePage-1)&^(hugePage-1)+hugePage, hugePage
	}
	m, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil, nil, err
	}
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(m))) & uintptr(align-1))
	if align == hugePage {
		_ = syscall.Madvise(m[off:off+size-hugePage], madvHugePage) // advice: without it all works, slower
	}
	return m[off : off+n : off+n], m, nil
}

func (m mapping) unmap() error {
	if m == nil {
		return nil
	}
	return syscall.Munmap(m)
}
