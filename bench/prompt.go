package bench

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// words are common enough to be one token each, with the space before them, in most vocabularies.
var words = strings.Fields(`the of and to in is that it was for on are with as his they be at one have this from had by
	hot but some what there we can out other were all your when up use word how said an each she which do their time if
	will way about many then them would write like so these her long make thing see him two has look more day could go
	come did my sound no most number who over know water than call first people may down side been now find any new work
	part take get place made live where after back little only round man year came show every good me give our under`)

// prompts makes random prompts: the same lengths in the same order have the same words, but for a mark at the start
// that no other prompt of any run has, so that a prefix cache finds nothing.
type prompts struct {
	mu   sync.Mutex // guards what follows
	rng  *rand.Rand
	mark int64
}

func newPrompts() *prompts {
	return &prompts{rng: rand.New(rand.NewPCG(1, 2)), mark: time.Now().UnixNano()}
}

// next returns a new mark and n numbers in [0, below).
func (p *prompts) next(n, below int) (mark int64, picks []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mark++
	picks = make([]int, n)
	for i := range picks {
		picks[i] = p.rng.IntN(below)
	}
	return p.mark, picks
}

// text is a prompt of n words.
func (p *prompts) text(n int) string {
	mark, picks := p.next(n, len(words))
	var b strings.Builder
	fmt.Fprintf(&b, "%x", mark)
	for _, i := range picks {
		b.WriteString(" " + words[i])
	}
	return b.String()
}
