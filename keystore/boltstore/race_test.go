//go:build race

package boltstore

func init() { raceDetector = true }
