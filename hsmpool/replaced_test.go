package hsmpool_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
)

// TestMasterKeysReplaced gives a member other master keys behind the pool's back. Jobs find the old ones gone and the
// member logs in again: nothing may then be sealed or wrapped under the new ones.
func TestMasterKeysReplaced(t *testing.T) {
	defer hsmpool.NoRenewLimit()()
	h := hsmtest.New(t, "a")
	h.Ceremony(t)
	c := h.Config()
	c.Probe = time.Hour // only the jobs themselves find out
	p := hsmtest.OpenConfig(t, c)
	ctx := testContext(t)
	relabel(t, p, "a", "", "") // destroys them
	if _, err := hsmpool.Ceremony(ctx, hsmpool.Config{Members: h.Members()}, 2, 2); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Seal(ctx, []byte("store key"), nil); hsmpool.KindOf(err) != hsmpool.KindUnavailable {
		t.Errorf("Seal under foreign master keys: %v", err)
	}
	if _, err := p.Generate(ctx, hsmpool.AES256, hsmpool.UseEncrypt); hsmpool.KindOf(err) != hsmpool.KindUnavailable {
		t.Errorf("Generate under foreign master keys: %v", err)
	}
	reason := await(t, p, "a", "down")
	if !strings.Contains(reason, "master keys") {
		t.Errorf("reason: %s", reason)
	}
}
