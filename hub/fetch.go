package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// client speaks to one hub.
type client struct {
	http    *http.Client
	token   string
	cookie  bool // the token goes into ModelScope's cookie too
	host    string
	retries int
	pause   time.Duration // before the first retry; doubles
	stall   time.Duration // longest time without a byte
}

// newHTTP makes a client that follows redirects without carrying the token to another host.
func newHTTP(base http.RoundTripper) *http.Client {
	return &http.Client{Transport: base, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errors.New("more than 10 redirects")
		}
		if first := via[0].URL; req.URL.Host != first.Host || first.Scheme == "https" && req.URL.Scheme != "https" {
			req.Header.Del("Authorization")
			req.Header.Del("Cookie")
		}
		return nil
	}}
}

// do sends a request with headers and returns the answer if its status is one of 200 and 206.
func (c *client) do(ctx context.Context, address string, headers map[string]string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "pagoda")
	req.Header.Set("Accept-Encoding", "identity") // or ranges and sizes would be of something else
	if c.token != "" && req.URL.Host == c.host {
		req.Header.Set("Authorization", "Bearer "+c.token)
		if c.cookie {
			req.AddCookie(&http.Cookie{Name: "m_session_id", Value: c.token})
		}
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		defer resp.Body.Close()
		return nil, errorOf(resp)
	}
	return resp, nil
}

const maxListing = 64 << 20

// getJSON reads an answer, trying again where that may help.
func (c *client) getJSON(ctx context.Context, address string, to any) error {
	return c.again(ctx, func() (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*c.stall)
		defer cancel()
		resp, err := c.do(ctx, address, nil)
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxListing+1))
		if err != nil {
			return false, err
		}
		if len(data) > maxListing {
			return false, fatal{fmt.Errorf("a listing of more than %d MiB", maxListing>>20)}
		}
		if err := json.Unmarshal(data, to); err != nil {
			return false, fatal{fmt.Errorf("the hub's answer is not what was expected: %w", err)}
		}
		return false, nil
	})
}

// fatal is an error that another try would meet too.
type fatal struct{ error }

func (e fatal) Unwrap() error { return e.error }

// again calls f until it succeeds, fails for good, or has failed too often without progress.
func (c *client) again(ctx context.Context, f func() (progress bool, err error)) error {
	pause := c.pause
	for try := 1; ; try++ {
		progress, err := f()
		if err == nil || !temporary(err) || ctx.Err() != nil {
			return err
		}
		if progress {
			try, pause = 1, c.pause
		}
		if try > c.retries {
			return fmt.Errorf("%d times in a row: %w", try, err)
		}
		wait := pause + time.Duration(rand.Int64N(int64(pause)/2+1))
		if e, ok := errors.AsType[*httpError](err); ok && e.after != "" {
			if seconds, err := strconv.Atoi(e.after); err == nil && seconds >= 0 {
				wait = min(time.Duration(seconds)*time.Second, time.Minute)
			}
		}
		pause = min(2*pause, 20*c.pause)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func temporary(err error) bool {
	if _, ok := errors.AsType[fatal](err); ok {
		return false
	}
	if e, ok := errors.AsType[*httpError](err); ok {
		return e.status == http.StatusTooManyRequests || e.status == http.StatusRequestTimeout || e.status >= 500
	}
	return true // connections
}

// download completes the file at path, which may hold its beginning. done is told of bytes as they come, and of fewer if some
// turn out to be wrong.
func (c *client) download(ctx context.Context, address, path string, f *file, done func(int64)) error {
	out, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fatal{err}
	}
	defer out.Close()
	have, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	done(have)
	restart := func() error {
		done(-have)
		have = 0
		return out.Truncate(0)
	}
	if f.size >= 0 && have > f.size {
		if err := restart(); err != nil {
			return err
		}
	}
	checked := 0
	return c.again(ctx, func() (progress bool, err error) {
		before := have
		if have != f.size {
			if err = c.rest(ctx, address, out, f, &have, done, restart); err != nil {
				return have > before, err
			}
		}
		if err = verify(out, f, have); err == nil {
			return true, out.Sync()
		}
		if checked++; checked > 1 {
			return false, fatal{err}
		}
		return false, errors.Join(err, restart()) // what was there of an earlier try may be to blame
	})
}

// rest gets the bytes from have on.
func (c *client) rest(ctx context.Context, address string, out *os.File, f *file, have *int64, done func(int64), restart func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(c.stall, func() { cancel(errStalled) })
	defer watch.Stop()
	headers := map[string]string{}
	if *have > 0 {
		headers["Range"] = fmt.Sprintf("bytes=%d-", *have)
	}
	resp, err := c.do(ctx, address, headers)
	if e, ok := errors.AsType[*httpError](err); ok && e.status == http.StatusRequestedRangeNotSatisfiable {
		return errors.Join(restart(), errRange)
	}
	if err != nil {
		return causeOf(ctx, err)
	}
	defer resp.Body.Close()
	if *have > 0 && (resp.StatusCode != http.StatusPartialContent || !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", *have))) {
		if err := restart(); err != nil {
			return err
		}
		if resp.StatusCode == http.StatusPartialContent {
			return errRange // not what was asked for
		}
	}
	if _, err := out.Seek(*have, io.SeekStart); err != nil {
		return fatal{err}
	}
	buffer := make([]byte, 256<<10)
	for {
		n, err := resp.Body.Read(buffer)
		if n > 0 {
			watch.Reset(c.stall)
			if f.size >= 0 && *have+int64(n) > f.size {
				return fatal{fmt.Errorf("%s is longer than the %d bytes that the hub announced", f.name, f.size)}
			}
			if _, err := out.Write(buffer[:n]); err != nil {
				return fatal{err}
			}
			*have += int64(n)
			done(int64(n))
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return causeOf(ctx, err)
		}
	}
	if f.size >= 0 && *have < f.size {
		return fmt.Errorf("the connection ended after %d of %d bytes", *have, f.size)
	}
	return nil
}

var (
	errStalled = errors.New("no byte has come for too long")
	errRange   = errors.New("the hub does not continue where it was asked to")
)

func causeOf(ctx context.Context, err error) error {
	if context.Cause(ctx) == errStalled {
		return errStalled
	}
	return err
}

// verify holds a whole file to its hash.
func verify(r io.ReadSeeker, f *file, size int64) error {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var sum hash.Hash
	want := f.sha256
	if want != "" {
		sum = sha256.New()
	} else {
		sum, want = sha1.New(), f.git
		fmt.Fprintf(sum, "blob %d\x00", size)
	}
	if _, err := io.Copy(sum, r); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("%s has the hash %s, the hub says %s", f.name, got, want)
	}
	return nil
}
