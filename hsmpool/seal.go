package hsmpool

import "context"

// maxSealed is the most that Seal takes: a store key, not data.
const maxSealed = 64

// Seal encrypts at most 64 octets under the seal key: a nonce of 12 octets, the ciphertext, a tag of 16. Pool is a
// keystore.Sealer. Nonces are random; the few sealings of a group's life are far from where that matters.
func (p *Pool) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	if len(plaintext) > maxSealed || len(aad) > maxGCMAAD {
		return nil, badInput("seal takes at most %d octets, and %d of AAD", maxSealed, maxGCMAAD)
	}
	nonce := make([]byte, gcmNonce)
	random(nonce)
	t := &ticket{task: task{op: opSealGCM, in: plaintext, nonce: nonce, aad: aad}}
	if e := p.do(ctx, t); e != nil {
		return nil, e
	}
	return append(nonce, t.out...), nil
}

// Open undoes Seal.
func (p *Pool) Open(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < gcmNonce+gcmTag || len(sealed) > gcmNonce+maxSealed+gcmTag {
		return nil, &Error{Kind: KindBadData, fate: fateData, Detail: "open: not what seal makes"}
	}
	t := &ticket{task: task{op: opOpenGCM, in: sealed[gcmNonce:], nonce: sealed[:gcmNonce], aad: aad}}
	if e := p.do(ctx, t); e != nil {
		return nil, e
	}
	return t.out, nil
}

// Group names the group by the check values of its master keys: 32 lower-case hexadecimal digits.
func (p *Pool) Group() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.group
}
