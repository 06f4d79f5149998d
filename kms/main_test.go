package kms

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails when a goroutine of a service outlives the tests, each of which closes its own.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
