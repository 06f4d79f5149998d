package keystore_test

import (
	"testing"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/storetest"
)

func TestMem(t *testing.T) {
	storetest.Test(t, func(t *testing.T) keystore.Store { return new(keystore.Mem) })
}
