package kms

import (
	"context"
	"sync"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/keystore"
)

// AES-GCM in an HSM takes a random 96-bit nonce, so one key must not encrypt more than 2^32 messages (NIST SP 800-38D
// section 8.3). The count is durable: it is reserved in the store in blocks before it is used.
const (
	maxCalls  = 1 << 32
	warnCalls = 1 << 31
	minBlock  = 1 << 12
	maxBlock  = 1 << 20
)

// callCounter counts the encryptions of one version.
type callCounter struct {
	store   *keystore.DB
	log     zerolog.Logger
	version string
	worn    func() // told once when half of the calls are used; may be nil

	mu     sync.Mutex // held while a block is reserved: others need the same block
	left   uint64     // calls that may be made before the next reservation
	block  uint64     // size of the last reservation
	warned bool
	spent  bool // the limit is reached: nothing is reserved any more
}

// take allows n calls, or says why not. A crash wastes what was reserved and not used, at most one block.
func (c *callCounter) take(ctx context.Context, n uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left < n && !c.spent {
		// Blocks grow, so that a busy key reserves seldom and an idle one wastes little.
		c.block = max(n, min(maxBlock, max(minBlock, 2*c.block)))
		total, err := c.store.ReserveCalls(ctx, c.version, c.block)
		if err != nil {
			return storeError(err)
		}
		c.spent = total > maxCalls
		if total > warnCalls && !c.warned {
			c.warned = true
			c.log.Warn().Str("version", c.version).Uint64("calls", total).
				Msg("half of the 2^32 messages that this version may encrypt are used; create a new key version")
			if c.worn != nil {
				c.worn()
			}
		}
		if !c.spent {
			c.left = c.block // what was left of the old block is given up: it is at most n-1
		}
	}
	if c.left < n {
		return Errorf(LimitExceeded, "%s has encrypted 2^32 messages, the limit of its cipher; create a new key version", c.version)
	}
	c.left -= n
	return nil
}
