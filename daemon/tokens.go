package daemon

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/miekg/pkcs11"
)

// softHSMPaths are where distributions put SoftHSM2's module.
var softHSMPaths = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
	"/usr/lib64/softhsm/libsofthsm2.so",
	"/usr/lib/pkcs11/libsofthsm2.so",
	"/usr/local/lib/softhsm/libsofthsm2.so",
	"/opt/homebrew/lib/softhsm/libsofthsm2.so",
}

// findSoftHSM finds the module, or takes the one that was named.
func findSoftHSM(named string) (string, error) {
	if named != "" {
		path, err := filepath.Abs(named)
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("--module: %w", err)
		}
		return path, nil
	}
	for _, path := range softHSMPaths {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("SoftHSM2 is not installed (looked for %s); run: sudo apt-get install softhsm2, or name another PKCS#11 module that makes tokens with --module", strings.Join(softHSMPaths, ", "))
}

// softHSMConfig writes the configuration file of SoftHSM2 for tokens in dir.
func softHSMConfig(path, tokens string) error {
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return err
	}
	return writeNew(path, []byte("directories.tokendir = "+tokens+"\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"), 0o600)
}

// newPIN makes a PIN of 64 random bits and more, and a file that holds it.
func newPIN(path string) (string, error) {
	pin := rand.Text()[:16]
	if err := writeNew(path, []byte(pin+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("a PIN file: %w", err)
	}
	return pin, nil
}

// makeToken initializes a token with that label in the first free slot of a SoftHSM2 module, in this process: its own
// tool wants the PINs as arguments, where every process on the machine can read them. SOFTHSM2_CONF must be set. The
// module is not initialized before and after.
func makeToken(module, label, soPIN, pin string) (err error) {
	ctx := pkcs11.New(module)
	if ctx == nil {
		return fmt.Errorf("%s can't be loaded as a PKCS#11 module", module)
	}
	defer ctx.Destroy()
	if err := ctx.Initialize(); err != nil {
		return fmt.Errorf("C_Initialize of %s: %w", module, err)
	}
	defer func() { err = errors.Join(err, ctx.Finalize()) }()
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		return fmt.Errorf("C_GetSlotList: %w", err)
	}
	for _, slot := range slots {
		info, err := ctx.GetTokenInfo(slot)
		if err != nil {
			return fmt.Errorf("C_GetTokenInfo: %w", err)
		}
		if info.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 {
			continue
		}
		if err := ctx.InitToken(slot, soPIN, label); err != nil {
			return fmt.Errorf("C_InitToken: %w", err)
		}
		return setPIN(ctx, label, soPIN, pin)
	}
	return fmt.Errorf("%s has no free slot for a token", module)
}

// setPIN sets the user PIN of the token called label. It looks the slot up, because a new token may move to another.
func setPIN(ctx *pkcs11.Ctx, label, soPIN, pin string) error {
	slot, err := slotOf(ctx, label)
	if err != nil {
		return err
	}
	session, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("C_OpenSession: %w", err)
	}
	if err := ctx.Login(session, pkcs11.CKU_SO, soPIN); err != nil {
		return fmt.Errorf("C_Login: %w", err)
	}
	if err := ctx.InitPIN(session, pin); err != nil {
		return fmt.Errorf("C_InitPIN: %w", err)
	}
	return ctx.CloseSession(session)
}

// slotOf finds the slot of the token with exactly that label.
func slotOf(ctx *pkcs11.Ctx, label string) (uint, error) {
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("C_GetSlotList: %w", err)
	}
	for _, slot := range slots {
		info, err := ctx.GetTokenInfo(slot)
		if err != nil {
			return 0, fmt.Errorf("C_GetTokenInfo: %w", err)
		}
		if strings.TrimRight(info.Label, " \x00") == label {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("the token %s can't be found", label)
}
