package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// markName is a variable of the environment by which a server's processes are known wherever they go: into a session of their own,
// or to another parent.
const markName = "PAGODA_SPAWNED"

// process is one of this machine's.
type process struct {
	pid, parent, group int
	ended              bool // and nobody has asked how
}

// processes reads /proc.
func processes() ([]process, error) {
	if self, err := os.Readlink("/proc/self"); err != nil {
		return nil, err
	} else if self != strconv.Itoa(os.Getpid()) {
		return nil, errors.New("/proc is of another namespace of processes")
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has just ended
		}
		p, state := process{pid: pid}, ""
		// The name, which is in parentheses, may hold anything.
		if _, err := fmt.Sscan(string(data[bytes.LastIndexByte(data, ')')+1:]), &state, &p.parent, &p.group); err != nil {
			return nil, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		p.ended = strings.ContainsAny(state, "ZX")
		all = append(all, p)
	}
	return all, nil
}

// family finds the living processes of a server: its group, all whose environment holds mark ("NAME=value"), and what any of these
// has started.
func family(group int, mark string) ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var pids []int
	take := func(isKin func(p process) bool) (some bool) {
		before := len(all)
		all = slices.DeleteFunc(all, func(p process) bool {
			kin := !p.ended && isKin(p)
			if kin {
				pids = append(pids, p.pid)
			}
			return kin
		})
		return len(all) < before
	}
	take(func(p process) bool { return p.group == group || hasMark(p.pid, mark) })
	for take(func(p process) bool { return slices.Contains(pids, p.parent) }) {
	}
	return pids, nil
}

// hasMark is false for processes of other users, which are none of ours.
func hasMark(pid int, mark string) bool {
	environ, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && slices.Contains(strings.Split(string(environ), "\x00"), mark)
}

// endFamily kills all that is left of a server and waits until there is nothing: what survives holds memory that the next one
// needs. alive is told once what takes long to end.
func endFamily(group int, mark string, alive func([]int)) error {
	var killed []int
	for began, told, wait := time.Now(), false, time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		pids, err := family(group, mark)
		if err != nil {
			_ = syscall.Kill(-group, syscall.SIGKILL) // the best that can be done
			return err
		}
		for _, pid := range append(killed, -group) {
			reap(pid)
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
		killed = pids
		if !told && time.Since(began) > 5*time.Second {
			told = true
			alive(pids)
		}
		time.Sleep(wait)
	}
}

// reap takes note of the end of a child of ours, or of all that have ended in a group (-group), so that the kernel forgets them.
func reap(pid int) {
	for {
		var status syscall.WaitStatus
		if got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); got <= 0 || err != nil {
			return // it lives, or is no child of ours
		}
	}
}

// orphanAge is after how long a child that has ended and that nobody has waited for is one that nobody will.
const orphanAge = time.Second

// reapOrphans reaps what the server's processes leave behind while it runs: orphans are ours, and many that stay zombies would use up
// the machine's numbers of processes. Where this program has started a process itself, it waits for it, which takes no time.
func (e *Engine) reapOrphans() {
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGCHLD)
	defer signal.Stop(ends)
	var seen []int
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ends:
			if len(seen) > 0 {
				continue // the timer runs
			}
		case <-again.C:
		case <-e.over.Done():
			return
		}
		all, err := processes()
		if err != nil {
			e.cfg.Log.Warn().Str("model", e.pool.name()).Err(err).Msg("what the model's server leaves behind is not reaped")
			return
		}
		var ended []int
		for _, p := range all {
			switch {
			case !p.ended || p.parent != os.Getpid():
			case slices.Contains(seen, p.pid):
				reap(p.pid)
			default:
				ended = append(ended, p.pid)
			}
		}
		if seen = ended; len(seen) > 0 {
			again.Reset(orphanAge)
		}
	}
}
