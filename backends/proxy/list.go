package proxy

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// readList reads a file with one URL a line. Empty lines and lines that begin with # are none.
func readList(name string) ([]string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var urls []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			urls = append(urls, line)
		}
	}
	if len(urls) == 0 {
		return nil, fmt.Errorf("%s holds no URL", name)
	}
	return urls, nil
}

// setURLs makes the pool's upstreams those of urls: new ones are taken in, those that are missing finish what they have.
// A URL that is wrong changes nothing.
func (e *Engine) setURLs(urls []string) error {
	var errs []error
	var fresh []*replica
	have := e.pool.list()
	var keep []*replica
	for i, u := range urls {
		r, err := newReplica(u, e.cfg.Key, e.d)
		if err != nil {
			errs = append(errs, fmt.Errorf("upstream %d: %w", i+1, err)) // the URL may hold a password
			continue
		}
		same := func(h *replica) bool { return h.base == r.base && h.id == r.id }
		if slices.ContainsFunc(fresh, same) || slices.ContainsFunc(keep, same) {
			errs = append(errs, fmt.Errorf("upstream %s is given twice", r.id))
			continue
		}
		if at := slices.IndexFunc(have, same); at >= 0 {
			keep = append(keep, have[at])
		} else {
			fresh = append(fresh, r)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, r := range fresh {
		e.pool.add(r)
	}
	for _, r := range have {
		if !slices.Contains(keep, r) {
			e.pool.remove(r, true)
		}
	}
	return nil
}

// watchList reads the list again whenever its file changes. A list that cannot be read leaves things as they are.
func (e *Engine) watchList() {
	seen := fileState(e.cfg.ListFile)
	tick := time.NewTicker(e.cfg.Times.ListRefresh)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.over.Done():
			return
		}
		now := fileState(e.cfg.ListFile)
		if now == seen {
			continue
		}
		seen = now
		urls, err := readList(e.cfg.ListFile)
		if err == nil {
			err = e.setURLs(urls)
		}
		if err != nil {
			e.cfg.Log.Error().Str("model", e.pool.name()).Err(err).Msg("the list of upstreams cannot be read; the old one stays")
			continue
		}
		e.cfg.Log.Info().Str("model", e.pool.name()).Int("upstreams", len(urls)).Msg("the list of upstreams has changed")
	}
}

// fileState changes when a file does, replaced by a rename or a link (as Kubernetes does) or written in place.
func fileState(name string) [2]int64 {
	info, err := os.Stat(name)
	if err != nil {
		return [2]int64{}
	}
	return [2]int64{info.ModTime().UnixNano(), info.Size()}
}
