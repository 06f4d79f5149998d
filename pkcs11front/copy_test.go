package pkcs11front

import (
	"bytes"
	"sync"
	"testing"

	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
	"github.com/keyward/keyward/pkcs11front/sessionkey"
)

// TestCopyIntoToken makes keys of the KMS of session keys, as Java's keytool does.
func TestCopyIntoToken(t *testing.T) {
	e := newEnv(t)
	for _, instance := range []string{softwareID, hardwareID} {
		u := e.user(t, p11rpc.Keyward, instance)
		public, private := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params)), nil)
		secret, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), text(ck.CKA_LABEL, "mine"))
		u.wantRV(ck.CKR_OK, rv)
		for _, h := range []handle{private, secret} {
			kept, rv := u.tryCopy(h, onToken, text(ck.CKA_ID, "kept"))
			u.wantRV(ck.CKR_OK, rv)
			_, place, ok := kept.key()
			key, err := e.service.TokenKey(t.Context(), root, instance, place)
			if err != nil || !ok || !key.Imported {
				t.Fatal(key, err)
			}
			checkKMSKey(t, u, kept, key)
			if key.PublicKey != nil && !bytes.Equal(key.PublicKey, u.get(public, ck.CKA_PUBLIC_KEY_INFO).Octets) {
				t.Error("it is another key")
			}
			if string(u.get(kept, ck.CKA_ID).Octets) != "kept" {
				t.Error("it has another name")
			}
			u.is(h, ck.CKA_LOCAL) // the session key is still there
		}
		// What the KMS has no keys for stays where it is.
		_, p384 := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, string(sessionkey.P384.Params()))), nil)
		_, rv = u.tryCopy(p384, onToken)
		u.wantRV(ck.CKR_KEY_SIZE_RANGE, rv)
		_, deriving := u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params)), is(ck.CKA_DERIVE))
		_, rv = u.tryCopy(deriving, onToken)
		u.wantRV(ck.CKR_TEMPLATE_INCONSISTENT, rv)
		half, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32), isNot(ck.CKA_DECRYPT))
		u.wantRV(ck.CKR_OK, rv)
		_, rv = u.tryCopy(half, onToken) // it would decrypt there
		u.wantRV(ck.CKR_TEMPLATE_INCONSISTENT, rv)
		// And the KMS gives nothing back.
		for _, h := range u.find(100, onToken) {
			for _, template := range [][]p11rpc.Attribute{nil, isNot(ck.CKA_TOKEN)} {
				_, rv := u.tryCopy(h, template)
				u.wantRV(ck.CKR_ACTION_PROHIBITED, rv)
			}
		}
	}
}

// TestDestroyInUse destroys a session key while other sessions use it, change it and copy it: each of these ends with an answer that is right.
func TestDestroyInUse(t *testing.T) {
	e := newEnv(t)
	for range 20 {
		u := e.user(t, p11rpc.Keyward, softwareID)
		h, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32))
		u.wantRV(ck.CKR_OK, rv)
		var all sync.WaitGroup
		for i := range 3 {
			other := e.user(t, p11rpc.Keyward, softwareID) // the same cookie: the same application
			all.Go(func() {
				for {
					var rv ck.RV
					switch i {
					case 0:
						_, rv = other.call(29, other.in(func(w *p11rpc.Writer) { w.Mechanism(p11rpc.Mechanism{Type: ck.CKM_AES_ECB}); w.Ulong(uint64(h)) }))
						if rv == ck.CKR_OK {
							_, rv = other.call(30, other.in(func(w *p11rpc.Writer) { w.Octets(make([]byte, 64)); w.Room(p11rpc.Room{Size: 64}) }))
						}
					case 1:
						rv = other.set(h, text(ck.CKA_LABEL, "x"))
					case 2:
						_, rv = other.tryCopy(h)
					}
					switch rv {
					case ck.CKR_OK, ck.CKR_FUNCTION_FAILED: // another session was faster with a change
					case ck.CKR_OBJECT_HANDLE_INVALID, ck.CKR_KEY_HANDLE_INVALID, ck.CKR_OPERATION_NOT_INITIALIZED:
						return
					default:
						t.Errorf("%d: %v", i, rv)
						return
					}
				}
			})
		}
		u.wantRV(ck.CKR_OK, u.destroy(h))
		all.Wait()
	}
}

// TestDestroyWipes says that nothing can be done any more with a key that was destroyed, by whoever still has it.
func TestDestroyWipes(t *testing.T) {
	e := newEnv(t)
	u := e.user(t, p11rpc.Keyward, softwareID)
	var keys []*sessionKey
	grab := func() {
		for a := range e.front.all {
			a.eachObject(softwareID, func(_ handle, o sessionObject) { keys = append(keys, o.(*sessionKey)) })
		}
	}
	u.pair(ck.CKM_EC_KEY_PAIR_GEN, all(text(ck.CKA_EC_PARAMS, p256Params)), nil)
	if _, rv := u.tryGenerate(ck.CKM_AES_KEY_GEN, number(ck.CKA_VALUE_LEN, 32)); rv != ck.CKR_OK {
		t.Fatal(rv)
	}
	grab()
	u.must(11, u.in(nil)) // C_CloseSession
	if len(keys) != 3 {
		t.Fatal(len(keys))
	}
	for _, k := range keys {
		var err error
		switch {
		case k.secret != nil:
			_, err = k.secret.Marshal()
		case k.priv != nil:
			_, err = k.priv.Marshal()
		default:
			continue
		}
		if err == nil {
			t.Errorf("%v is still there", k.class())
		}
	}
}
