// Package draft guesses what a text says next, for the model to check several tokens in one step. A guess costs time when
// it is wrong and never changes an answer.
package draft
