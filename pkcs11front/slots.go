package pkcs11front

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
)

// slotID is the number of a slot, and so of the token in it.
type slotID uint64

// slot is an instance as a slot with a token in it that is never taken out.
type slot struct {
	kms.Token
	id slotID
}

// slots are those that the request's actor has. The service gives them in order of configuration; an instance whose ID is the
// beginning of another's comes before that, because pkcs11-tool takes the first token whose label begins with what it was given.
func (q *request) slots() ([]slot, ck.RV) {
	if q.actor() == nil {
		return nil, ck.CKR_OK
	}
	tokens, err := q.front.cfg.Service.Tokens(q.ctx, q.actor())
	if err != nil {
		return nil, q.failed(err, aboutToken)
	}
	return slotsOf(tokens), ck.CKR_OK
}

// slotsOf numbers the tokens, in order of slots.
func slotsOf(tokens []kms.Token) []slot {
	all := make([]slot, 0, len(tokens))
	for _, t := range tokens {
		at := slices.IndexFunc(all, func(s slot) bool { return strings.HasPrefix(s.Instance, t.Instance) })
		if at < 0 {
			at = len(all)
		}
		all = slices.Insert(all, at, slot{Token: t})
	}
	// The number depends on the ID alone, so that it stays when other instances come and go; of two that fall together the
	// later ID takes the next one.
	byID := make([]*slot, len(all))
	for i := range all {
		byID[i] = &all[i]
	}
	slices.SortFunc(byID, func(a, b *slot) int { return cmp.Compare(a.Instance, b.Instance) })
	taken := make(map[slotID]bool, len(all))
	for _, s := range byID {
		s.id = slotNumber(s.Instance)
		for taken[s.id] {
			s.id = (s.id + 1) & maxSlotID
		}
		taken[s.id] = true
	}
	return all
}

// maxSlotID is what programs with a signed 32-bit number of slots (Java's among them) take.
const maxSlotID = 1<<31 - 1

func slotNumber(instance string) slotID {
	sum := sha256.Sum256([]byte(instance))
	return slotID(binary.BigEndian.Uint32(sum[:]) & maxSlotID)
}

// slot gives the slot with a number.
func (q *request) slot(id slotID) (slot, ck.RV) {
	all, rv := q.slots()
	if rv != ck.CKR_OK {
		return slot{}, rv
	}
	for _, s := range all {
		if s.id == id {
			return s, ck.CKR_OK
		}
	}
	return slot{}, ck.CKR_SLOT_ID_INVALID
}

// token gives the token of an instance, in which the request's session is.
func (q *request) token(instance string) (slot, ck.RV) {
	all, rv := q.slots()
	if rv != ck.CKR_OK {
		return slot{}, rv
	}
	for _, s := range all {
		if s.Instance == instance {
			return s, ck.CKR_OK
		}
	}
	return slot{}, ck.CKR_DEVICE_REMOVED // the instance is not the actor's any more
}

// Widths of texts, in octets (CK_INFO, CK_SLOT_INFO, CK_TOKEN_INFO).
const (
	widthManufacturer = 32
	widthLibrary      = 32
	widthSlot         = 64
	widthLabel        = 32
	widthModel        = 16
	widthSerial       = 16
	widthTime         = 16
)

// manufacturer is that of the library, the slots and the tokens.
const manufacturer = "keyward"

// label is the token's: the instance's ID. One that is too long is cut and told apart by a part of its hash.
func (s *slot) label() string {
	if len(s.Instance) <= widthLabel {
		return s.Instance
	}
	sum := sha256.Sum256([]byte(s.Instance))
	end := "~" + hex.EncodeToString(sum[:4])
	return s.Instance[:widthLabel-len(end)] + end
}

// serial is the token's serial number, which stays when the instance does.
func (s *slot) serial() string {
	sum := sha256.Sum256([]byte("serial of " + s.Instance))
	return hex.EncodeToString(sum[:widthSerial/2])
}
