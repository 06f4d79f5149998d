package ctl

import (
	"github.com/keyward/keyward/daemon/admin"
	"github.com/keyward/keyward/kms/kmswire"
)

// How a bench row's items travel.
const (
	single    = "single" // one item a call
	jsonBatch = "json"   // benchBatch items a call
	octetFlow = "octets" // one stream for the whole row
)

const (
	benchBatch     = 100  // items of a JSON batch
	benchPlaintext = 1024 // octets
)

// benchRow is one line of the bench. Its name is what people compare between releases: it never changes its meaning.
type benchRow struct {
	name      string
	instance  string // type of instance: software or hardware
	spec      kmswire.KeySpec
	algorithm kmswire.Algorithm // empty: encrypt
	form      string
	// engine and operation name the rate of admin.Reference that does the same without keyward.
	engine, operation string
}

// benchRows is the bench.
var benchRows = []benchRow{
	{"software encrypt 1KiB single", "software", kmswire.AES256, "", single, admin.Libcrypto, admin.EncryptGCM},
	{"software encrypt 1KiB json-100", "software", kmswire.AES256, "", jsonBatch, admin.Libcrypto, admin.EncryptGCM},
	{"software encrypt 1KiB octets", "software", kmswire.AES256, "", octetFlow, admin.Libcrypto, admin.EncryptGCM},
	{"software sign rsa-2048 single", "software", kmswire.RSA2048, kmswire.RSAPKCS1SHA256, single, admin.Libcrypto, admin.SignRSA2048},
	{"software sign rsa-2048 octets", "software", kmswire.RSA2048, kmswire.RSAPKCS1SHA256, octetFlow, admin.Libcrypto, admin.SignRSA2048},
	{"software sign p-256 single", "software", kmswire.ECP256, kmswire.ECDSASHA256, single, admin.Libcrypto, admin.SignP256},
	{"software sign p-256 octets", "software", kmswire.ECP256, kmswire.ECDSASHA256, octetFlow, admin.Libcrypto, admin.SignP256},
	{"hardware encrypt 1KiB single", "hardware", kmswire.AES256, "", single, admin.SoftHSM2, admin.EncryptGCM},
	{"hardware encrypt 1KiB json-100", "hardware", kmswire.AES256, "", jsonBatch, admin.SoftHSM2, admin.EncryptGCM},
	{"hardware encrypt 1KiB octets", "hardware", kmswire.AES256, "", octetFlow, admin.SoftHSM2, admin.EncryptGCM},
	{"hardware sign rsa-2048 single", "hardware", kmswire.RSA2048, kmswire.RSAPKCS1SHA256, single, admin.SoftHSM2, admin.SignRSA2048},
	{"hardware sign rsa-2048 octets", "hardware", kmswire.RSA2048, kmswire.RSAPKCS1SHA256, octetFlow, admin.SoftHSM2, admin.SignRSA2048},
	{"hardware sign p-256 single", "hardware", kmswire.ECP256, kmswire.ECDSASHA256, single, admin.SoftHSM2, admin.SignP256},
	{"hardware sign p-256 octets", "hardware", kmswire.ECP256, kmswire.ECDSASHA256, octetFlow, admin.SoftHSM2, admin.SignP256},
}

// benchAlias is the name under which a row's key is found again by the next run.
func benchAlias(r benchRow) string {
	return "alias/bench/" + r.instance + "/" + string(r.spec)
}
