package pkcs11front

import (
	"crypto"
	"encoding/binary"

	"github.com/keyward/keyward/kms/mechanism"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// Limits of what comes in a parameter, in octets.
const (
	maxOAEPLabel = 1024
	maxGCMIV     = 256
	gcmIV        = 12      // of keys in HSMs, and of what is drawn: SP 800-38D §8.2
	maxAAD       = 1 << 16 // of keys in HSMs too, and of a message
	minMAC       = 4       // SP 800-107 §5.3.3: not below 32 bits, and PKCS #11 would allow 0
	maxShared    = sessionkey.MaxShared
)

// hashParameters are the hashes that parameters name, with their mask generation functions.
var hashParameters = []struct {
	mechanism ck.Mechanism
	mgf       uint64
	hash      crypto.Hash
	oaep      bool // offered for OAEP
}{
	{ck.CKM_SHA_1, ck.CKG_MGF1_SHA1, crypto.SHA1, true},
	{ck.CKM_SHA224, ck.CKG_MGF1_SHA224, crypto.SHA224, false},
	{ck.CKM_SHA256, ck.CKG_MGF1_SHA256, crypto.SHA256, true},
	{ck.CKM_SHA384, ck.CKG_MGF1_SHA384, crypto.SHA384, true},
	{ck.CKM_SHA512, ck.CKG_MGF1_SHA512, crypto.SHA512, true},
	{ck.CKM_SHA3_224, ck.CKG_MGF1_SHA3_224, crypto.SHA3_224, false},
	{ck.CKM_SHA3_256, ck.CKG_MGF1_SHA3_256, crypto.SHA3_256, false},
	{ck.CKM_SHA3_384, ck.CKG_MGF1_SHA3_384, crypto.SHA3_384, false},
	{ck.CKM_SHA3_512, ck.CKG_MGF1_SHA3_512, crypto.SHA3_512, false},
}

// hashAndMGF finds both, or gives 0 for what is not offered.
func hashAndMGF(m ck.Mechanism, mgf uint64, oaep bool) (hash, mask crypto.Hash) {
	for i := range hashParameters {
		p := &hashParameters[i]
		if oaep && !p.oaep {
			continue
		}
		if p.mechanism == m {
			hash = p.hash
		}
		if p.mgf == mgf {
			mask = p.hash
		}
	}
	return hash, mask
}

// use is how a key is used by the mechanism with that parameter, nil for what is done here with the key's octets. Octets of the parameter are copied: it
// is a part of the frame, and an operation outlives that.
func (row *mechanismRow) use(param any, facts *keyFacts) (*mechanism.Mechanism, ck.RV) {
	switch row.parameter {
	case parameterNone:
		if param == nil {
			return row.plain, ck.CKR_OK
		}
	case parameterPSS:
		if p, ok := param.(*p11rpc.PSS); ok {
			return row.pss(p, facts)
		}
	case parameterOAEP:
		if p, ok := param.(*p11rpc.OAEP); ok {
			return row.oaep(p)
		}
	case parameterIV:
		if iv, ok := param.(p11rpc.IV); ok && len(iv) == blockSize {
			return &mechanism.Mechanism{Kind: row.kind, IV: cloned(iv)}, ck.CKR_OK
		}
	case parameterCTR:
		if p, ok := param.(*p11rpc.CTR); ok && p.Bits >= 1 && p.Bits <= 8*blockSize && len(p.Counter) == blockSize {
			return &mechanism.Mechanism{Kind: row.kind, IV: cloned(p.Counter)}, ck.CKR_OK
		}
	case parameterGCM:
		if p, ok := param.(*p11rpc.GCM); ok {
			return row.gcm(p, facts)
		}
	}
	return nil, ck.CKR_MECHANISM_PARAM_INVALID
}

func (row *mechanismRow) pss(p *p11rpc.PSS, facts *keyFacts) (*mechanism.Mechanism, ck.RV) {
	hash, mask := hashAndMGF(p.Hash, p.MGF, false)
	if hash == 0 || mask == 0 || row.hash != 0 && row.hash != hash {
		return nil, ck.CKR_MECHANISM_PARAM_INVALID
	}
	// RFC 8017 §9.1.1: the encoded message has one bit less than the modulus.
	room := (facts.bits-1+7)/8 - hash.Size() - 2
	if room < 0 || p.Salt > uint64(room) {
		return nil, ck.CKR_MECHANISM_PARAM_INVALID
	}
	return &mechanism.Mechanism{Kind: row.kind, Hash: hash, MGF: mask, Salt: int(p.Salt)}, ck.CKR_OK
}

// oaep takes a source of 0 for no label: some clients leave it so.
func (row *mechanismRow) oaep(p *p11rpc.OAEP) (*mechanism.Mechanism, ck.RV) {
	hash, mask := hashAndMGF(p.Hash, p.MGF, true)
	if hash == 0 || mask == 0 || p.Source != ck.CKZ_DATA_SPECIFIED && p.Source != 0 || p.Source == 0 && len(p.Label) > 0 || len(p.Label) > maxOAEPLabel {
		return nil, ck.CKR_MECHANISM_PARAM_INVALID
	}
	return &mechanism.Mechanism{Kind: row.kind, Hash: hash, MGF: mask, Label: cloned(p.Label)}, ck.CKR_OK
}

// gcm does not look at ulIvBits: CK_GCM_PARAMS of 3.0 says not to use it, and clients leave in it what was there.
func (row *mechanismRow) gcm(p *p11rpc.GCM, facts *keyFacts) (*mechanism.Mechanism, ck.RV) {
	if !gcmSizes(len(p.IV), len(p.AAD), p.TagBits, facts) {
		return nil, ck.CKR_MECHANISM_PARAM_INVALID
	}
	return &mechanism.Mechanism{Kind: row.kind, IV: cloned(p.IV), AAD: cloned(p.AAD), TagBits: int(p.TagBits)}, ck.CKR_OK
}

// gcmSizes is the rule for AES-GCM: tags of 96 to 128 bits, an IV that is not empty, and of 12 octets for HSMs, which differ in what else they take.
func gcmSizes(iv, aad int, tagBits uint64, facts *keyFacts) bool {
	if facts.token && facts.hardware && iv != gcmIV {
		return false
	}
	return iv >= 1 && iv <= maxGCMIV && aad <= maxAAD && tagBits >= 96 && tagBits <= 128 && tagBits%8 == 0
}

// macSize is how many octets a MAC has: all of it, or what the parameter says.
func (row *mechanismRow) macSize(param any) (int, ck.RV) {
	size := blockSize
	if row.does == familyHMAC {
		size = row.hash.Size()
	}
	if row.parameter == parameterNone {
		if param != nil {
			return 0, ck.CKR_MECHANISM_PARAM_INVALID
		}
		return size, ck.CKR_OK
	}
	n, ok := param.(p11rpc.MACLength)
	if !ok || n < minMAC || n > p11rpc.MACLength(size) {
		return 0, ck.CKR_MECHANISM_PARAM_INVALID
	}
	return int(n), ck.CKR_OK
}

// counterRoom is how many blocks a counter of so many bits has before it starts again. What would go on from there is refused: the keys count in the
// whole block, and a counter that repeats gives away what it encrypts. limited is false if there are more than anybody can send.
func counterRoom(counter []byte, bits uint64) (blocks uint64, limited bool) {
	high, low := binary.BigEndian.Uint64(counter), binary.BigEndian.Uint64(counter[8:])
	if bits < 64 {
		mask := uint64(1)<<bits - 1
		return mask - low&mask + 1, true
	}
	mask := uint64(1)<<(bits-64) - 1 // of the upper half; all of it for 128
	if bits == 128 || high&mask != mask || low == 0 {
		return 0, false
	}
	return -low, true
}

func cloned(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return append([]byte(nil), b...)
}
