package admin

// Reference is what keywardd reference prints: how fast SoftHSM2 and libcrypto are without keyward around them, on this
// machine, now. keywardctl bench --direct puts its own figures next to them.
type Reference struct {
	Seconds float64 `json:"seconds"` // length of each measurement
	Rates   []Rate  `json:"rates"`
}

// Rate is one measurement.
type Rate struct {
	Engine    string  `json:"engine"`    // SoftHSM2 or libcrypto
	Operation string  `json:"operation"` // one of the Operations
	Threads   int     `json:"threads"`
	PerSecond float64 `json:"per_second"`
}

// The engines.
const (
	SoftHSM2  = "SoftHSM2"  // PKCS#11 calls on session objects, a session for each thread, in one process
	Libcrypto = "libcrypto" // OpenSSL's libcrypto for RSA and P-256; Go's own AES-GCM, as keyward uses it
)

// The operations.
const (
	SignRSA2048 = "sign RSA_2048"   // PKCS #1 v1.5, SHA-256 digest
	SignP256    = "sign EC_P256"    // ECDSA, SHA-256 digest
	EncryptGCM  = "encrypt AES_256" // AES-256-GCM of 1 KiB
)

// Operations lists the operations in the order of measuring.
func Operations() []string { return []string{SignRSA2048, SignP256, EncryptGCM} }
