package hsmpool

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
)

// The recovery key is derived from a random scalar of ristretto255, whose arithmetic in circl takes the same time
// for every secret; the scalar is what is shared (Shamir).
var shareGroup = group.Ristretto255

// Bounds of a sharing.
const (
	minThreshold = 2
	maxShares    = 64
)

// Share format: kws1-SET-THRESHOLD-INDEX-VALUE-CHECK, upper case except the name. SET tells sharings apart (8
// hexadecimal digits), VALUE is the scalar in base 32, CHECK the first 8 hexadecimal digits of SHA-256 over what comes before.
const shareName = "kws1"

var shareEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// newRecovery makes a recovery key and its shares. The caller wipes all of them.
func newRecovery(shares, threshold int, set [4]byte) (key []byte, texts [][]byte, err error) {
	if threshold < minThreshold || threshold > shares || shares > maxShares {
		return nil, nil, badInput("%d of %d shares: the threshold is at least %d, the number of shares at most %d", threshold, shares,
			minThreshold, maxShares)
	}
	secret := shareGroup.RandomNonZeroScalar(rand.Reader)
	if key, err = recoveryKey(secret, set); err != nil {
		return nil, nil, err
	}
	for _, s := range secretsharing.New(rand.Reader, uint(threshold-1), secret).Share(uint(shares)) {
		value, err := s.Value.MarshalBinary()
		if err != nil {
			return nil, nil, err
		}
		text := fmt.Appendf(make([]byte, 0, 128), "%s-%X-%d-%d-", shareName, set, threshold, len(texts)+1)
		text = shareEncoding.AppendEncode(text, value)
		clear(value)
		texts = append(texts, appendCheck(text))
	}
	secret.SetUint64(0)
	return key, texts, nil
}

func appendCheck(text []byte) []byte {
	sum := sha256.Sum256(text)
	return fmt.Appendf(text, "-%X", sum[:4])
}

// recoveryKey derives the AES-256 key from the shared scalar.
func recoveryKey(secret group.Scalar, set [4]byte) ([]byte, error) {
	b, err := secret.MarshalBinary()
	if err != nil {
		return nil, err
	}
	defer clear(b)
	return hkdf.Key(sha256.New, b, set[:], "keyward recovery key 1", 32)
}

// parsedShare is one share, read and checked.
type parsedShare struct {
	set       [4]byte
	threshold int
	index     int
	value     group.Scalar
}

// parseShare reads a share. Spaces around it and lower case are forgiven. Errors name no part of the value.
func parseShare(text []byte) (*parsedShare, error) {
	text = bytes.TrimSpace(text)
	if len(text) > 256 {
		return nil, badInput("a share is at most 256 octets long")
	}
	upper := bytes.ToUpper(text)
	defer clear(upper)
	copy(upper, shareName)
	parts := bytes.Split(upper, []byte("-"))
	if len(parts) != 6 || !bytes.EqualFold(parts[0], []byte(shareName)) || len(text) < len(shareName) ||
		!bytes.EqualFold(text[:len(shareName)], []byte(shareName)) {
		return nil, badInput("not a share: it begins with %s- and has six parts", shareName)
	}
	checked := appendCheck(append(make([]byte, 0, len(upper)+16), upper[:len(upper)-len(parts[5])-1]...)) // with room: nothing moves
	defer clear(checked)
	if !bytes.Equal(checked, upper) {
		return nil, badInput("the share is mistyped: its check does not fit")
	}
	s := &parsedShare{value: shareGroup.NewScalar()}
	if n, err := hex.Decode(s.set[:], parts[1]); err != nil || n != len(s.set) || len(parts[1]) != 8 {
		return nil, badInput("not a share: its set")
	}
	var err1, err2 error
	s.threshold, err1 = strconv.Atoi(string(parts[2]))
	s.index, err2 = strconv.Atoi(string(parts[3]))
	if err1 != nil || err2 != nil || s.threshold < minThreshold || s.threshold > maxShares || s.index < 1 || s.index > maxShares {
		return nil, badInput("not a share: its threshold or index")
	}
	value := make([]byte, shareEncoding.DecodedLen(len(parts[4])))
	defer clear(value)
	n, err := shareEncoding.Decode(value, parts[4])
	if err != nil || n != int(shareGroup.Params().ScalarLength) || s.value.UnmarshalBinary(value[:n]) != nil {
		return nil, badInput("not a share: its value")
	}
	return s, nil
}

// combineShares gives the recovery key. The caller wipes it.
func combineShares(texts [][]byte, set [4]byte) ([]byte, error) {
	var shares []secretsharing.Share
	threshold := 0
	seen := map[int]bool{}
	for i, text := range texts {
		s, err := parseShare(text)
		if err != nil {
			return nil, fmt.Errorf("share %d: %w", i+1, err)
		}
		switch {
		case s.set != set:
			return nil, badInput("share %d is of set %X, the recovery data of set %X", i+1, s.set, set)
		case seen[s.index]:
			return nil, badInput("share %d has index %d, which another has too", i+1, s.index)
		case threshold != 0 && s.threshold != threshold:
			return nil, badInput("share %d has another threshold", i+1)
		}
		seen[s.index], threshold = true, s.threshold
		id := shareGroup.NewScalar().SetUint64(uint64(s.index))
		shares = append(shares, secretsharing.Share{ID: id, Value: s.value})
	}
	if len(shares) < threshold || threshold == 0 {
		return nil, badInput("%d shares are too few: %d are needed", len(shares), max(threshold, minThreshold))
	}
	secret, err := secretsharing.Recover(uint(threshold-1), shares)
	if err != nil {
		return nil, badInput("the shares don't fit together")
	}
	defer secret.SetUint64(0)
	return recoveryKey(secret, set)
}
