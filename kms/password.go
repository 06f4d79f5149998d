package kms

import (
	"context"
	"crypto/rand"
	"math/big"
	"strings"

	"github.com/keyward/keyward/kms/kmswire"
)

// Bounds of GetRandomPassword (reference section 4.11), in characters.
const (
	minPassword     = 8
	maxPassword     = 128
	defaultPassword = 32
)

// GetRandomPassword makes a random password. keyward does not keep it.
func (s *Service) GetRandomPassword(ctx context.Context, actor *Actor, req *kmswire.GetRandomPasswordRequest) (*kmswire.GetRandomPasswordResponse, error) {
	return audited(s, ctx, actor, actGetRandomPassword, false, func(*call) (*kmswire.GetRandomPasswordResponse, error) {
		n := defaultPassword
		if req.PasswordLength != nil {
			n = *req.PasswordLength
		}
		if n < minPassword || n > maxPassword {
			return nil, Invalid("PasswordLength", "it must be %d to %d", minPassword, maxPassword)
		}
		var types []string
		for _, t := range []struct {
			exclude    bool
			characters string
		}{
			{req.ExcludeLowercase, "abcdefghijklmnopqrstuvwxyz"},
			{req.ExcludeUppercase, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
			{req.ExcludeNumbers, "0123456789"},
			{req.ExcludePunctuation, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"},
		} {
			if t.exclude {
				continue
			}
			left := strings.Map(func(r rune) rune {
				if strings.ContainsRune(req.ExcludeCharacters, r) {
					return -1
				}
				return r
			}, t.characters)
			if left != "" {
				types = append(types, left)
			}
		}
		if len(types) == 0 {
			return nil, Invalid("ExcludeCharacters", "no characters are left to make a password of")
		}
		return &kmswire.GetRandomPasswordResponse{RandomPassword: randomPassword(n, types, req.RequireEachIncludedType)}, nil
	})
}

// randomPassword draws n characters, uniformly over all types. With each, a draw that lacks a type is thrown away as a
// whole: mending it would make some passwords likelier than others. With n at least 8 and four types, at least one draw
// in three is kept whatever the sizes are, unless a type has few characters left; then it takes a few hundred draws.
func randomPassword(n int, types []string, each bool) string {
	all := strings.Join(types, "")
	out := make([]byte, n)
	for {
		for i := range out {
			out[i] = all[randomIndex(len(all))]
		}
		complete := true
		for _, t := range types {
			complete = complete && strings.ContainsAny(string(out), t)
		}
		if complete || !each {
			return string(out)
		}
	}
}

func randomIndex(n int) int {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		panic(err) // crypto/rand.Reader never fails
	}
	return int(i.Int64())
}
