package hub

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Hub says where a checkpoint comes from.
type Hub string

// The hubs.
const (
	HuggingFace Hub = "huggingface"
	ModelScope  Hub = "modelscope"
	Modelers    Hub = "modelers" // openMind's
)

// file is a file of a repository. Its etag names its blob: the SHA-256 of large files, the git hash of small ones.
type file struct {
	name   string
	size   int64 // -1: not told
	sha256 string
	git    string // SHA-1 of "blob SIZE\0" and the contents
}

func (f *file) etag() string {
	if f.sha256 != "" {
		return f.sha256
	}
	return f.git
}

// listing is a repository at one commit.
type listing struct {
	commit string
	files  []file
}

// remote is one hub's dialect.
type remote interface {
	// list tells the commit of a revision and its files.
	list(ctx context.Context, c *client, id, revision string) (listing, error)
	// address is where a file of a listing is.
	address(id string, l listing, revision, name string) string
	// branch is the hub's word for the main branch.
	branch() string
	// page is where people see a model.
	page(id string) string
}

func remoteOf(h Hub, endpoint string) (remote, error) {
	endpoint = strings.TrimSuffix(endpoint, "/")
	switch h {
	case HuggingFace:
		return huggingFace{endpoint}, nil
	case ModelScope:
		return modelScope{endpoint}, nil
	case Modelers:
		return modelers{endpoint}, nil
	}
	return nil, fmt.Errorf("no hub is named %q", h)
}

// quotePath escapes a path's elements.
func quotePath(p string) string {
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}

// huggingFace is Hugging Face's own dialect, which its mirrors speak too.
// Source: huggingface_hub 2.4, hf_api.py (model_info with files_metadata) and file_download.py.
type huggingFace struct{ endpoint string }

func (huggingFace) branch() string          { return "main" }
func (h huggingFace) page(id string) string { return h.endpoint + "/" + id }

func (h huggingFace) list(ctx context.Context, c *client, id, revision string) (l listing, err error) {
	var info struct {
		SHA      string `json:"sha"`
		Siblings []struct {
			Name   string `json:"rfilename"`
			Size   *int64 `json:"size"`
			BlobID string `json:"blobId"`
			LFS    *struct {
				SHA256 string `json:"sha256"`
				Size   int64  `json:"size"`
			} `json:"lfs"`
		} `json:"siblings"`
	}
	address := fmt.Sprintf("%s/api/models/%s/revision/%s?blobs=true", h.endpoint, quotePath(id), url.PathEscape(revision))
	if err := c.getJSON(ctx, address, &info); err != nil {
		return l, err
	}
	l.commit = info.SHA
	for _, s := range info.Siblings {
		f := file{name: s.Name, size: -1, git: s.BlobID}
		if s.Size != nil {
			f.size = *s.Size
		}
		if s.LFS != nil {
			f.sha256, f.size = s.LFS.SHA256, s.LFS.Size
		}
		l.files = append(l.files, f)
	}
	return l, nil
}

func (h huggingFace) address(id string, l listing, _, name string) string {
	return fmt.Sprintf("%s/%s/resolve/%s/%s", h.endpoint, quotePath(id), l.commit, quotePath(name))
}

// modelScope is ModelScope's dialect. It tells no commit: a listing's own hash stands for it.
// Source: modelscope_hub 0.5, _legacy_api.py (repo/files, repo?FilePath).
type modelScope struct{ endpoint string }

func (modelScope) branch() string          { return "master" }
func (h modelScope) page(id string) string { return h.endpoint + "/models/" + id }

// modelScopeLimit is how many files the hub lists at once; of more it tells nothing.
const modelScopeLimit = 3000

// modelScopeFile is a file or folder of a listing.
type modelScopeFile struct {
	Path, Type, Sha256 string
	Size               *int64
}

func (h modelScope) list(ctx context.Context, c *client, id, revision string) (l listing, err error) {
	files, err := h.folder(ctx, c, id, revision, "", true)
	if err == nil && len(files) >= modelScopeLimit {
		files, err = h.folder(ctx, c, id, revision, "", false)
		for _, f := range files {
			if err == nil && f.Type == "tree" && isRead(f.Path) {
				var below []modelScopeFile
				below, err = h.folder(ctx, c, id, revision, f.Path, false)
				files = append(files, below...)
			}
		}
	}
	if err != nil {
		return l, err
	}
	slices.SortFunc(files, func(a, b modelScopeFile) int { return strings.Compare(a.Path, b.Path) })
	sum := sha1.New()
	for _, s := range files {
		if s.Type == "tree" {
			continue
		}
		f := file{name: s.Path, size: -1, sha256: s.Sha256}
		if s.Size != nil {
			f.size = *s.Size
		}
		fmt.Fprintf(sum, "%s %s\n", f.sha256, f.name)
		l.files = append(l.files, f)
	}
	l.commit = hex.EncodeToString(sum.Sum(nil))
	return l, nil
}

// folder lists a folder, "" for all of the repository, with what is below it if recursive.
func (h modelScope) folder(ctx context.Context, c *client, id, revision, dir string, recursive bool) ([]modelScopeFile, error) {
	var answer struct {
		Code    int
		Message string
		Data    struct{ Files []modelScopeFile }
	}
	query := url.Values{"Revision": {revision}, "Recursive": {"False"}}
	if recursive {
		query.Set("Recursive", "True")
	}
	if dir != "" {
		query.Set("Root", dir)
	}
	address := fmt.Sprintf("%s/api/v1/models/%s/repo/files?%s", h.endpoint, quotePath(id), query.Encode())
	if err := c.getJSON(ctx, address, &answer); err != nil {
		return nil, err
	}
	if answer.Code != 0 && answer.Code != http.StatusOK {
		return nil, &httpError{status: answer.Code, message: answer.Message}
	}
	return answer.Data.Files, nil
}

func (h modelScope) address(id string, _ listing, revision, name string) string {
	query := url.Values{"Revision": {revision}, "FilePath": {name}}
	return fmt.Sprintf("%s/api/v1/models/%s/repo?%s", h.endpoint, quotePath(id), query.Encode())
}

// modelers is openMind's dialect.
// Source: openmind_hub 1.3, om_api.py (list_repo_tree) and file_download.py (info, media).
type modelers struct{ endpoint string }

func (modelers) branch() string          { return "main" }
func (h modelers) page(id string) string { return h.endpoint + "/models/" + id }

func (h modelers) list(ctx context.Context, c *client, id, revision string) (l listing, err error) {
	var paths []string
	folders := []string{""}
	for n := 0; n < len(folders); n++ {
		if n > 100 {
			return l, errors.New("the repository has more than 100 folders")
		}
		var answer struct {
			Data struct {
				Tree []struct{ Type, Path string }
			}
		}
		query := url.Values{"ref": {revision}, "path": {folders[n]}}
		if err := c.getJSON(ctx, fmt.Sprintf("%s/api/v1/file/%s?%s", h.endpoint, quotePath(id), query.Encode()), &answer); err != nil {
			return l, err
		}
		for _, e := range answer.Data.Tree {
			if e.Type == "dir" {
				folders = append(folders, e.Path)
			} else {
				paths = append(paths, e.Path)
			}
		}
	}
	for _, p := range paths {
		var answer struct {
			Data struct {
				Commit string `json:"branch_last_commit"`
				ETag   string
				Size   *int64
			}
		}
		query := url.Values{"ref": {revision}, "path": {p}}
		if err := c.getJSON(ctx, fmt.Sprintf("%s/api/v1/file/%s/info?%s", h.endpoint, quotePath(id), query.Encode()), &answer); err != nil {
			return l, err
		}
		f := file{name: p, size: -1}
		if answer.Data.Size != nil {
			f.size = *answer.Data.Size
		}
		if etag := strings.Trim(strings.TrimPrefix(answer.Data.ETag, "W/"), `"`); len(etag) == 64 {
			f.sha256 = etag
		} else {
			f.git = etag
		}
		l.commit = answer.Data.Commit
		l.files = append(l.files, f)
	}
	return l, nil
}

func (h modelers) address(id string, l listing, _, name string) string {
	return fmt.Sprintf("%s/api/v1/file/%s/%s/media/%s", h.endpoint, quotePath(id), l.commit, quotePath(name))
}

var (
	isCommit = regexp.MustCompile(`^[0-9a-f]{40}$`)
	isSHA256 = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// check refuses a listing that cannot be trusted with names of files.
func (l *listing) check() error {
	if !isCommit.MatchString(l.commit) {
		return fmt.Errorf("the hub names the commit %.60q", l.commit)
	}
	if len(l.files) == 0 || len(l.files) > 20000 {
		return fmt.Errorf("the hub lists %d files", len(l.files))
	}
	seen := map[string]bool{}
	for _, f := range l.files {
		if err := checkName(f.name); err != nil {
			return err
		}
		if seen[f.name] {
			return fmt.Errorf("the hub lists %.80q twice", f.name)
		}
		seen[f.name] = true
		if !isSHA256.MatchString(f.sha256) && !isCommit.MatchString(f.git) {
			return fmt.Errorf("the hub tells no hash of %.80q", f.name)
		}
	}
	return nil
}

// httpError is an answer that is none.
type httpError struct {
	status  int
	code    string // Hugging Face's X-Error-Code
	message string
	after   string // Retry-After
}

func (e *httpError) Error() string {
	text := fmt.Sprintf("HTTP status %d", e.status)
	if e.message != "" {
		text += ": " + e.message
	}
	return text
}

// errorOf reads an answer's error; the body may be anything.
func errorOf(resp *http.Response) *httpError {
	e := &httpError{status: resp.StatusCode, code: resp.Header.Get("X-Error-Code"), message: resp.Header.Get("X-Error-Message"),
		after: resp.Header.Get("Retry-After")}
	if e.message == "" && strings.Contains(resp.Header.Get("Content-Type"), "json") {
		var body struct {
			Error, Message, Msg string
		}
		if data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10)); err == nil && json.Unmarshal(data, &body) == nil {
			e.message = body.Error + body.Message + body.Msg
		}
	}
	if len(e.message) > 200 {
		e.message = e.message[:200] + "…"
	}
	return e
}
