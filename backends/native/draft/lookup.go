package draft

import "fmt"

// Lookup finds the end of a text earlier in the same text and guesses that it goes on as it did there: prompt lookup
// decoding, https://github.com/apoorvumang/prompt-lookup-decoding. Of several places it takes the one where the most
// tokens agree, up to a maximum, and of equals the last.
//
// It is an index over every run of minMatch tokens, linked by hash as in deflate (RFC 1951, section 4), which grows with
// the text: a token costs the same however long the text is, and allocates nothing but the index's doubling.
type Lookup struct {
	minMatch, maxMatch int

	text []int32
	// Positions are those of a run's last token, plus one; 0 is none.
	heads []int32 // by hash: the last run; a power of two long
	prev  []int32 // by position: the run before it with the same hash
}

// maxCandidates is how many earlier places are compared; a run of minMatch tokens may be very common.
const maxCandidates = 32

// NewLookup returns an index of an empty text that finds ends of minMatch tokens or more, and prefers them longer up to
// maxMatch.
func NewLookup(minMatch, maxMatch int) (*Lookup, error) {
	if minMatch < 1 || maxMatch < minMatch {
		return nil, fmt.Errorf("draft: matches of %d to %d tokens", minMatch, maxMatch)
	}
	return &Lookup{minMatch: minMatch, maxMatch: maxMatch}, nil
}

// Len is the number of tokens added.
func (l *Lookup) Len() int { return len(l.text) }

// Add appends tokens to the text.
func (l *Lookup) Add(tokens ...int32) {
	l.text = append(l.text, tokens...)
	if len(l.text) > len(l.heads) {
		l.grow()
	}
	for len(l.prev) < len(l.text) {
		l.link(len(l.prev))
	}
}

// grow makes the index large enough for the text and forgets its contents.
func (l *Lookup) grow() {
	n := max(64, len(l.heads))
	for n < len(l.text) {
		n *= 2
	}
	l.heads, l.prev = make([]int32, n), make([]int32, 0, n)
}

// link puts the run that ends at text[i] into the index.
func (l *Lookup) link(i int) {
	if i+1 < l.minMatch {
		l.prev = append(l.prev, 0)
		return
	}
	head := &l.heads[l.hash(i)]
	l.prev = append(l.prev, *head)
	*head = int32(i + 1)
}

// hash is of the run that ends at text[i]. Equal runs have equal ones.
func (l *Lookup) hash(i int) int {
	h := uint64(0)
	for _, t := range l.text[i+1-l.minMatch : i+1] {
		h = (h ^ uint64(uint32(t))) * 0x9e3779b97f4a7c15 // 2^64 over the golden ratio
		h ^= h >> 29
	}
	return int(h & uint64(len(l.heads)-1))
}

// Draft appends up to n tokens to list that may follow the text, none where its end is not found. Where the place
// found is less than n tokens back, the guess goes on with itself: a text that goes round in circles is guessed
// to go on so.
func (l *Lookup) Draft(list []int32, n int) []int32 {
	from := l.find()
	if from == 0 {
		return list
	}
	start := len(list)
	for i := range n {
		if from+i < len(l.text) {
			list = append(list, l.text[from+i])
		} else {
			list = append(list, list[start+from+i-len(l.text)])
		}
	}
	return list
}

// find returns the position behind the best earlier match of the text's end, 0 for none.
func (l *Lookup) find() int {
	last := len(l.text) - 1
	if last < 0 {
		return 0
	}
	best, longest := 0, l.minMatch-1
	candidate := int(l.prev[last])
	for range maxCandidates {
		if candidate == 0 || longest == l.maxMatch {
			break
		}
		if n := l.match(candidate); n > longest {
			best, longest = candidate, n
		}
		candidate = int(l.prev[candidate-1])
	}
	return best
}

// match is how many tokens before position p, up to maxMatch, are those at the text's end.
func (l *Lookup) match(p int) int {
	n := 0
	for n < l.maxMatch && n < p && l.text[p-1-n] == l.text[len(l.text)-1-n] {
		n++
	}
	return n
}
