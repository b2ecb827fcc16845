package bench

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Linux tells all of the following; elsewhere the figures are 0 and the report leaves them out.

// RSS returns the memory that a process has in RAM, now and at most so far, in bytes. pid 0 is this process.
func RSS(pid int) (now, peak int64) {
	data, _ := os.ReadFile(procFile(pid, "status"))
	return kib(string(data), "VmRSS:"), kib(string(data), "VmHWM:")
}

func kib(text, name string) int64 {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// CacheBytes is the size of the largest cache of the first CPU.
func CacheBytes() int64 {
	files, _ := filepath.Glob("/sys/devices/system/cpu/cpu0/cache/index*/size")
	var largest int64
	for _, f := range files {
		data, _ := os.ReadFile(f)
		if k, ok := strings.CutSuffix(strings.TrimSpace(string(data)), "K"); ok {
			n, _ := strconv.ParseInt(k, 10, 64)
			largest = max(largest, n<<10)
		}
	}
	return largest
}

// CPUName is the processor's own name for itself, "" if unknown.
func CPUName() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return ""
}

// CPUClock counts CPU time: how much others used meanwhile tells how far to trust a measurement.
type CPUClock struct {
	at       time.Time
	children []int
	all, own float64 // CPU seconds of the machine, and of this process and its children
}

// StartCPUClock begins to count. children are running ones; those that this process waited for count by themselves.
func StartCPUClock(children ...int) CPUClock {
	c := CPUClock{at: time.Now(), children: children}
	c.all, c.own = machineSeconds(), c.ownSeconds()
	return c
}

// Others is the mean number of CPUs that other programs used since the start, stolen time included; nil if unknown.
func (c CPUClock) Others() *float64 {
	all := machineSeconds()
	if all == 0 {
		return nil
	}
	used := max(0, (all-c.all)-(c.ownSeconds()-c.own)) / time.Since(c.at).Seconds()
	return &used
}

func (c CPUClock) ownSeconds() float64 {
	own := CPUSeconds(0)
	for _, pid := range c.children {
		own += CPUSeconds(pid)
	}
	return own
}

const ticksPerSecond = 100 // USER_HZ, the same on all architectures that Go runs on

// CPUSeconds is the CPU time that a process has used, with the children that it waited for; 0 if there is no such
// process. pid 0 is this process.
func CPUSeconds(pid int) (seconds float64) {
	data, _ := os.ReadFile(procFile(pid, "stat"))
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // the name may hold spaces
	for i := 11; i < 15 && i < len(fields); i++ {                       // utime stime cutime cstime
		n, _ := strconv.ParseFloat(fields[i], 64)
		seconds += n / ticksPerSecond
	}
	return seconds
}

// machineSeconds is the CPU time that the machine has used, 0 if unknown.
func machineSeconds() (seconds float64) {
	data, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(data), "\n")
	for i, f := range strings.Fields(first) {
		switch i { // cpu user nice system idle iowait irq softirq steal
		case 1, 2, 3, 6, 7, 8:
			n, _ := strconv.ParseFloat(f, 64)
			seconds += n / ticksPerSecond
		}
	}
	return seconds
}

func procFile(pid int, name string) string {
	if pid == 0 {
		return "/proc/self/" + name
	}
	return "/proc/" + strconv.Itoa(pid) + "/" + name
}
