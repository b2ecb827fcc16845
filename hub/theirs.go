package hub

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// theirFolder is where ModelScope's own library keeps a model in a cache, "" if it has none there. It keeps files as they are, from its
// version 1.38 on by revision.
// Source: modelscope_hub 0.5, _download.py (_repo_cache_dir_path, _find_legacy_repo_dir).
func theirFolder(cache, id, revision string) string {
	owner, name, ok := strings.Cut(id, "/")
	if !ok {
		return ""
	}
	roots := []string{cache}
	if filepath.Base(cache) == "hub" {
		roots = append(roots, filepath.Dir(cache))
	}
	for _, root := range roots {
		for _, dir := range []string{
			filepath.Join(root, "models", owner+"--"+name, "snapshots", revision),
			filepath.Join(root, "models", owner, strings.ReplaceAll(name, ".", "___")),
			filepath.Join(root, "hub", "models", owner, strings.ReplaceAll(name, ".", "___")),
		} {
			if info, err := os.Stat(dir); err == nil && info.IsDir() {
				return dir
			}
		}
	}
	return ""
}

// theirFile is the path of a file that ModelScope's library has downloaded, "" if there is none of that size.
func (p *puller) theirFile(f *file) string {
	if p.theirs == "" {
		return ""
	}
	path := filepath.Join(p.theirs, filepath.FromSlash(f.name))
	if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Size() != f.size {
		return ""
	}
	return path
}

// adopt makes a file that ModelScope's library has downloaded our blob, if its contents are right: by a second name for them, or by a
// copy where there are none.
func (p *puller) adopt(path, blob string, f *file) (done bool, err error) {
	in, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it has just been deleted
	}
	if err != nil {
		return false, err
	}
	defer in.Close()
	if verify(in, f, f.size) != nil {
		return false, nil // of another revision
	}
	if os.Link(path, blob) == nil {
		return true, nil
	}
	if err := copyFile(blob+".incomplete", path); err != nil {
		return false, err
	}
	return true, os.Rename(blob+".incomplete", blob)
}
