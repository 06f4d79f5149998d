package kms

import (
	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// spec is what a KeySpec means (reference section 6.1).
type spec struct {
	name     kmswire.KeySpec
	hsm      hsmpool.KeyType
	aesBytes int // symmetric keys: octets of material; 0: asymmetric
	rsaBytes int // RSA keys: octets of the modulus; 0: another type
	software bool
	sign     []kmswire.Algorithm
	encrypt  []kmswire.Algorithm
}

func (s *spec) symmetric() bool { return s.aesBytes > 0 }

// usages gives what keys of the spec may be made for, the default first.
func (s *spec) usages() []kmswire.KeyUsage {
	switch {
	case s.symmetric():
		return []kmswire.KeyUsage{kmswire.EncryptDecrypt}
	case len(s.encrypt) == 0:
		return []kmswire.KeyUsage{kmswire.SignVerify}
	}
	return []kmswire.KeyUsage{kmswire.SignVerify, kmswire.EncryptDecrypt}
}

var (
	rsaSign    = []kmswire.Algorithm{kmswire.RSAPSSSHA256, kmswire.RSAPKCS1SHA256}
	rsaEncrypt = []kmswire.Algorithm{kmswire.RSAOAEPSHA256, kmswire.RSAOAEPSHA1}
	ecSign     = []kmswire.Algorithm{kmswire.ECDSASHA256}
)

// specs is the seed set.
var specs = map[kmswire.KeySpec]*spec{
	kmswire.AES256:  {name: kmswire.AES256, hsm: hsmpool.AES256, aesBytes: 32, software: true},
	kmswire.AES192:  {name: kmswire.AES192, hsm: hsmpool.AES192, aesBytes: 24},
	kmswire.AES128:  {name: kmswire.AES128, hsm: hsmpool.AES128, aesBytes: 16},
	kmswire.RSA2048: {name: kmswire.RSA2048, hsm: hsmpool.RSA2048, rsaBytes: 256, software: true, sign: rsaSign, encrypt: rsaEncrypt},
	kmswire.RSA3072: {name: kmswire.RSA3072, hsm: hsmpool.RSA3072, rsaBytes: 384, software: true, sign: rsaSign, encrypt: rsaEncrypt},
	kmswire.RSA4096: {name: kmswire.RSA4096, hsm: hsmpool.RSA4096, rsaBytes: 512, software: true, sign: rsaSign, encrypt: rsaEncrypt},
	kmswire.ECP256:  {name: kmswire.ECP256, hsm: hsmpool.P256, software: true, sign: ecSign},
	kmswire.ECP256K: {name: kmswire.ECP256K, hsm: hsmpool.Secp256k1, software: true, sign: ecSign},
}

// signOps and decryptOps say which HSM operation an algorithm is.
var (
	signOps = map[kmswire.Algorithm]hsmpool.Op{
		kmswire.RSAPSSSHA256:   hsmpool.SignPSSSHA256,
		kmswire.RSAPKCS1SHA256: hsmpool.SignPKCS1SHA256,
		kmswire.ECDSASHA256:    hsmpool.SignECDSA,
	}
	decryptOps = map[kmswire.Algorithm]hsmpool.Op{
		kmswire.RSAOAEPSHA256: hsmpool.DecryptOAEPSHA256,
		kmswire.RSAOAEPSHA1:   hsmpool.DecryptOAEPSHA1,
	}
)

// hsmUsage is what an HSM lets the material of a key do: its usage, and the secondary one if it has one.
func hsmUsage(k *keystore.Key) hsmpool.Usage {
	var uses hsmpool.Usage
	for _, u := range []kmswire.KeyUsage{kmswire.KeyUsage(k.Usage), kmswire.KeyUsage(k.SecondaryUsage)} {
		switch u {
		case kmswire.SignVerify:
			uses |= hsmpool.UseSign
		case kmswire.EncryptDecrypt:
			uses |= hsmpool.UseEncrypt
		}
	}
	return uses
}
