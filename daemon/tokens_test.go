package daemon

import (
	"errors"

	"github.com/miekg/pkcs11"
)

// tryPINs logs in to each token as its user.
func tryPINs(module string, pins map[string]string) (err error) {
	ctx := pkcs11.New(module)
	if ctx == nil {
		return errors.New("no module")
	}
	defer ctx.Destroy()
	if err := ctx.Initialize(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ctx.Finalize()) }()
	for label, pin := range pins {
		slot, err := slotOf(ctx, label)
		if err != nil {
			return err
		}
		session, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			return err
		}
		if err := errors.Join(ctx.Login(session, pkcs11.CKU_USER, pin), ctx.CloseSession(session)); err != nil {
			return err
		}
	}
	return nil
}
