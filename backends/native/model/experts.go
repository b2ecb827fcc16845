package model

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"pagoda/checkpoint"
	"pagoda/kernels"
)

// Experts is a feed-forward of several gated ones, of which each token takes the few that a router chooses, and perhaps one
// more that all take.
type Experts struct {
	Router     string // name of the matrix [Count, Hidden] that gives the experts' logits
	RouterBias bool
	ScoreBias  string // the name of Routing.Bias, "" for none
	Routing    kernels.Routing

	// Names of the experts' projections with %d for an expert's number: of gate and up, and of down. Or those of stacks, one
	// matrix after another: of gate and up in one [Count, 2*Inter, Hidden], and of down [Count, Hidden, Inter].
	GateUp []string
	Down   string
	Stacks []string // names of two stacks that a checkpoint may have in place of the experts' own matrices
	Bias   bool     // stacks have a bias for each matrix
	Turned bool     // stacks have their matrices as [in, out]
	Woven  bool     // in a stack of gate and up, these alternate

	EitherWay bool // there are checkpoints with Turned and without, which the shape tells

	Count, Chosen, Inter int
	Act                  kernels.Activation

	Shared     *Dense // what every token takes, nil for nothing
	SharedGate string // the projection to a number whose sigmoid weighs that, "" for a weight of 1
}

// experts reads the keys that mean the same in all architectures with experts, whose width is that of a key, and names what
// most have.
func (b *builder) experts(key string, inter int) *Experts {
	c := b.c
	b.between(key, inter, 1<<19)
	x := &Experts{Router: "mlp.gate", Routing: kernels.Routing{Scale: 1}, Count: max(c.NumExperts, c.NumLocalExperts, c.NumRoutedExperts),
		Chosen: c.NumExpertsPerToken, Inter: inter, Act: b.activation()}
	x.named("mlp.experts.", "gate_proj", "up_proj", "down_proj")
	return x
}

// named gives the matrices of single experts their names.
func (x *Experts) named(prefix, gate, up, down string) {
	x.GateUp = []string{prefix + "%d." + gate + ".weight", prefix + "%d." + up + ".weight"}
	x.Down = prefix + "%d." + down + ".weight"
}

func (x *Experts) check(b *builder) {
	b.between(b.oneOf("num_experts", "num_local_experts", "n_routed_experts"), x.Count, 1<<12)
	b.between("num_experts_per_tok", x.Chosen, max(x.Count, 1))
	if r := x.Routing; r.Groups > 1 {
		size := x.Count / r.Groups
		if x.Count%r.Groups != 0 || r.ChosenGroups < 1 || r.ChosenGroups > r.Groups || r.GroupBest > size || x.Chosen > r.ChosenGroups*size {
			b.bad("n_group %d and topk_group %d do not fit %d of %d experts", r.Groups, r.ChosenGroups, x.Chosen, x.Count)
		}
	} else if r.Groups < 0 {
		b.bad("n_group is %d", r.Groups)
	}
	if !(x.Routing.Scale > 0 && x.Routing.Scale < 1e6) {
		b.bad("routed_scaling_factor %g is not between 0 and 1e6", x.Routing.Scale)
	}
}

func (x *Experts) projections(s *Spec) (list []projection) {
	if x.Shared != nil {
		list = x.Shared.projections(s)
	}
	if x.SharedGate != "" {
		list = append(list, projection{x.SharedGate, 1, s.Hidden, false})
	}
	return list
}

// stacked says whether the experts' matrices are in stacks.
func (x *Experts) stacked() bool { return len(x.GateUp) == 1 }

// as is s with the experts in the form in which a checkpoint has them.
func (s *Spec) as(w *checkpoint.Weights) *Spec {
	stored, c := s.names.in(w), *s
	c.Layers = slices.Clone(s.Layers)
	for i, l := range c.Layers {
		x, ok := l.FF.(*Experts)
		if !ok {
			continue
		}
		shape := func(name string) []int {
			t, _ := w.Tensor(stored(s.layerPrefix(i) + name))
			return t.Shape
		}
		has := func(name string) bool { return shape(name) != nil }
		y := *x
		switch {
		case len(x.Stacks) > 0 && has(x.Stacks[0]):
			y.GateUp, y.Down = x.Stacks[:1], x.Stacks[1]
		case x.Turned && has(x.GateUp[0]+mxfp4Blocks), // which are along the inputs
			x.EitherWay && slices.Equal(shape(x.GateUp[0]), []int{x.Count, 2 * x.Inter, s.Hidden}),
			x.EitherWay && slices.Equal(shape(x.Down), []int{x.Count, s.Hidden, x.Inter}):
			y.Turned = false
		default:
			continue
		}
		c.Layers[i].FF = &y
	}
	return &c
}

func (x *Experts) tensors(s *Spec) []tensor {
	list := []tensor{{name: x.Router + ".weight", shape: []int{x.Count, s.Hidden}, matrix: true, exact: true}}
	if x.RouterBias {
		list = append(list, vector(x.Router+".bias", x.Count))
	}
	if x.ScoreBias != "" {
		list = append(list, vector(x.ScoreBias, x.Count))
	}
	if !x.stacked() {
		for e := range x.Count {
			for _, name := range x.GateUp {
				list = append(list, matrix(fmt.Sprintf(name, e), x.Inter, s.Hidden))
			}
			list = append(list, matrix(fmt.Sprintf(x.Down, e), s.Hidden, x.Inter))
		}
		return list
	}
	stack := func(name string, out, in int) {
		t := matrix(name, x.Count, out, in)
		if x.Turned {
			t.shape, t.turned = []int{x.Count, in, out}, true
		}
		if list = append(list, t); x.Bias {
			list = append(list, vector(name+"_bias", x.Count, out))
		}
	}
	stack(x.GateUp[0], 2*x.Inter, s.Hidden)
	stack(x.Down, s.Hidden, x.Inter)
	return list
}

func (x *Experts) scratch(s *Spec, act kernels.DType, tokens int) []plan {
	rows, all := tokens*x.Chosen, x.Chosen
	if x.Shared != nil {
		all++
	}
	list := []plan{{kernels.F32, tokens, x.Count}, {kernels.F32, tokens * all, s.Hidden}, {kernels.F32, rows, 2 * x.Inter}, {act, rows, x.Inter},
		{kernels.I32, 1, rows}, {kernels.I32, 1, x.Count + 1}, {kernels.I32, tokens, all}, {kernels.F32, tokens, all},
		{kernels.F32, tokens, 1}}
	if x.Shared != nil {
		list = append(list, x.Shared.scratch(s, act, tokens)...)
	}
	return list
}

// experts is an Experts' weights.
type experts struct {
	*Experts
	routing              kernels.Routing // with its bias
	router               linear
	gateUp, down         []*kernels.Matrix
	gateUpBias, downBias kernels.Tensor // F32 [Count, columns], or no rows
	shared               feedForward    // nil: none
	sharedGate           linear
}

func (x *Experts) load(l *partLoader) feedForward {
	y := &experts{Experts: x, routing: x.Routing}
	y.router.weight = l.matrix(l.spec.Hidden, l.prefix+x.Router+".weight")
	if x.RouterBias {
		y.router.bias = l.vector(x.Router + ".bias")
	}
	if x.ScoreBias != "" {
		y.routing.Bias = l.vector(x.ScoreBias)
	}
	before := l.bytes + l.mapped
	if x.stacked() {
		asStored := func(row int) int { return row }
		gateUp := asStored
		if x.Woven {
			gateUp = func(row int) int { return 2*row%(2*x.Inter) + row/x.Inter }
		}
		y.gateUp = x.stack(l, x.GateUp[0], 2*x.Inter, l.spec.Hidden, gateUp)
		y.down = x.stack(l, x.Down, l.spec.Hidden, x.Inter, asStored)
		if x.Bias {
			y.gateUpBias = x.biases(l, x.GateUp[0]+"_bias", 2*x.Inter, gateUp)
			y.downBias = x.biases(l, x.Down+"_bias", l.spec.Hidden, asStored)
		}
	} else {
		for e := range x.Count {
			y.gateUp = append(y.gateUp, l.matrix(l.spec.Hidden, l.prefix+fmt.Sprintf(x.GateUp[0], e), l.prefix+fmt.Sprintf(x.GateUp[1], e)))
			y.down = append(y.down, l.matrix(x.Inter, l.prefix+fmt.Sprintf(x.Down, e)))
		}
	}
	l.idle += (l.bytes + l.mapped - before) / int64(x.Count) * int64(x.Count-x.Chosen)
	l.alike(y.gateUp)
	l.alike(y.down)
	if x.Shared != nil {
		y.shared, y.routing.Shared = x.Shared.load(l), true
	}
	if x.SharedGate != "" {
		y.sharedGate = l.linear(1)
	}
	return y
}

// stack packs a stack's matrices, each [out, k], whose rows lie where stored says.
func (x *Experts) stack(l *partLoader, name string, out, k int, stored func(row int) int) (list []*kernels.Matrix) {
	if l.err != nil {
		return nil
	}
	for e := range x.Count {
		t := l.part(l.prefix+name, e)
		part := kernels.MatrixPart{Data: t.Data, DType: kernelDType(t.DType), Rows: out}
		switch {
		case x.Turned:
			part.Data = turn(t.Data, k, out, t.DType.Size(), stored)
		case stored(1) != 1:
			part.Data = sorted(t.Data, k*t.DType.Size(), stored)
		}
		list = append(list, l.pack(l.prefix+name, k, part))
	}
	if !l.options.Mapped {
		l.src.release(l.prefix + name)
	}
	return list
}

// biases are those of a stack, in the order of its matrices' rows.
func (x *Experts) biases(l *partLoader, name string, out int, stored func(row int) int) kernels.Tensor {
	all := l.values(l.prefix + name)
	values := make([]float32, len(all))
	for i := range values {
		values[i] = all[i/out*out+stored(i%out)]
	}
	return l.f32(x.Count, out, values)
}

// alike reports experts that are not all of one dtype, as one product takes them.
func (l *partLoader) alike(list []*kernels.Matrix) {
	for _, m := range list {
		if l.err == nil && m.DType() != list[0].DType() {
			l.err = fmt.Errorf("layer %s: its experts are partly %v and partly %v", l.prefix, list[0].DType(), m.DType())
		}
	}
}

// sorted are rows of width bytes; row i is what stored(i) was.
func sorted(data []byte, width int, stored func(row int) int) []byte {
	out := make([]byte, 0, len(data))
	for row := range len(data) / width {
		out = append(out, data[stored(row)*width:][:width]...)
	}
	return out
}

// turn is the matrix [out, in] of one that is stored as [in, out], of elements of size bytes; row i is what column(i) was.
func turn(data []byte, in, out, size int, column func(row int) int) []byte {
	const block = 64 // elements a side, which the caches hold
	turned := make([]byte, len(data))
	var all sync.WaitGroup
	for first := 0; first < out; first += block {
		all.Go(func() {
			for k := 0; k < in; k += block {
				for row := first; row < min(first+block, out); row++ {
					from, to := column(row), row*in
					for i := k; i < min(k+block, in); i++ {
						switch s, d := data[(i*out+from)*size:], turned[(to+i)*size:]; size {
						case 2:
							binary.NativeEndian.PutUint16(d, binary.NativeEndian.Uint16(s))
						default:
							binary.NativeEndian.PutUint32(d, binary.NativeEndian.Uint32(s))
						}
					}
				}
			}
		})
	}
	all.Wait()
	return turned
}

func (x *experts) feed(p pass, y, h kernels.Tensor) error {
	n, rows := p.n, p.n*x.Chosen
	logits, results, gateUp, ff := p.tmp[0].RowRange(0, n), p.tmp[1], p.tmp[2].RowRange(0, rows), p.tmp[3].RowRange(0, rows)
	to := kernels.Routes{Rows: p.tmp[4].Columns(0, rows), Starts: p.tmp[5], Places: p.tmp[6].RowRange(0, n), Weights: p.tmp[7].RowRange(0, n)}
	if err := kernels.MatMul(p.s, logits, h, x.router.weight); err != nil {
		return err
	}
	if x.router.bias.Rows > 0 {
		if err := kernels.Add(p.s, logits, x.router.bias); err != nil {
			return err
		}
	}
	routing := x.routing
	if x.shared != nil {
		q := p
		q.tmp = p.tmp[9:]
		if err := x.shared.feed(q, results.RowRange(rows, rows+n), h); err != nil {
			return err
		}
	}
	if x.SharedGate != "" {
		routing.SharedGate = p.tmp[8].RowRange(0, n)
		if err := p.project(routing.SharedGate, h, &x.sharedGate); err != nil {
			return err
		}
	}
	if err := kernels.Route(p.s, to, logits, routing); err != nil {
		return err
	}
	// What goes into the experts lies where what they give comes later.
	in := kernels.NewTensor(results.Buf, results.Off, h.DType, rows, h.Cols)
	if err := kernels.Gather(p.s, in, h, to.Rows); err != nil {
		return err
	}
	if err := x.product(p, gateUp, in, to.Starts, x.gateUp, x.gateUpBias); err != nil {
		return err
	}
	if err := kernels.GatedMul(p.s, ff, gateUp, x.Act); err != nil {
		return err
	}
	if err := x.product(p, results.RowRange(0, rows), ff, to.Starts, x.down, x.downBias); err != nil {
		return err
	}
	if x.shared != nil {
		rows += n
	}
	return kernels.Combine(p.s, y, results.RowRange(0, rows), to.Places, to.Weights)
}

// product multiplies the rows of each expert with its matrix and adds its bias.
func (x *experts) product(p pass, out, in, starts kernels.Tensor, list []*kernels.Matrix, bias kernels.Tensor) error {
	if err := kernels.MatMulGroups(p.s, out, in, starts, list); err != nil || bias.Rows == 0 {
		return err
	}
	return kernels.AddGroups(p.s, out, starts, bias)
}
