// Package codec is what a checkpoint's text files say: how requests become tokens, and how generated tokens become answers.
//
//	engine.Request ──► chat template, named or the checkpoint's ──► tokens     prompt.go, named.go
//	tokens ──► text ──► stop strings, thoughts, tool calls ──► engine.Event    answer.go
//
// The native engine has one of its model; package templated has one in front of a server that only computes.
package codec
