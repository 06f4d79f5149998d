package pkcs11front

// Each of these moves to the file of whoever writes it.

type search struct{}
type operations struct{}
type sessionObject struct{}
