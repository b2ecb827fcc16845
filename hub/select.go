package hub

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// kept are the names that serving reads, by their end.
var kept = []string{".json", ".jinja", ".safetensors", ".model", ".tiktoken", ".txt"}

// module is a folder of a sentence-transformers model, such as 1_Pooling.
var module = regexp.MustCompile(`^[0-9]+_[A-Za-z]+$`)

// isRead says whether serving reads files in a folder of a repository.
func isRead(dir string) bool {
	return dir == "." || module.MatchString(dir) || dir == "additional_chat_templates"
}

// needed are the files of a repository that serving needs. Weights must be safetensors, which hold no code; of weights in
// several formats only those are taken; with textOnly none.
func needed(files []file, textOnly bool) ([]file, error) {
	var out []file
	weights, other := false, ""
	for _, f := range files {
		if !isRead(path.Dir(f.name)) {
			continue
		}
		switch ext := path.Ext(f.name); {
		case textOnly && ext == ".safetensors":
		case ext == ".bin" || ext == ".pt" || ext == ".pth" || ext == ".gguf" || ext == ".h5":
			other = f.name
		case slices.Contains(kept, ext):
			out = append(out, f)
			weights = weights || ext == ".safetensors"
		}
	}
	if textOnly {
		return out, nil
	}
	if !weights && other != "" {
		return nil, fmt.Errorf("its weights are not in safetensors but in %s: convert them first, for example with transformers' "+
			"save_pretrained", other)
	}
	if !weights {
		return nil, fmt.Errorf("it has no weights in safetensors among %d files", len(files))
	}
	return withoutTwins(out), nil
}

// withoutTwins leaves weights out that are there twice: Mistral's own layout beside Hugging Face's.
func withoutTwins(files []file) []file {
	index := func(f file) bool {
		return strings.HasPrefix(f.name, "model") && strings.HasSuffix(f.name, ".safetensors")
	}
	if !slices.ContainsFunc(files, index) {
		return files
	}
	return slices.DeleteFunc(files, func(f file) bool { return strings.HasPrefix(f.name, "consolidated") })
}

// checkName reports a name that would leave the folder or that a file system may not take.
func checkName(name string) error {
	if !filepath.IsLocal(name) || strings.ContainsAny(name, "\\\x00:") || path.Clean(name) != name || len(name) > 512 ||
		strings.HasSuffix(name, ".incomplete") || strings.HasSuffix(name, ".lock") {
		return fmt.Errorf("the hub lists a file named %.80q, which is no name", name)
	}
	return nil
}
