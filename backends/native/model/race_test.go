//go:build race

package model_test

func init() { raceDetector = true }
