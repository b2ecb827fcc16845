package main

import (
	"os"
	"strconv"
	"strings"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/pbnjay/memory"
)

// availableMemory is how many bytes this process may still take: what the machine has free, page cache included, or
// the container's limit if that is less.
func availableMemory() int64 {
	free := meminfo("MemAvailable")
	if free == 0 {
		free = int64(memory.TotalMemory())
	}
	if limit, err := memlimit.FromCgroup(); err == nil && limit > 0 && int64(limit) > 0 {
		free = min(free, int64(limit))
	}
	return free
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
