//go:build race

package kms

func init() { raceDetector = true }
