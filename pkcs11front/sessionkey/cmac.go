package sessionkey

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"hash"
)

// cmac is AES-CMAC (RFC 4493, SP 800-38B) as a hash.Hash: Sum leaves it as it is, so more may be written.
type cmac struct {
	block  cipher.Block
	k1, k2 [aes.BlockSize]byte
	chain  [aes.BlockSize]byte
	last   [aes.BlockSize]byte // what is not chained yet: a whole block waits too, as it may be the last
	n      int                 // octets in last
}

func newCMAC(block cipher.Block) hash.Hash {
	c := &cmac{block: block}
	var l [aes.BlockSize]byte
	block.Encrypt(l[:], l[:])
	double(&c.k1, &l)
	double(&c.k2, &c.k1)
	clear(l[:])
	return c
}

// double multiplies by x in GF(2^128), without a branch on the secret top bit.
func double(out, in *[aes.BlockSize]byte) {
	for i := range out[:aes.BlockSize-1] {
		out[i] = in[i]<<1 | in[i+1]>>7
	}
	out[aes.BlockSize-1] = in[aes.BlockSize-1]<<1 ^ 0x87&-(in[0]>>7)
}

func (c *cmac) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		if c.n == len(c.last) {
			subtle.XORBytes(c.chain[:], c.chain[:], c.last[:])
			c.block.Encrypt(c.chain[:], c.chain[:])
			c.n = 0
		}
		n := copy(c.last[c.n:], p)
		c.n += n
		p = p[n:]
	}
	return written, nil
}

func (c *cmac) Sum(b []byte) []byte {
	end, key := c.last, &c.k1
	if c.n < len(end) {
		key = &c.k2
		clear(end[c.n:])
		end[c.n] = 0x80
	}
	subtle.XORBytes(end[:], end[:], key[:])
	subtle.XORBytes(end[:], end[:], c.chain[:])
	c.block.Encrypt(end[:], end[:])
	return append(b, end[:]...)
}

func (c *cmac) Reset() {
	clear(c.chain[:])
	clear(c.last[:])
	c.n = 0
}

func (c *cmac) Size() int      { return aes.BlockSize }
func (c *cmac) BlockSize() int { return aes.BlockSize }
