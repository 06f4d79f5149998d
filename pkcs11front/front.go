package pkcs11front

import (
	"github.com/rs/zerolog"

	"github.com/keyward/keyward/kms"
)

// Config is what a Front is made of.
type Config struct {
	Service *kms.Service
	Log     zerolog.Logger
	Version string // of keyward, for C_GetInfo
	RawRSA  bool   // CKM_RSA_X_509 is offered: a signing oracle for whatever the caller likes
}

// Front is the door. All its methods may be called at the same time.
type Front struct {
	cfg Config
}
