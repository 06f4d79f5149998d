package control

import (
	"maps"
	"slices"
)

// codes are the return values that a C_ function of an HSM may well give when something is wrong. Others are ordered by
// their number. The package that has them all needs cgo, so they are here once more; a test of package faulty holds that
// they are the same.
var codes = map[string]uint{
	"CKR_HOST_MEMORY":                  0x02,
	"CKR_SLOT_ID_INVALID":              0x03,
	"CKR_GENERAL_ERROR":                0x05,
	"CKR_FUNCTION_FAILED":              0x06,
	"CKR_ARGUMENTS_BAD":                0x07,
	"CKR_CANT_LOCK":                    0x0a,
	"CKR_DATA_INVALID":                 0x20,
	"CKR_DATA_LEN_RANGE":               0x21,
	"CKR_DEVICE_ERROR":                 0x30,
	"CKR_DEVICE_MEMORY":                0x31,
	"CKR_DEVICE_REMOVED":               0x32,
	"CKR_ENCRYPTED_DATA_INVALID":       0x40,
	"CKR_FUNCTION_CANCELED":            0x50,
	"CKR_FUNCTION_NOT_SUPPORTED":       0x54,
	"CKR_KEY_HANDLE_INVALID":           0x60,
	"CKR_KEY_TYPE_INCONSISTENT":        0x63,
	"CKR_KEY_FUNCTION_NOT_PERMITTED":   0x68,
	"CKR_MECHANISM_INVALID":            0x70,
	"CKR_MECHANISM_PARAM_INVALID":      0x71,
	"CKR_OBJECT_HANDLE_INVALID":        0x82,
	"CKR_OPERATION_ACTIVE":             0x90,
	"CKR_OPERATION_NOT_INITIALIZED":    0x91,
	"CKR_PIN_INCORRECT":                0xa0,
	"CKR_PIN_EXPIRED":                  0xa3,
	"CKR_PIN_LOCKED":                   0xa4,
	"CKR_SESSION_CLOSED":               0xb0,
	"CKR_SESSION_COUNT":                0xb1,
	"CKR_SESSION_HANDLE_INVALID":       0xb3,
	"CKR_SESSION_READ_ONLY":            0xb5,
	"CKR_SIGNATURE_INVALID":            0xc0,
	"CKR_TOKEN_NOT_PRESENT":            0xe0,
	"CKR_TOKEN_NOT_RECOGNIZED":         0xe1,
	"CKR_USER_NOT_LOGGED_IN":           0x101,
	"CKR_USER_PIN_NOT_INITIALIZED":     0x102,
	"CKR_RANDOM_NO_RNG":                0x121,
	"CKR_BUFFER_TOO_SMALL":             0x150,
	"CKR_CRYPTOKI_NOT_INITIALIZED":     0x190,
	"CKR_CRYPTOKI_ALREADY_INITIALIZED": 0x191,
	"CKR_MUTEX_BAD":                    0x1a0,
	"CKR_VENDOR_DEFINED":               0x80000000,
}

// Codes gives the names of the return values that Code knows, in the order of the alphabet.
func Codes() []string { return slices.Sorted(maps.Keys(codes)) }

// Code gives the return value of a name.
func Code(name string) (code uint, known bool) {
	code, known = codes[name]
	return code, known
}
