package chat

import "slices"

// matcher finds any of a set of strings in a stream of bytes. It is the automaton of Aho and Corasick (1975,
// doi:10.1145/360825.360855); its states are indices of nodes, 0 is the start.
type matcher struct {
	nodes []node
	edges map[edge]int32
}

// node stands for one prefix of a pattern.
type node struct {
	fail  int32 // the longest proper suffix that is a node, too
	depth int   // length of the prefix in bytes
	match int   // length of the longest pattern that is a suffix of the prefix; 0 is none
}

type edge struct {
	from int32
	c    byte
}

// newMatcher returns nil if there is no pattern. Empty patterns are left out.
func newMatcher(patterns []string) *matcher {
	m := &matcher{nodes: []node{{}}, edges: map[edge]int32{}}
	var in []edge // in[i] is the edge into node i+1
	for _, p := range patterns {
		at := int32(0)
		for i := range len(p) {
			e := edge{at, p[i]}
			next, ok := m.edges[e]
			if !ok {
				next = int32(len(m.nodes))
				m.edges[e] = next
				m.nodes = append(m.nodes, node{depth: i + 1})
				in = append(in, e)
			}
			at = next
		}
		m.nodes[at].match = len(p)
	}
	if len(m.nodes) == 1 {
		return nil
	}
	m.link(in)
	return m
}

// link sets fail and inherited matches, shallow nodes first, since a node's depend on shallower ones'.
func (m *matcher) link(in []edge) {
	order := make([]int32, len(in))
	for i := range order {
		order[i] = int32(i + 1)
	}
	slices.SortFunc(order, func(a, b int32) int { return m.nodes[a].depth - m.nodes[b].depth })
	for _, i := range order {
		n, e := &m.nodes[i], in[i-1]
		if e.from != 0 {
			n.fail = m.step(m.nodes[e.from].fail, e.c)
		}
		if n.match == 0 {
			n.match = m.nodes[n.fail].match
		}
	}
}

// step returns the state after c.
func (m *matcher) step(state int32, c byte) int32 {
	for {
		if next, ok := m.edges[edge{state, c}]; ok {
			return next
		}
		if state == 0 {
			return 0
		}
		state = m.nodes[state].fail
	}
}

// prefixOf returns the length of the longest pattern that s begins with, 0 for none.
func (m *matcher) prefixOf(s string) int {
	longest, at := 0, int32(0)
	for i := range len(s) {
		next, ok := m.edges[edge{at, s[i]}]
		if !ok {
			break
		}
		if n := m.nodes[next]; n.match == n.depth {
			longest = n.depth
		}
		at = next
	}
	return longest
}
