package token

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// maxSplitWork bounds the sum of squares of the tokens' lengths, which finding the merges takes: the largest
// vocabularies come to some ten millions.
const maxSplitWork = 1 << 30

// byteLetters are the letters by which byte-level BPE writes bytes.
var byteLetters = func() (letters [256]rune) {
	next := rune(256)
	for b := range letters {
		if '!' <= b && b <= '~' || '¡' <= b && b <= '¬' || '®' <= b {
			letters[b] = rune(b)
		} else {
			letters[b], next = next, next+1
		}
	}
	return letters
}()

func spell(token []byte) string {
	out := make([]rune, len(token))
	for i, b := range token {
		out[i] = byteLetters[b]
	}
	return string(out)
}

// rankedBPE makes the model of tokens given as bytes, in the order of their ranks: a token is the merge of each two
// tokens that make it up. The ids of rank 0 and on follow those of before, which are no tokens of the merging.
func (c *conversion) rankedBPE(tokens [][]byte, before []string) error {
	rank := make(map[string]int, len(tokens))
	work := 0
	for i, t := range tokens {
		if len(t) == 0 {
			return fmt.Errorf("token %d is empty", i)
		}
		rank[string(t)] = i
		if work += len(t) * len(t); work > maxSplitWork {
			return errors.New("its tokens are too long")
		}
	}
	type pair struct{ left, right int }
	merges := [][2]string{} // never null in JSON
	vocab := slices.Clone(before)
	for i, t := range tokens {
		vocab = append(vocab, spell(t))
		if rank[string(t)] != i {
			continue // a token that comes again later, which is the one that counts
		}
		var pairs []pair
		for cut := 1; cut < len(t); cut++ {
			left, okLeft := rank[string(t[:cut])]
			right, okRight := rank[string(t[cut:])]
			if okLeft && okRight {
				pairs = append(pairs, pair{left, right})
			}
		}
		slices.SortFunc(pairs, func(a, b pair) int { return cmp.Or(a.left-b.left, a.right-b.right) })
		for _, p := range pairs {
			merges = append(merges, [2]string{spell(tokens[p.left]), spell(tokens[p.right])})
		}
	}
	c.ids = idsOf(vocab)
	c.model = object{"type": "BPE", "vocab": entries(vocab), "merges": merges, "ignore_merges": true}
	c.decoder = byteLevel(true, true)
	c.postProcessor = object{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true}
	return nil
}

// isolate splits text by a pattern and writes its bytes as letters.
func isolate(pattern string) object {
	return sequence("Sequence", "pretokenizers", split(regex(pattern), "Isolated"), byteLevel(false, false))
}

// readTiktoken reads lines of a token in base64 and its rank; ranks count from 0.
func readTiktoken(data []byte) ([][]byte, error) {
	var tokens [][]byte
	for i, line := range bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
		fields := bytes.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("line %d is not a token and its rank", i+1)
		}
		token, err := base64.StdEncoding.AppendDecode(nil, fields[0])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if n, err := strconv.Atoi(string(fields[1])); err != nil || n != len(tokens) {
			return nil, fmt.Errorf("line %d has rank %q, not %d", i+1, fields[1], len(tokens))
		}
		tokens = append(tokens, token)
	}
	return tokens, nil
}

// tiktoken is the file of Llama 3. Ids beyond its ranks are the configuration's added tokens, and reserved tokens between
// them.
func (c *conversion) tiktoken() error {
	tokens, err := readTiktoken(c.vocabulary)
	if err != nil {
		return err
	}
	if err := c.rankedBPE(tokens, nil); err != nil {
		return err
	}
	c.preTokenizer = isolate(patternLlama3)
	last := len(tokens) - 1
	for id := range c.conf.AddedTokens {
		last = max(last, id)
	}
	if last-len(tokens) > maxSpecials {
		return fmt.Errorf("added token %d is more than %d above the file's last rank", last, maxSpecials)
	}
	for id := len(tokens); id <= last; id++ {
		t, ok := c.conf.AddedTokens[id]
		if !ok {
			t.Content = fmt.Sprintf("<|reserved_token_%d|>", id)
		}
		c.addAt(id, t.Content)
	}
	if c.conf.AddBOS != nil || c.conf.AddEOS != nil {
		c.postProcessor = c.bosEOS()
	}
	return nil
}

// maxSpecials bounds the control tokens that a file implies without naming them; Mistral's have 1,000.
const maxSpecials = 1 << 16

// qwen is Qwen 1's vocabulary, whose control tokens follow its ranks. Source: the checkpoint's own code.
func (c *conversion) qwen() error {
	tokens, err := readTiktoken(c.vocabulary)
	if err != nil {
		return err
	}
	if err := c.rankedBPE(tokens, nil); err != nil {
		return err
	}
	c.normalizer = object{"type": "NFC"}
	c.preTokenizer = isolate(patternQwen)
	specials := []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
	for i := range 205 {
		specials = append(specials, fmt.Sprintf("<|extra_%d|>", i))
	}
	for i, s := range specials {
		c.addAt(len(tokens)+i, s)
	}
	c.conf.class = "QWenTokenizer"
	c.conf.setDefaults()
	return nil
}

// tekkenFile is Mistral's tekken.json.
type tekkenFile struct {
	Config struct {
		Pattern     string `json:"pattern"`
		VocabSize   *int   `json:"default_vocab_size"`
		NumSpecials *int   `json:"default_num_special_tokens"`
	} `json:"config"`
	Vocab []struct {
		Bytes []byte `json:"token_bytes"`
	} `json:"vocab"`
	Specials []struct {
		Rank    int    `json:"rank"`
		Content string `json:"token_str"`
	} `json:"special_tokens"`
}

// oldTekkenSpecials are the control tokens of files that list none. Source: mistral-common 1.8.
var oldTekkenSpecials = []string{"<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
	"[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]",
	"[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"}

// tekken is Mistral's file: control tokens first, then the ranks.
func (c *conversion) tekken() error {
	var f tekkenFile
	if err := json.Unmarshal(c.vocabulary, &f); err != nil {
		return err
	}
	specials := slices.Clone(oldTekkenSpecials)
	if f.Specials != nil {
		specials = make([]string, len(f.Specials))
		for _, s := range f.Specials {
			if s.Rank < 0 || s.Rank >= len(specials) || specials[s.Rank] != "" || s.Content == "" {
				return fmt.Errorf("special_tokens: rank %d is not one of 0 to %d, once each", s.Rank, len(specials)-1)
			}
			specials[s.Rank] = s.Content
		}
	}
	n := or(f.Config.NumSpecials, len(specials))
	if n < len(specials) || n > maxSpecials {
		return fmt.Errorf("config.default_num_special_tokens: %d is not between %d, which are named, and %d", n, len(specials),
			maxSpecials)
	}
	for i := len(specials); i < n; i++ {
		specials = append(specials, fmt.Sprintf("<SPECIAL_%d>", i))
	}
	if size := or(f.Config.VocabSize, n+len(f.Vocab)) - n; size < 0 {
		return fmt.Errorf("config.default_vocab_size: %d is below the number of control tokens", size+n)
	} else if size < len(f.Vocab) {
		f.Vocab = f.Vocab[:size]
	}
	tokens := make([][]byte, len(f.Vocab))
	for i, v := range f.Vocab {
		tokens[i] = v.Bytes
	}
	if err := c.rankedBPE(tokens, specials); err != nil {
		return err
	}
	c.preTokenizer = isolate(f.Config.Pattern)
	for i, s := range specials {
		c.addAt(i, s)
	}
	for key, content := range map[string]string{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"} {
		if _, ok := c.ids[content]; ok {
			c.conf.setDefault(key, content)
		}
	}
	if c.conf.AddBOS != nil || c.conf.AddEOS != nil {
		c.postProcessor = c.bosEOS()
	}
	return nil
}
