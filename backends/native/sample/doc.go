// Package sample picks tokens from logits. A Sampler belongs to one sequence; what it picks depends only on its
// parameters, the tokens so far and the logits, not on the batch, on preemption or on what was sampled before for
// others. Its randomness is a function of (seed, sample index, output position), so there is no state to lose.
//
// The order of operations on a row of logits, and whose it is:
//
//  1. logit bias                                     vLLM
//  2. repetition, frequency, presence penalty        vLLM
//  3. the ids forbidden before MinTokens             (commutes with 1 and 2)
//  4. temperature below 1e-5: the highest, of equals the lowest id; done
//  5. temperature, top-k, top-p, min-p, typical      Hugging Face transformers
//  6. one uniform number, by inverse cumulative distribution
//
// Each of 5's filters sees the distribution that the one before left, renormalized. Log-probabilities are of the row
// as the model gave it, before all of this.
//
// A vocabulary is large and the tokens that matter are few, so all of it is looked at by BlockSums only, which the
// engine brings along, and nothing here sorts it: filters keep the smallest set of best tokens that reaches a weight,
// which is a selection (see nucleus).
package sample
