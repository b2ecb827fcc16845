package kernels

import "fmt"

// Embed computes out[t,:] = w[ids[t],:], so that the embedding can share its weights with the head.
//
//	out  F32 [num_tokens, K]
//	m    [N, K]
//	ids  I32 [1, num_tokens], in [0, N)
func Embed(s *Stream, out Tensor, m *Matrix, ids Tensor) error {
	if err := checkEmbed(out, m, ids); err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	if out.Rows == 0 {
		return nil
	}
	impl, err := s.begin("embed")
	if err != nil {
		return err
	}
	defer s.end()
	return impl.embed(out, m, ids)
}

func checkEmbed(out Tensor, m *Matrix, ids Tensor) error {
	if err := m.check("weights", -1); err != nil {
		return err
	}
	if err := out.check("out", onlyF32, -1, m.k); err != nil {
		return err
	}
	if err := ids.check("ids", onlyI32, 1, out.Rows); err != nil {
		return err
	}
	return ids.checkInts("ids", 0, m.n)
}
