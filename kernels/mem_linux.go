package kernels

import (
	"sync"
	"syscall"
	"unsafe"
)

const (
	page         = 4 << 10
	hugePage     = 2 << 20
	chunkBytes   = 256 << 20
	madvHugePage = 14
)

// arena gives memory out. Large buffers lie one after another in chunks of huge pages, from which weights are read up to
// a third faster; each in a mapping of its own would leave half a huge page unused on average, which for a small model
// is a tenth of its memory.
type arena struct {
	mu   sync.Mutex // guards what follows, and all chunks
	open *chunk     // the one with room
}

// chunk is a mapping, whole huge pages if it is for large buffers.
type chunk struct {
	mapped []byte
	room   []byte // of mapped, not given out yet
	live   int    // buffers in it
}

// region is what a buffer holds of an arena.
type region struct {
	arena *arena
	chunk *chunk
	data  []byte // whole pages
}

// alloc returns n zeroed bytes at the beginning of a page.
func (a *arena) alloc(n int) ([]byte, region, error) {
	if n == 0 {
		return []byte{}, region{}, nil
	}
	size := (n + page - 1) &^ (page - 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.open
	if n < hugePage/2 || c == nil || len(c.room) < size {
		var err error
		if c, err = a.newChunk(size); err != nil {
			return nil, region{}, err
		}
	}
	data := c.room[:size:size]
	c.room = c.room[size:]
	c.live++
	return data[:n:n], region{a, c, data}, nil
}

// newChunk makes room for a buffer, for further ones too if it is large and leaves more than there was.
func (a *arena) newChunk(size int) (*chunk, error) {
	if size < hugePage/2 {
		m, err := mapAnonymous(size)
		return &chunk{mapped: m, room: m}, err
	}
	m, err := mapAnonymous(max(size, chunkBytes) + hugePage)
	if err != nil {
		return nil, err
	}
	start := int(-uintptr(unsafe.Pointer(unsafe.SliceData(m))) & (hugePage - 1))
	c := &chunk{mapped: m, room: m[start : start+max(size, chunkBytes)]}
	_ = syscall.Madvise(c.room, madvHugePage) // advice: without it all works, slower
	if a.open == nil || len(a.open.room) < len(c.room)-size {
		a.open = c
	}
	return c, nil
}

func mapAnonymous(size int) ([]byte, error) {
	return syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
}

// free gives the pages back, and the chunk with its last buffer.
func (r region) free() error {
	if r.chunk == nil {
		return nil
	}
	r.arena.mu.Lock()
	defer r.arena.mu.Unlock()
	if r.chunk.live--; r.chunk.live > 0 {
		return syscall.Madvise(r.data, syscall.MADV_DONTNEED)
	}
	if r.arena.open == r.chunk {
		r.arena.open = nil
	}
	return syscall.Munmap(r.chunk.mapped)
}
