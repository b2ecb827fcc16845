//go:build !cgo

package kernels

import "errors"

const buildHint = " (built without cgo)"

var errNoCgo = errors.New("built without cgo: only the reference is there")

func cVariants() []string { return nil }

func openC(string, int) (backend, error) { return nil, errNoCgo }

func measureLimits(*Device) (Limits, error) { return Limits{}, errNoCgo }
