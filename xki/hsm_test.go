package xki

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/hsmpool/hsmtest"
	"github.com/keyward/keyward/hsmpool/hsmtest/faulty"
)

// moduleWorld is a world whose only HSM fails on order.
func moduleWorld(t *testing.T) (*world, *faulty.Module) {
	t.Helper()
	testPool()
	h := shared.spare
	m := faulty.New(t, h.Members()[0].Module)
	c := h.Config()
	c.Members[0].Module = m.Path
	return newWorldOn(t, hsmtest.OpenConfig(t, c)), m
}

// A call that the HSM takes too long for is answered at about ProxyDeadline, while the HSM still has it; the session returns by itself, and what the HSM
// then says is nobody's answer.
func TestSlowHSM(t *testing.T) {
	w, m := moduleWorld(t)
	for prefix, d := range map[string]*Dialect{"/ks1": XKSv1, "": XKIv1} {
		plaintext := bytes.Repeat([]byte{7}, 100)
		sealed := w.good(d, prefix, &Request{Op: OpEncrypt, KeyID: "hardware", Plaintext: plaintext, Algorithm: AlgorithmGCM}).Sealed
		for fn, r := range map[string]*Request{
			"C_Encrypt": {Op: OpEncrypt, KeyID: "hardware", Plaintext: plaintext, Algorithm: AlgorithmGCM, Metadata: meta},
			"C_Decrypt": {Op: OpDecrypt, KeyID: "hardware", Sealed: sealed, Algorithm: AlgorithmGCM, Metadata: meta},
		} {
			m.Hang(fn)
			w.proxy.deadline = w.deadline
			var callers sync.WaitGroup
			for range 8 {
				callers.Go(func() {
					began := time.Now()
					status, body := w.call(d, prefix, r, nil)
					if e := d.DecodeError(status, body); e.Code != DependencyTimeout || status != d.failures[DependencyTimeout].status {
						t.Errorf("%s, %s hangs: %d %s", d.name, fn, status, body)
					}
					// The answer is too early to be anything but the deadline, and too early for the HSM's.
					if took := time.Since(began); took < ProxyDeadline*9/10 {
						t.Errorf("%s, %s hangs: answered after %v", d.name, fn, took)
					}
				})
			}
			callers.Wait()
			w.proxy.deadline = patience
			if m.Hanging() == 0 {
				t.Errorf("%s: nothing hangs in the HSM, so this test shows nothing", fn)
			}
			m.Release()
			for deadline := time.Now().Add(20 * time.Second); m.Hanging() > 0; {
				if time.Now().After(deadline) {
					t.Fatalf("%d calls of %s still hang", m.Hanging(), fn)
				}
			}
			a := w.good(d, prefix, &Request{Op: OpDecrypt, KeyID: "hardware", Sealed: sealed, Algorithm: AlgorithmGCM})
			if !bytes.Equal(a.Plaintext, plaintext) {
				t.Errorf("%s: another plaintext came back after %s hung", d.name, fn)
			}
		}
	}
	if open := m.Sessions(); open > 64 {
		t.Errorf("%d sessions are open", open)
	}
}

// An HSM that fails, or is gone, is a fault of the proxy (§2.9: 500), and said in the dialect's words; keys in software go on.
func TestNoHSM(t *testing.T) {
	w, m := moduleWorld(t)
	sealed := map[*Dialect]Sealed{}
	prefixes := map[string]*Dialect{"/ks1": XKSv1, "": XKIv1}
	encrypt := func(key string) *Request {
		return &Request{Op: OpEncrypt, KeyID: key, Plaintext: []byte("text"), Algorithm: AlgorithmGCM, Metadata: meta}
	}
	for prefix, d := range prefixes {
		sealed[d] = w.good(d, prefix, encrypt("hardware")).Sealed
	}
	for _, fn := range []string{"C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_OpenSession", "C_GetTokenInfo", "C_GetSlotList"} {
		m.Fail(fn, pkcs11.CKR_DEVICE_REMOVED, faulty.Before, faulty.Always)
	}
	for prefix, d := range prefixes {
		decrypt := &Request{Op: OpDecrypt, KeyID: "hardware", Sealed: sealed[d], Algorithm: AlgorithmGCM, Metadata: meta}
		w.proxy.deadline = w.deadline // until which an HSM that comes back is waited for
		for _, r := range []*Request{encrypt("hardware"), decrypt, encrypt("hardware"), decrypt} {
			status, body := w.call(d, prefix, r, nil)
			if e := d.DecodeError(status, body); e.Code != Internal && e.Code != DependencyTimeout {
				t.Errorf("%s, %v without HSM: %d %s", d.name, r.Op, status, body)
			}
			if bytes.Contains(body, []byte("CKR_")) || bytes.Contains(body, []byte("only")) {
				t.Errorf("%s tells strangers of our HSM: %s", d.name, body)
			}
		}
		w.proxy.deadline = patience
		w.good(d, prefix, encrypt("software"))
	}
	m.Reset()
	for deadline := time.Now().Add(20 * time.Second); ; {
		status, body := w.call(XKSv1, "/ks1", encrypt("hardware"), nil)
		if status == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the HSM is back, and still: %d %s", status, body)
		}
	}
}
