//go:build !linux

package kernels

import "unsafe"

// mapping keeps the Go slice that stands in for mapped memory.
type mapping []byte

func mapMemory(n int) ([]byte, mapping, error) {
	m := make([]byte, n+64)
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(m))) & 63)
	return m[off : off+n : off+n], m, nil
}

func (m mapping) unmap() error { return nil }
