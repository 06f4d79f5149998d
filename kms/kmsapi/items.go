package kmsapi

import (
	"encoding/binary"
	"strconv"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
)

// The items of the four batch actions.

func appendKeyHead(dst []byte, keyID, keyVersionID string) []byte {
	dst = appendString(append(dst, `,"KeyId":`...), keyID)
	return appendString(append(dst, `,"KeyVersionId":`...), keyVersionID)
}

func noHead[Resp any](dst []byte, _ *Resp) []byte { return dst }

// sole sets an item that has one member from its octets.
func sole[Item any](m member[Item]) func(*Item, []byte) error {
	return func(item *Item, octets []byte) error {
		if len(octets) == 0 {
			return kms.Missing(m.name)
		}
		*m.field(item) = octets
		return nil
	}
}

var (
	plaintextMember = member[kmswire.BatchEncryptItem]{"Plaintext", func(i *kmswire.BatchEncryptItem) *[]byte { return &i.Plaintext }}
	blobMember      = member[kmswire.BatchDecryptItem]{"CiphertextBlob", func(i *kmswire.BatchDecryptItem) *[]byte { return &i.CiphertextBlob }}
	digestMember    = member[kmswire.BatchSignItem]{"Digest", func(i *kmswire.BatchSignItem) *[]byte { return &i.Digest }}
)

var encryptItems = &items[kmswire.BatchEncryptRequest, kmswire.BatchEncryptResponse, kmswire.BatchEncryptItem, kmswire.BatchEncryptResult]{
	members:    []member[kmswire.BatchEncryptItem]{plaintextMember},
	context:    func(i *kmswire.BatchEncryptItem) *map[string]string { return &i.EncryptionContext },
	fromOctets: sole(plaintextMember),
	set:        func(req *kmswire.BatchEncryptRequest, items []kmswire.BatchEncryptItem) { req.Items = items },
	results:    func(resp *kmswire.BatchEncryptResponse) []kmswire.BatchEncryptResult { return resp.Items },
	head: func(dst []byte, resp *kmswire.BatchEncryptResponse) []byte {
		return appendKeyHead(dst, resp.KeyID, resp.KeyVersionID)
	},
	failed: func(r *kmswire.BatchEncryptResult) *kmswire.ItemError { return r.ItemError },
	appendJSON: func(dst []byte, r *kmswire.BatchEncryptResult) []byte {
		return appendOctets(append(dst, `"CiphertextBlob":`...), r.CiphertextBlob)
	},
	appendOctets: func(dst []byte, r *kmswire.BatchEncryptResult) []byte { return append(dst, r.CiphertextBlob...) },
}

var decryptItems = &items[kmswire.BatchDecryptRequest, kmswire.BatchDecryptResponse, kmswire.BatchDecryptItem, kmswire.BatchDecryptResult]{
	members:    []member[kmswire.BatchDecryptItem]{blobMember},
	context:    func(i *kmswire.BatchDecryptItem) *map[string]string { return &i.EncryptionContext },
	fromOctets: sole(blobMember),
	set:        func(req *kmswire.BatchDecryptRequest, items []kmswire.BatchDecryptItem) { req.Items = items },
	results:    func(resp *kmswire.BatchDecryptResponse) []kmswire.BatchDecryptResult { return resp.Items },
	head:       noHead[kmswire.BatchDecryptResponse],
	failed:     func(r *kmswire.BatchDecryptResult) *kmswire.ItemError { return r.ItemError },
	appendJSON: func(dst []byte, r *kmswire.BatchDecryptResult) []byte {
		dst = appendString(append(dst, `"KeyId":`...), r.KeyID)
		dst = appendString(append(dst, `,"KeyVersionId":`...), r.KeyVersionID)
		return appendOctets(append(dst, `,"Plaintext":`...), r.Plaintext)
	},
	appendOctets: func(dst []byte, r *kmswire.BatchDecryptResult) []byte { return append(dst, r.Plaintext...) },
	wipe:         func(r *kmswire.BatchDecryptResult) { clear(r.Plaintext) },
}

var signItems = &items[kmswire.BatchSignRequest, kmswire.BatchSignResponse, kmswire.BatchSignItem, kmswire.BatchSignResult]{
	members:    []member[kmswire.BatchSignItem]{digestMember},
	fromOctets: sole(digestMember),
	set:        func(req *kmswire.BatchSignRequest, items []kmswire.BatchSignItem) { req.Items = items },
	results:    func(resp *kmswire.BatchSignResponse) []kmswire.BatchSignResult { return resp.Items },
	head: func(dst []byte, resp *kmswire.BatchSignResponse) []byte {
		return appendKeyHead(dst, resp.KeyID, resp.KeyVersionID)
	},
	failed: func(r *kmswire.BatchSignResult) *kmswire.ItemError { return r.ItemError },
	appendJSON: func(dst []byte, r *kmswire.BatchSignResult) []byte {
		return appendOctets(append(dst, `"Value":`...), r.Value)
	},
	appendOctets: func(dst []byte, r *kmswire.BatchSignResult) []byte { return append(dst, r.Value...) },
}

var verifyItems = &items[kmswire.BatchVerifyRequest, kmswire.BatchVerifyResponse, kmswire.BatchVerifyItem, kmswire.BatchVerifyResult]{
	members: []member[kmswire.BatchVerifyItem]{
		{"Digest", func(i *kmswire.BatchVerifyItem) *[]byte { return &i.Digest }},
		{"Value", func(i *kmswire.BatchVerifyItem) *[]byte { return &i.Value }},
	},
	fromOctets: func(item *kmswire.BatchVerifyItem, octets []byte) error {
		if len(octets) < 2 || len(octets)-2 < int(binary.BigEndian.Uint16(octets)) {
			return kms.Invalid("Items", "an item is shorter than the digest that it announces.")
		}
		size := 2 + int(binary.BigEndian.Uint16(octets))
		item.Digest, item.Value = octets[2:size:size], octets[size:]
		switch {
		case len(item.Digest) == 0:
			return kms.Missing("Digest")
		case len(item.Value) == 0:
			return kms.Missing("Value")
		}
		return nil
	},
	set:     func(req *kmswire.BatchVerifyRequest, items []kmswire.BatchVerifyItem) { req.Items = items },
	results: func(resp *kmswire.BatchVerifyResponse) []kmswire.BatchVerifyResult { return resp.Items },
	head:    noHead[kmswire.BatchVerifyResponse],
	failed:  func(r *kmswire.BatchVerifyResult) *kmswire.ItemError { return r.ItemError },
	appendJSON: func(dst []byte, r *kmswire.BatchVerifyResult) []byte {
		return strconv.AppendBool(append(dst, `"Value":`...), r.Value != nil && *r.Value)
	},
	appendOctets: func(dst []byte, r *kmswire.BatchVerifyResult) []byte {
		if r.Value != nil && *r.Value {
			return append(dst, 1)
		}
		return append(dst, 0)
	},
}
