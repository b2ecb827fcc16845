package chat

// Stops ends a text at the first stop string. What could be the beginning of one is held back until it is decided, so
// that nothing of a stop string is shown. The match that ends first wins; of those that end together the longest.
type Stops struct {
	m       *matcher // nil: no stop strings
	include bool
	state   int32
	held    []byte
	hit     bool
}

// NewStops returns a filter for stops, of which empty ones are ignored. include keeps the stop string in the text.
func NewStops(stops []string, include bool) *Stops {
	return &Stops{m: newMatcher(stops), include: include}
}

// Push takes the next piece of text and returns what may be shown. hit tells that a stop string ended the text, stop
// is which; everything after it is dropped, and later calls return nothing but hit.
func (s *Stops) Push(text string) (out, stop string, hit bool) {
	if s.m == nil || s.hit {
		if s.hit {
			text = ""
		}
		return text, "", s.hit
	}
	for i := range len(text) {
		s.state = s.m.step(s.state, text[i])
		if n := s.m.nodes[s.state].match; n > 0 {
			return s.end(append(s.held, text[:i+1]...), n)
		}
	}
	s.held = append(s.held, text...)
	return s.release(len(s.held) - s.m.nodes[s.state].depth), "", false
}

// Flush returns what was held back, at the end of a text that no stop string ended.
func (s *Stops) Flush() string {
	s.state = 0
	return s.release(len(s.held))
}

// end handles text, whose last n bytes are a stop string.
func (s *Stops) end(text []byte, n int) (out, stop string, hit bool) {
	shown, stop := string(text[:len(text)-n]), string(text[len(text)-n:])
	s.held, s.hit = nil, true
	if s.include {
		shown += stop
	}
	return shown, stop, true
}

// release returns the first n held bytes and keeps the rest.
func (s *Stops) release(n int) string {
	out := string(s.held[:n])
	s.held = append(s.held[:0], s.held[n:]...)
	return out
}
