package ctl

import "github.com/keyward/keyward/kms/kmswire"

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
	// reference names the row of a reference program that does the same without keyward.
	reference string
}

// benchRows is the bench.
var benchRows = []benchRow{
	{"software encrypt 1KiB single", "software", kmswire.AES256, "", single, "libcrypto aes-256-gcm 1KiB encrypt"},
	{"software encrypt 1KiB json-100", "software", kmswire.AES256, "", jsonBatch, "libcrypto aes-256-gcm 1KiB encrypt"},
	{"software encrypt 1KiB octets", "software", kmswire.AES256, "", octetFlow, "libcrypto aes-256-gcm 1KiB encrypt"},
	{"software sign rsa-2048 single", "software", kmswire.RSA2048, kmswire.RSAPKCS1SHA256, single, "libcrypto rsa-2048 sign"},
	{"software sign rsa-2048 octets", "software", kmswire.RSA2048, kmswire.RSAPKCS1SHA256, octetFlow, "libcrypto rsa-2048 sign"},
	{"software sign p-256 single", "software", kmswire.ECP256, kmswire.ECDSASHA256, single, "libcrypto p-256 sign"},
	{"software sign p-256 octets", "software", kmswire.ECP256, kmswire.ECDSASHA256, octetFlow, "libcrypto p-256 sign"},
	{"hardware encrypt 1KiB single", "hardware", kmswire.AES256, "", single, "softhsm2 aes-256-gcm 1KiB encrypt"},
	{"hardware encrypt 1KiB json-100", "hardware", kmswire.AES256, "", jsonBatch, "softhsm2 aes-256-gcm 1KiB encrypt"},
	{"hardware encrypt 1KiB octets", "hardware", kmswire.AES256, "", octetFlow, "softhsm2 aes-256-gcm 1KiB encrypt"},
	{"hardware sign rsa-2048 single", "hardware", kmswire.RSA2048, kmswire.RSAPKCS1SHA256, single, "softhsm2 rsa-2048 sign"},
	{"hardware sign rsa-2048 octets", "hardware", kmswire.RSA2048, kmswire.RSAPKCS1SHA256, octetFlow, "softhsm2 rsa-2048 sign"},
	{"hardware sign p-256 single", "hardware", kmswire.ECP256, kmswire.ECDSASHA256, single, "softhsm2 p-256 sign"},
	{"hardware sign p-256 octets", "hardware", kmswire.ECP256, kmswire.ECDSASHA256, octetFlow, "softhsm2 p-256 sign"},
}

// benchAlias is the name under which a row's key is found again by the next run.
func benchAlias(r benchRow) string {
	return "alias/bench/" + r.instance + "/" + string(r.spec)
}
