package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Options say what to pull and how. Zero values take what the environment says, as FromEnvironment reads it.
type Options struct {
	Hub      Hub
	Endpoint string // of the hub
	Cache    string // folder of all models
	Token    string // "": none
	ID       string // ORG/NAME, or NAME
	Revision string // branch, tag or commit; "" is the main branch
	Offline  bool   // use the cache only
	TextOnly bool   // leave the weights: for a model that another program computes

	// Progress, if there is one, is told how far the pull is, some times a second, and once at the end.
	Progress func(Progress)
	// Note, if there is one, is told what may be worth a line in a log.
	Note func(message string)

	Transport http.RoundTripper // nil: http.DefaultTransport
	Pause     time.Duration     // before the first retry; 0 is a second
	Stall     time.Duration     // longest time without a byte; 0 is a minute
}

// Progress is how far a pull is.
type Progress struct {
	Done, Total int64 // bytes; Done includes what was there already
	Files       int
	File        string // one that is on its way
}

const (
	retries = 5 // in a row without a byte
	atOnce  = 4 // files
)

// FromEnvironment fills what is not set from the variables of the hubs' own libraries.
func (o Options) FromEnvironment(getenv func(string) string) Options {
	first := func(p *string, values ...string) {
		for _, v := range values {
			if *p == "" {
				*p = v
			}
		}
	}
	path := func(name string) string { return expand(getenv(name), getenv) }
	caches := path("XDG_CACHE_HOME")
	first(&caches, filepath.Join(getenv("HOME"), ".cache"))
	if o.Hub == "" {
		o.Hub = HuggingFace
	}
	switch o.Hub {
	case HuggingFace:
		hf := path("HF_HOME")
		first(&hf, filepath.Join(caches, "huggingface"))
		first(&o.Endpoint, strings.TrimRight(getenv("HF_ENDPOINT"), "/"), "https://huggingface.co")
		first(&o.Cache, path("HF_HUB_CACHE"), path("HUGGINGFACE_HUB_CACHE"), filepath.Join(hf, "hub"))
		token := path("HF_TOKEN_PATH")
		first(&token, filepath.Join(hf, "token"))
		if !isTrue(getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
			first(&o.Token, strings.TrimSpace(getenv("HF_TOKEN")), strings.TrimSpace(getenv("HUGGING_FACE_HUB_TOKEN")), readToken(token))
		}
		offline := getenv("HF_HUB_OFFLINE")
		first(&offline, getenv("TRANSFORMERS_OFFLINE"))
		o.Offline = o.Offline || isTrue(offline)
	case ModelScope:
		endpoint := strings.TrimRight(getenv("MODELSCOPE_ENDPOINT"), "/")
		first(&endpoint, getenv("MODELSCOPE_DOMAIN"), "www.modelscope.cn")
		if !strings.Contains(endpoint, "://") {
			endpoint = "https://" + endpoint
		}
		first(&o.Endpoint, endpoint)
		first(&o.Cache, path("MODELSCOPE_CACHE"), filepath.Join(caches, "modelscope", "hub"))
		first(&o.Token, getenv("MODELSCOPE_API_TOKEN"))
	case Modelers:
		first(&o.Endpoint, getenv("OPENMIND_HUB_ENDPOINT"), "https://modelers.cn")
		first(&o.Cache, filepath.Join(caches, "openmind", "hub"))
		first(&o.Token, getenv("OM_HUB_TOKEN"), getenv("OPENMIND_HUB_TOKEN"))
	}
	return o
}

// expand replaces a leading ~ and variables, as the libraries do; variables that are not set stay.
func expand(path string, getenv func(string) string) string {
	if rest, ok := strings.CutPrefix(path, "~"); ok && (rest == "" || rest[0] == '/') {
		path = getenv("HOME") + rest
	}
	return os.Expand(path, func(name string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return "${" + name + "}"
	})
}

func readToken(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func isTrue(s string) bool {
	switch strings.ToLower(s) {
	case "1", "true", "yes", "on":
		return true
	}
	return false
}

var (
	validID       = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?$`)
	validRevision = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._/-]*$`)
)

// IsID says whether a name may be a model's on a hub.
func IsID(name string) bool {
	return validID.MatchString(name) && !strings.Contains(name, "..") && len(name) <= 192
}

// Pull makes a checkpoint complete in the cache and returns its folder. If the hub cannot be reached, what an earlier pull has
// left will do. It may be cancelled, and goes on where it was the next time.
func Pull(ctx context.Context, o Options) (dir string, err error) {
	p, err := newPuller(o)
	if err != nil {
		return "", fmt.Errorf("pull %.200s: %w", o.ID, err)
	}
	if dir, err = p.pull(ctx); err != nil {
		return "", fmt.Errorf("pull %s from %s: %w", o.ID, p.o.Hub, err)
	}
	return dir, nil
}

type puller struct {
	o      Options
	remote remote
	client *client
	cache  cache
	theirs string // folder of the model as ModelScope's library keeps it; "" if there is none

	mu       sync.Mutex // guards what follows
	progress Progress
	told     time.Time
}

func newPuller(o Options) (*puller, error) {
	if !IsID(o.ID) {
		return nil, errors.New("it is not the id of a model, which is like Qwen/Qwen3-0.6B")
	}
	r, err := remoteOf(o.Hub, o.Endpoint)
	if err != nil {
		return nil, err
	}
	at, err := url.Parse(o.Endpoint)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		return nil, fmt.Errorf("the hub's address %q is not like https://huggingface.co", o.Endpoint)
	}
	if o.Revision == "" || o.Hub == ModelScope && o.Revision == "main" {
		o.Revision = r.branch()
	}
	if !validRevision.MatchString(o.Revision) || strings.Contains(o.Revision, "..") {
		return nil, fmt.Errorf("%.100q is no revision", o.Revision)
	}
	if o.Cache == "" {
		return nil, errors.New("there is no folder for downloads")
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport
	}
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	p := &puller{o: o, remote: r,
		client: &client{http: newHTTP(o.Transport), token: o.Token, cookie: o.Hub == ModelScope, host: at.Host, retries: retries,
			pause: o.Pause, stall: o.Stall},
		cache: cache{root: o.Cache, folder: "models--" + strings.ReplaceAll(o.ID, "/", "--")}}
	if o.Hub == ModelScope {
		p.theirs = theirFolder(o.Cache, o.ID, o.Revision)
	}
	return p, nil
}

func (p *puller) pull(ctx context.Context) (string, error) {
	known, have := p.cache.ref(p.o.Revision), ""
	if known != "" && complete(p.cache.snapshot(known), p.o.TextOnly) {
		have = p.cache.snapshot(known)
		if known == p.o.Revision { // a commit never changes
			return have, nil
		}
	} else if p.theirs != "" && complete(p.theirs, p.o.TextOnly) {
		have = p.theirs
	}
	if p.o.Offline && have == "" {
		return "", fmt.Errorf("it is not in %s, and downloads are turned off (offline)", p.o.Cache)
	}
	if p.o.Offline {
		return have, nil
	}
	l, err := p.remote.list(ctx, p.client, p.o.ID, p.o.Revision)
	if err != nil {
		if have != "" && ctx.Err() == nil && temporary(err) {
			p.note(fmt.Sprintf("the hub cannot be reached (%v): %s as downloaded before is used", err, p.o.ID))
			return have, nil
		}
		return "", p.explain(err)
	}
	if err := l.check(); err != nil {
		return "", err
	}
	files, err := needed(l.files, p.o.TextOnly)
	if err != nil {
		return "", err
	}
	if err := p.hasRoom(files); err != nil {
		return "", err
	}
	if err := p.fetchAll(ctx, l, files); err != nil {
		return "", p.explain(err)
	}
	return p.cache.snapshot(l.commit), p.cache.setRef(p.o.Revision, l.commit)
}

func (p *puller) note(message string) {
	if p.o.Note != nil {
		p.o.Note(message)
	}
}

// explain tells what to do about an error that the hub has given.
func (p *puller) explain(err error) error {
	e, ok := errors.AsType[*httpError](err)
	if !ok {
		return err
	}
	page := p.remote.page(p.o.ID)
	switch {
	case e.code == "GatedRepo" || e.status == http.StatusForbidden:
		return fmt.Errorf("it wants its licence accepted on %s, and a token of the account that has (%s): %w", page, p.tokenOption(), err)
	case e.code == "RevisionNotFound":
		return fmt.Errorf("there is no revision %q: %w", p.o.Revision, err)
	case e.status == http.StatusUnauthorized && p.o.Token == "":
		return fmt.Errorf("there is no such model on %s, or it is private and wants a token (%s): %w", page, p.tokenOption(), err)
	case e.status == http.StatusUnauthorized:
		return fmt.Errorf("there is no such model on %s, or the token is not allowed to see it: %w", page, err)
	case e.status == http.StatusNotFound:
		return fmt.Errorf("there is no such model, or no revision %q of it, on %s: %w", p.o.Revision, page, err)
	}
	return err
}

func (p *puller) tokenOption() string {
	return map[Hub]string{HuggingFace: "hf_hub_token", ModelScope: "ms_hub_token", Modelers: "om_hub_token"}[p.o.Hub]
}

// hasRoom counts what is still to come, and reports if it cannot be stored.
func (p *puller) hasRoom(files []file) error {
	if err := os.MkdirAll(p.cache.path("blobs"), 0o755); err != nil {
		return err
	}
	var missing int64
	for _, f := range files {
		size := max(f.size, 0)
		p.progress.Total += size
		if info, err := os.Stat(p.cache.path("blobs", f.etag())); err == nil {
			size -= info.Size()
		} else if info, err := os.Stat(p.cache.path("blobs", f.etag()+".incomplete")); err == nil {
			size -= info.Size()
		} else if p.theirFile(&f) != "" {
			size = 0
		}
		missing += max(size, 0)
	}
	p.progress.Files = len(files)
	if have := room(p.cache.path("blobs")); have >= 0 && missing > have {
		return fmt.Errorf("%d MiB are to be downloaded, and %s has room for %d MiB only", missing>>20, p.o.Cache, have>>20)
	}
	return nil
}

// fetchAll downloads the files, some at once. The first error ends all.
func (p *puller) fetchAll(ctx context.Context, l listing, files []file) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan *file)
	var wg sync.WaitGroup
	for range min(atOnce, len(files)) {
		wg.Go(func() {
			for f := range next {
				if err := p.fetch(ctx, l, f); err != nil {
					cancel(fmt.Errorf("%s: %w", f.name, err))
				}
			}
		})
	}
	for i := range files {
		select {
		case next <- &files[i]:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	p.tell("", 0, true)
	return context.Cause(ctx)
}

// fetch makes sure that a file is in the snapshot.
func (p *puller) fetch(ctx context.Context, l listing, f *file) error {
	etag := f.etag()
	blob := p.cache.path("blobs", etag)
	unlock, err := p.cache.lock(ctx, etag)
	if err != nil {
		return err
	}
	defer unlock()
	if info, err := os.Stat(blob); err == nil && (f.size < 0 || info.Size() == f.size) {
		p.tell(f.name, info.Size(), false)
		return p.cache.link(l.commit, f.name, etag)
	}
	if path := p.theirFile(f); path != "" {
		if done, err := p.adopt(path, blob, f); err != nil {
			return err
		} else if done {
			p.tell(f.name, f.size, false)
			return p.cache.link(l.commit, f.name, etag)
		}
	}
	address := p.remote.address(p.o.ID, l, p.o.Revision, f.name)
	if err := p.client.download(ctx, address, blob+".incomplete", f, func(n int64) { p.tell(f.name, n, false) }); err != nil {
		return err
	}
	if err := os.Rename(blob+".incomplete", blob); err != nil {
		return err
	}
	return p.cache.link(l.commit, f.name, etag)
}

// tell adds n bytes and reports, now and then.
func (p *puller) tell(name string, n int64, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress.Done += n
	if name != "" {
		p.progress.File = name
	}
	if p.o.Progress == nil || !last && time.Since(p.told) < 100*time.Millisecond {
		return
	}
	p.told = time.Now()
	p.o.Progress(p.progress)
}
