package kernels

import "fmt"

// DeltaRule are the sizes and the parameters of a GatedDelta.
type DeltaRule struct {
	KeyHeads, ValueHeads int    // the latter a multiple of the former: value head h has key head h/(ValueHeads/KeyHeads)
	KeyDim, ValueDim     int    // elements of a key and of a value
	Decay                Tensor // F32 [1, ValueHeads], -exp(A_log)
	Bias                 Tensor // F32 [1, ValueHeads], added to a
}

// columns of q, k and v together.
func (d DeltaRule) columns() int { return 2*d.KeyHeads*d.KeyDim + d.ValueHeads*d.ValueDim }

// l2Eps is added to the sum of a query's or key's squares, inside the root.
const l2Eps = 1e-6

// GatedDelta is linear attention by the gated delta rule. Each value head has a state, a matrix S of keys by values. A
// token first has it fade, then corrects by the part beta what it says of the token's key, then asks it its query:
//
//	S = exp(g)*S    S += k ⊗ beta*(v - Sᵀk)    out = Sᵀq
//
// where q and k are of length 1, q then divided by sqrt(key_dim), g = decay*softplus(a + bias) and beta = sigmoid(b).
//
//	out     F32 [num_tokens, value_heads*value_dim]
//	qkv     F32 [num_tokens, 2*key_heads*key_dim + value_heads*value_dim], all queries, then keys, then values; the
//	        op leaves other queries and keys there
//	a, b    F32 [num_tokens, value_heads]; the op leaves exp(g) and beta there
//	states  F32 [rows, value_heads*key_dim*value_dim], each head's S by rows; updated
//
// Tokens are taken one after another, so a result does not depend on how a prompt was cut into steps. Rows of out that
// belong to no sequence stay as they are.
//
// Source: Yang, Kautz and Hatamizadeh 2024, arXiv:2412.06464, in its recurrent form.
func GatedDelta(s *Stream, out, qkv, a, b, states Tensor, r DeltaRule, batch StateBatch) error {
	if err := checkGatedDelta(out, qkv, a, b, states, r, batch); err != nil {
		return fmt.Errorf("gated delta: %w", err)
	}
	if out.Rows == 0 || batch.NumSeqs == 0 {
		return nil
	}
	impl, err := s.begin("gated delta")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.gatedDelta(out, qkv, a, b, states, r, batch)
}

func checkGatedDelta(out, qkv, a, b, states Tensor, r DeltaRule, batch StateBatch) error {
	if r.KeyHeads < 1 || r.ValueHeads < 1 || r.ValueHeads%r.KeyHeads != 0 ||
		r.KeyDim < 1 || r.KeyDim > maxHeadDim || r.ValueDim < 1 || r.ValueDim > maxHeadDim {
		return fmt.Errorf("%d value heads of %d over %d key heads of %d: %w",
			r.ValueHeads, r.ValueDim, r.KeyHeads, r.KeyDim, ErrShape)
	}
	if err := qkv.check("qkv", onlyF32, -1, r.columns()); err != nil {
		return err
	}
	if err := out.check("out", onlyF32, qkv.Rows, r.ValueHeads*r.ValueDim); err != nil {
		return err
	}
	if err := a.check("a", onlyF32, qkv.Rows, r.ValueHeads); err != nil {
		return err
	}
	if err := b.check("b", onlyF32, qkv.Rows, r.ValueHeads); err != nil {
		return err
	}
	if err := r.Decay.check("decay", onlyF32, 1, r.ValueHeads); err != nil {
		return err
	}
	if err := r.Bias.check("bias", onlyF32, 1, r.ValueHeads); err != nil {
		return err
	}
	if err := states.check("states", onlyF32, -1, r.ValueHeads*r.KeyDim*r.ValueDim); err != nil {
		return err
	}
	return batch.check(qkv.Rows, states)
}

// GatedRMSNorm computes the RMS norm of each head on its own, times a gate: out[t,h] = x[t,h] / sqrt(mean(x[t,h]²) + eps)
// * w * silu(z[t,h]).
//
//	out   F32 or BF16 [num_tokens, num_heads*head_dim]   may be x if F32
//	x, z  F32, of the same shape
//	w     F32 [1, head_dim]
func GatedRMSNorm(s *Stream, out, x, z, w Tensor, numHeads int, eps float32) error {
	err := checkHeads(x, numHeads)
	if err == nil {
		err = w.check("w", onlyF32, 1, x.Cols/numHeads)
	}
	if err == nil {
		err = z.check("z", onlyF32, x.Rows, x.Cols)
	}
	if err == nil {
		err = out.check("out", f32orBF16, x.Rows, x.Cols)
	}
	if err != nil {
		return fmt.Errorf("gated rmsnorm: %w", err)
	}
	if x.Rows == 0 || x.Cols == 0 {
		return nil
	}
	impl, err := s.begin("gated rmsnorm")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.gatedRMSNorm(out, x, z, w, numHeads, eps)
}
