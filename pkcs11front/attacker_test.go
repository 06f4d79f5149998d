package pkcs11front

import (
	"bytes"
	"cmp"
	"crypto/elliptic"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// attacker makes any calls in a session, with whatever earlier calls have given: handles, blobs, plaintexts, keys that he knows. He wants the octets of keys that
// were made here, or a way to them, as in Bortolozzo and others, "Attacking and fixing PKCS#11 security tokens" (2010).
type attacker struct {
	*bench
	rand    *rand.Rand
	did     map[string]int // calls that succeeded
	blobs   [][]byte       // that came out, and some that he made
	wrapped []wrapping
	known   [][]byte        // keys that he brought along
	read    map[string]bool // keys that he could read
	targets []target
}

// wrapping is a blob, and by what it was made.
type wrapping struct {
	m    mech
	by   handle
	blob []byte
}

// target is a key that he wants.
type target struct {
	name   string
	octets []byte
	// leaves: it may be wrapped, by a key that nobody knows.
	leaves bool
}

func newAttacker(t testing.TB, seed uint64) *attacker {
	a := &attacker{bench: newBench(t), did: map[string]int{}, read: map[string]bool{}, rand: rand.New(rand.NewPCG(seed, 1))}
	for i := range 3 {
		a.known = append(a.known, bytes.Repeat([]byte{byte(i + 1)}, 32))
	}
	a.blobs = append(a.blobs, message(16), message(40), message(256))
	generate := func(name string, leaves bool, more ...attrs) {
		template := append(withNumber(ck.CKA_VALUE_LEN, 32), withTrue(ck.CKA_ENCRYPT, ck.CKA_DECRYPT)...)
		for _, m := range more {
			template = append(template, m...)
		}
		h := a.doHandle("C_GenerateKey", mech{m: ck.CKM_AES_KEY_GEN}, template)
		octets, err := a.app.objects[h].sessionObject.(*sessionKey).secret.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		a.targets = append(a.targets, target{name, octets, leaves})
	}
	generate("a key by default", false)
	generate("a key for trusted keys", false, withTrue(ck.CKA_EXTRACTABLE, ck.CKA_WRAP_WITH_TRUSTED))
	generate("a key that may be wrapped", true, withTrue(ck.CKA_EXTRACTABLE))
	return a
}

// handle draws a handle of an object that there is; most times one that may be used so, as far as he can tell.
func (a *attacker) handle(may usage) handle {
	var all, fit []handle
	for h := range a.app.objects {
		all = append(all, h)
	}
	if len(all) == 0 {
		return 12345
	}
	// In order of age, so that a seed gives the same walk.
	slices.SortFunc(all, func(x, y handle) int { return cmp.Compare(a.app.objects[x].age(), a.app.objects[y].age()) })
	for _, h := range all {
		if k, ok := a.app.objects[h].sessionObject.(*sessionKey); ok && (k.f.usage&may != 0 || may == 0 && k.f.extractable) {
			fit = append(fit, h)
		}
	}
	if len(fit) > 0 && a.rand.IntN(8) > 0 {
		all = fit
	}
	return all[a.rand.IntN(len(all))]
}

// call counts what succeeded.
func (a *attacker) call(name string, args ...any) reply {
	r := a.bench.call(name, args...)
	if r.rv == ck.CKR_OK {
		a.did[name]++
	}
	return r
}

func (a *attacker) blob() []byte { return a.blobs[a.rand.IntN(len(a.blobs))] }

// template draws attributes that he would like a key to have.
func (a *attacker) template(more ...attrs) (t attrs) {
	for _, m := range more {
		t = append(t, m...)
	}
	for range a.rand.IntN(4) {
		at := wishes[a.rand.IntN(len(wishes))]
		if a.rand.IntN(4) == 0 {
			t = append(t, withFalse(at)...)
		} else {
			t = append(t, withTrue(at)...)
		}
	}
	return t
}

var wishes = []ck.Attribute{ck.CKA_ENCRYPT, ck.CKA_DECRYPT, ck.CKA_SIGN, ck.CKA_WRAP, ck.CKA_UNWRAP, ck.CKA_WRAP, ck.CKA_UNWRAP, ck.CKA_DERIVE, ck.CKA_DERIVE,
	ck.CKA_SENSITIVE, ck.CKA_EXTRACTABLE, ck.CKA_EXTRACTABLE, ck.CKA_EXTRACTABLE, ck.CKA_WRAP_WITH_TRUSTED, ck.CKA_TRUSTED, ck.CKA_LOCAL}

func (a *attacker) keyTemplate() attrs {
	c, k := ck.CKO_SECRET_KEY, ck.CKK_AES
	switch a.rand.IntN(8) {
	case 0:
		k = ck.CKK_GENERIC_SECRET
	case 1:
		c, k = ck.CKO_PRIVATE_KEY, ck.CKK_EC
	}
	t := a.template(keyTemplate(c, k))
	if a.rand.IntN(3) == 0 {
		t = append(append(keyTemplate(c, k), withTrue(ck.CKA_EXTRACTABLE)...), withFalse(ck.CKA_SENSITIVE)...)
	}
	if a.rand.IntN(2) == 0 {
		t = append(t, withNumber(ck.CKA_VALUE_LEN, []uint64{1, 8, 16, 32}[a.rand.IntN(4)])...)
	}
	return t
}

var (
	wrapMechanisms   = []mech{{m: ck.CKM_AES_KEY_WRAP}, {m: ck.CKM_AES_KEY_WRAP_PAD}, {m: ck.CKM_AES_KEY_WRAP_KWP}, {m: ck.CKM_AES_ECB}, {m: ck.CKM_AES_CBC_PAD, param: make([]byte, 16)}}
	cipherMechanisms = []mech{{m: ck.CKM_AES_ECB}, {m: ck.CKM_AES_CBC, param: make([]byte, 16)}, {m: ck.CKM_AES_CTR, param: append(numbers(128), make([]byte, 16)...)},
		{m: ck.CKM_AES_CBC_PAD, param: make([]byte, 16)}, {m: ck.CKM_AES_GCM, param: gcmParam(make([]byte, 12), nil, 128)}}
)

// step makes one call, or an Init and a call.
func (a *attacker) step() {
	keep := func(r reply) {
		a.see(r)
		if r.rv == ck.CKR_OK {
			if out, n := r.result(a.t); n > 0 && len(out) == n && n <= 4096 {
				if len(a.blobs) > 60 {
					a.blobs[3+a.rand.IntN(57)] = bytes.Clone(out)
				} else {
					a.blobs = append(a.blobs, bytes.Clone(out))
				}
			}
		}
	}
	switch a.rand.IntN(11) {
	case 0:
		a.see(a.call("C_GenerateKey", mech{m: ck.CKM_AES_KEY_GEN}, a.template(withNumber(ck.CKA_VALUE_LEN, 32))))
	case 1:
		octets := a.known[a.rand.IntN(len(a.known))]
		a.see(a.call("C_CreateObject", a.template(keyTemplate(ck.CKO_SECRET_KEY, ck.CKK_AES), attrs{{Type: ck.CKA_VALUE, Value: p11rpc.Value{Octets: octets}}})))
	case 2:
		params := attrs{{Type: ck.CKA_EC_PARAMS, Value: p11rpc.Value{Octets: []byte("\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07")}}}
		a.see(a.call("C_GenerateKeyPair", mech{m: ck.CKM_EC_KEY_PAIR_GEN}, params, a.template()))
	case 3:
		a.see(a.call("C_CopyObject", a.handle(^usage(0)), a.template()))
	case 4:
		a.see(a.call("C_SetAttributeValue", a.handle(^usage(0)), a.template()))
	case 5:
		w := wrapping{wrapMechanisms[a.rand.IntN(len(wrapMechanisms))], a.handle(mayWrap), nil}
		h := a.handle(0)
		if r := a.call("C_WrapKey", w.m, w.by, h, room(4096)); r.rv == ck.CKR_OK {
			a.see(r)
			octets := octetsOf(a.app.objects[h].sessionObject.(*sessionKey))
			for _, t := range a.targets {
				if by := a.app.objects[w.by].sessionObject.(*sessionKey); bytes.Equal(octets, t.octets) && (!t.leaves || by.secret == nil || a.isKnown(octetsOf(by))) {
					a.t.Fatalf("%s left (P5)", t.name)
				}
			}
			w.blob, _ = r.result(a.t)
			a.wrapped = append(a.wrapped, w)
			a.blobs = append(a.blobs, w.blob)
		}
	case 6:
		w := wrapping{wrapMechanisms[a.rand.IntN(len(wrapMechanisms))], a.handle(mayUnwrap), a.blob()}
		if n := len(a.wrapped); n > 0 && a.rand.IntN(4) > 0 {
			w = a.wrapped[a.rand.IntN(n)]
		}
		a.see(a.call("C_UnwrapKey", w.m, w.by, octets(w.blob), a.keyTemplate()))
	case 7:
		a.see(a.call("C_DeriveKey", ecdhMech(nil, ck.CKD_NULL, attackersEC), a.handle(mayDerive), a.keyTemplate()))
	case 8:
		if r := a.call("C_EncryptInit", cipherMechanisms[a.rand.IntN(len(cipherMechanisms))], a.handle(mayEncrypt)); r.rv == ck.CKR_OK {
			keep(a.call("C_Encrypt", octets(a.blob()), room(8192)))
		}
	case 9:
		if r := a.call("C_DecryptInit", cipherMechanisms[a.rand.IntN(len(cipherMechanisms))], a.handle(mayDecrypt)); r.rv == ck.CKR_OK {
			keep(a.call("C_Decrypt", octets(a.blob()), room(8192)))
		}
	case 10:
		a.see(a.call("C_GetAttributeValue", a.handle(^usage(0)), wants{ck.CKA_VALUE, ck.CKA_VALUE_LEN, ck.CKA_CHECK_VALUE}))
	}
	if len(a.app.objects) > 60 {
		a.call("C_DestroyObject", a.handle(^usage(0)))
	}
	a.session.ops.wipe()
}

var attackersEC = mustCurve(elliptic.P256())

// see looks for a target in an answer.
func (a *attacker) see(r reply) {
	for _, t := range a.targets {
		if bytes.Contains(r.b, t.octets[:16]) || bytes.Contains(r.b, t.octets[16:]) {
			a.t.Fatalf("the octets of %s came out", t.name)
		}
	}
}

// octetsOf gives what a key is made of, nil for a public one.
func octetsOf(k *sessionKey) (octets []byte) {
	switch {
	case k.secret != nil:
		octets, _ = k.secret.Marshal()
	case k.priv != nil:
		octets, _ = k.priv.Marshal()
	}
	return octets
}

// isKnown says whether the attacker knows a key's octets: he brought it along, or could read it.
func (a *attacker) isKnown(octets []byte) bool {
	return a.read[string(octets)] || slices.ContainsFunc(a.known, func(b []byte) bool { return bytes.Equal(b, octets) })
}

// check holds all keys that there are against the rules.
func (a *attacker) check() {
	uses := map[string]usage{}
	for _, held := range a.app.objects {
		k, ok := held.sessionObject.(*sessionKey)
		if !ok {
			continue
		}
		sets := 0
		for _, set := range []usage{useSign, useEncrypt, useWrap, useDerive} {
			if k.f.usage&set != 0 {
				sets++
			}
		}
		if sets > 1 && k.f.usage&^pairOf(k.f.keyType, inSession) != 0 {
			a.t.Fatalf("a key with the usages %b (P1)", k.f.usage)
		}
		octets := octetsOf(k)
		if octets == nil {
			continue
		}
		for _, t := range a.targets {
			if bytes.Equal(octets, t.octets) && (k.readable() || k.f.extractable && !t.leaves && !k.v.is(ck.CKA_WRAP_WITH_TRUSTED, false)) {
				a.t.Fatalf("a copy of %s is less secret (P3, P4): %v", t.name, k.v)
			}
		}
		if k.readable() {
			a.read[string(octets)] = true
		}
		if !a.isKnown(octets) {
			uses[string(octets)] |= k.f.usage
		}
	}
	for _, u := range uses {
		if u&useWrap != 0 && u&dataUsage != 0 || u&useDerive != 0 && u&useEncrypt != 0 {
			a.t.Fatalf("copies of a key both wrap and encrypt or sign, or derive and encrypt: %b (P1, P3)", u)
		}
	}
}

// TestAttacker: no sequence of calls gives a key away, or makes one that breaks the rules on the way to it.
func TestAttacker(t *testing.T) {
	var mu sync.Mutex
	did := map[string]int{} // in all walks: in one, some calls succeed a time or two, or not at all where random keys lead it elsewhere
	t.Run("walks", func(t *testing.T) {
		for seed := range uint64(4) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				a := newAttacker(t, seed)
				for i := range 1500 {
					a.step()
					if i%20 == 0 {
						a.check()
					}
				}
				a.check()
				mu.Lock()
				defer mu.Unlock()
				for call, n := range a.did {
					did[call] += n
				}
			})
		}
	})
	t.Log(did)
	for _, call := range []string{"C_GenerateKey", "C_CreateObject", "C_CopyObject", "C_WrapKey", "C_UnwrapKey", "C_DeriveKey", "C_Encrypt", "C_Decrypt"} {
		if did[call] == 0 {
			t.Errorf("%s never succeeded", call)
		}
	}
}

// FuzzAttacker is TestAttacker with seeds from a fuzzer.
func FuzzAttacker(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, seed []byte) {
		a := newAttacker(t, binary.LittleEndian.Uint64(append(seed, make([]byte, 8)...)))
		for range 200 {
			a.step()
		}
		a.check()
	})
}
