package kms

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"strconv"

	"github.com/keyward/keyward/keystore"
)

// defaultIDPrint is what the key of default CKA_IDs is a fingerprint for. Its end is the version of the rule by which they are made.
const defaultIDPrint = "token object id 1"

// The block that is encrypted for a default CKA_ID, the highest bits first: account, a number of 16 digits, 54 bits; sequence 46;
// ordinal 28. So the sequence has idHigh bits in the first half, and idLow above the ordinal in the second.
const (
	accountDigits = 16
	accountBits   = 54
	ordinalBits   = 28
	idHigh        = 64 - accountBits
	idLow         = 64 - ordinalBits
)

// defaultIDs turns places into the CKA_IDs that they have by default and back: 16 octets, one block of AES-128 under a key of the
// store's. So an ID needs no record to be found by, looks like what other tokens have, is another one in another store, and stays the
// same as long as the store. Nothing depends on its being secret.
type defaultIDs struct{ block cipher.Block }

func newDefaultIDs(store *keystore.DB) (*defaultIDs, error) {
	key, err := store.Fingerprint(defaultIDPrint)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key[:16])
	return &defaultIDs{block}, err
}

// of gives the ID of a place, nil for an account that is no number of 16 digits: the configuration has none.
func (d *defaultIDs) of(account string, place KeyPlace) []byte {
	n, ok := accountNumber(account)
	if !ok {
		return nil
	}
	id := make([]byte, aes.BlockSize)
	binary.BigEndian.PutUint64(id, n<<idHigh|place.Sequence>>idLow)
	binary.BigEndian.PutUint64(id[8:], place.Sequence<<ordinalBits|uint64(place.Ordinal))
	d.block.Encrypt(id, id)
	return id
}

// place undoes of. It is false for what is no ID of a place in the account.
func (d *defaultIDs) place(account string, id []byte) (KeyPlace, bool) {
	n, ok := accountNumber(account)
	if !ok || len(id) != aes.BlockSize {
		return KeyPlace{}, false
	}
	var plain [aes.BlockSize]byte
	d.block.Decrypt(plain[:], id)
	high, low := binary.BigEndian.Uint64(plain[:]), binary.BigEndian.Uint64(plain[8:])
	p := KeyPlace{Sequence: high&(1<<idHigh-1)<<idLow | low>>ordinalBits, Ordinal: uint32(low & (1<<ordinalBits - 1))}
	if high>>idHigh != n || p.Sequence < 1 || p.Sequence > maxSequence || p.Ordinal < 1 || p.Ordinal > maxOrdinal {
		return KeyPlace{}, false
	}
	return p, true
}

func accountNumber(account string) (uint64, bool) {
	if len(account) != accountDigits {
		return 0, false
	}
	n, err := strconv.ParseUint(account, 10, accountBits)
	return n, err == nil
}
