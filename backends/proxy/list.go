package proxy

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
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

// replicasOf makes a replica of each URL, and reports all that are wrong. Messages show no URL that may hold a password.
func replicasOf(urls []string, key string, d *Dialect, silence time.Duration) ([]*replica, error) {
	var out []*replica
	var errs []error
	for i, u := range urls {
		shown := strconv.Quote(u)
		if strings.ContainsAny(u, "@?#") {
			shown = fmt.Sprintf("upstream %d", i+1)
		}
		r, err := newReplica(u, key, d, silence)
		if err == nil && slices.ContainsFunc(out, r.same) {
			err = errors.New("is given twice")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %w", shown, err))
			continue
		}
		out = append(out, r)
	}
	return out, errors.Join(errs...)
}

// same says whether both are at one address.
func (r *replica) same(other *replica) bool { return r.base == other.base && r.id == other.id }

// CheckURLs reports what is wrong with the URLs of running servers, or with the key for them.
func CheckURLs(urls []string, key string) error {
	_, err := replicasOf(urls, key, &Dialect{}, 0)
	return err
}

// CheckList does so for a file with one URL a line.
func CheckList(name, key string) error {
	urls, err := readList(name)
	if err == nil {
		err = CheckURLs(urls, key)
	}
	return err
}

// setURLs makes the pool's upstreams those of urls: new ones are taken in, those that are missing finish what they have.
// A URL that is wrong changes nothing.
func (e *Engine) setURLs(urls []string) error {
	listed, err := replicasOf(urls, e.cfg.Key, e.d, e.cfg.Times.Lost)
	if err != nil {
		return err
	}
	have := e.pool.list()
	for _, r := range listed {
		if !slices.ContainsFunc(have, r.same) {
			e.pool.add(r)
		}
	}
	for _, r := range have {
		if !slices.ContainsFunc(listed, r.same) {
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
