package storetest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"

	"github.com/keyward/keyward/keystore"
)

// Sealer returns a keystore.Sealer for tests: AES-256-GCM under a key that stands here.
func Sealer(group string) keystore.Sealer { return sealer(group) }

type sealer string

var _ keystore.Sealer = sealer("")

func (s sealer) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher([]byte("a fixed key of thirty-two octets"))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (s sealer) Group() string { return string(s) }

func (s sealer) Seal(_ context.Context, plaintext, aad []byte) ([]byte, error) {
	aead, err := s.aead()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	return aead.Seal(nonce, nonce, plaintext, aad), nil
}

func (s sealer) Open(_ context.Context, sealed, aad []byte) ([]byte, error) {
	aead, err := s.aead()
	if err != nil {
		return nil, err
	}
	if len(sealed) < aead.NonceSize() {
		return nil, errors.New("the sealed key is cut off")
	}
	return aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], aad)
}
