package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/pbnjay/memory"
)

// memoryBudget is the memory that the models of this process may take together.
type memoryBudget struct {
	start int64  // bytes that there were before the first
	of    string // what bounds them
	taken int64  // by the models so far, also what they have not written to yet
}

func newMemoryBudget() *memoryBudget {
	bytes, of := availableMemory()
	return &memoryBudget{start: bytes, of: of}
}

// left is what the next model may take, at least a byte, and why.
func (b *memoryBudget) left() (bytes int64, of string) {
	now, _ := availableMemory() // other programs may have taken some meanwhile
	bytes, of = max(1, min(b.start-b.taken, now)), b.of
	if b.taken > 0 {
		of += fmt.Sprintf(", without %d MiB of the models before", b.taken>>20)
	}
	return bytes, of
}

// availableMemory is how many bytes this process may take: what the machine has free, page cache included, or the container's
// limit if that is less.
func availableMemory() (bytes int64, of string) {
	bytes, of = meminfo("MemAvailable"), "free on this machine"
	if bytes == 0 {
		bytes, of = int64(memory.TotalMemory()), "the machine's memory"
	}
	if limit, err := memlimit.FromCgroup(); err == nil && limit > 0 && limit < uint64(bytes) {
		bytes, of = int64(limit), "the limit of the container or control group"
	}
	return bytes, of
}

// meminfo reads a row of /proc/meminfo in bytes, 0 if there is none.
func meminfo(name string) int64 {
	data, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name+":" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}
