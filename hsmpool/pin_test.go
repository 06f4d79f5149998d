package hsmpool

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"
)

// pinDesk is a guard whose PIN a test can change, and which counts what is asked of it.
type pinDesk struct {
	*pinGuard
	mu      sync.Mutex
	pin     string
	given   [][]byte // what read gave, the same memory
	readErr error
	reads   int
	told    int // calls of refused
	toldErr error
}

func newPINDesk() *pinDesk {
	d := &pinDesk{pin: "right"}
	d.pinGuard = newPINGuard(&MemberConfig{
		PIN: func() ([]byte, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.reads++
			b := []byte(d.pin)
			d.given = append(d.given, b)
			return b, d.readErr
		},
		Refused: func() (string, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.told++
			return "do something about it", d.toldErr
		},
	})
	return d
}

// try presents the PIN to a token whose C_Login ends like that, and says whether it was presented.
func (d *pinDesk) try(outcome error) (presented bool, err error) {
	err = d.present(func(pin []byte) error {
		presented = string(pin) == d.pin
		return outcome
	})
	return presented, err
}

const wrongPIN = pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)

// TestPINWrongOnce has many workers start at the same time with a wrong PIN: the token sees it once.
func TestPINWrongOnce(t *testing.T) {
	for range 20 {
		d := newPINDesk()
		var mu sync.Mutex
		presented := 0
		begin := make(chan struct{})
		errs := make(chan error, 32)
		var wg sync.WaitGroup
		for range cap(errs) {
			wg.Go(func() {
				<-begin
				errs <- d.present(func([]byte) error {
					mu.Lock()
					defer mu.Unlock()
					presented++
					return wrongPIN
				})
			})
		}
		close(begin)
		wg.Wait()
		close(errs)
		for err := range errs {
			var e *Error
			if !errors.As(err, &e) || e.fate != fateOperator || !errors.Is(err, wrongPIN) || !strings.Contains(err.Error(), "do something about it") {
				t.Fatalf("one of the workers got %v", err)
			}
		}
		if presented != 1 || d.told != 1 || d.reads != 1 {
			t.Fatalf("presented %d times, read %d times, told %d times", presented, d.reads, d.told)
		}
	}
}

// TestPINOutcomes goes through what C_Login may give, for a PIN that was never taken and for one that was.
func TestPINOutcomes(t *testing.T) {
	type outcome struct {
		err           error
		known, unsure bool // still presented after three such in a row: a PIN that was taken before, and one that was not
	}
	outcomes := []outcome{
		{nil, true, true},
		{wrongPIN, false, false},
		{pkcs11.Error(pkcs11.CKR_PIN_LOCKED), false, false},
		{pkcs11.Error(pkcs11.CKR_PIN_EXPIRED), false, false},
		{pkcs11.Error(pkcs11.CKR_PIN_LEN_RANGE), false, false},
		{pkcs11.Error(pkcs11.CKR_USER_PIN_NOT_INITIALIZED), true, false}, // nothing that could lock
		{pkcs11.Error(0x80000123), false, false},                         // a vendor's own
		{errUnknown, true, false},
		{fmt.Errorf("x: %w", errUnknown), true, false},
		{errors.New("no code at all"), true, true},
	}
	for _, code := range vaguePIN {
		outcomes = append(outcomes, outcome{code, true, false})
	}
	for _, code := range pinUntouched {
		outcomes = append(outcomes, outcome{code, true, true})
	}
	for _, o := range outcomes {
		for _, known := range []bool{true, false} {
			d := newPINDesk()
			want := o.unsure
			if known {
				want = o.known
				if _, err := d.try(nil); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 3 {
				if presented, err := d.try(o.err); (err == nil) != (o.err == nil) {
					t.Errorf("%v, try %d: %v (presented: %v)", o.err, i, err, presented)
				}
			}
			presented, _ := d.try(nil)
			if presented != want || (d.wasRefused() == nil) != want {
				t.Errorf("%v, known: %v: presented after three: %v; %v", o.err, known, presented, d.wasRefused())
			}
			if told := d.told; want && told != 0 || !want && told != 1 {
				t.Errorf("%v, known: %v: told %d times", o.err, known, told)
			}
		}
	}
}

// TestPINUnsureThird counts exactly: two tries that nobody knows the end of are let pass, as no token locks after two, and a success
// begins the count anew.
func TestPINUnsureThird(t *testing.T) {
	d := newPINDesk()
	for i := range 2 {
		if presented, err := d.try(errUnknown); !presented || err == nil || d.wasRefused() != nil {
			t.Fatalf("try %d: %v, %v", i, presented, err)
		}
	}
	if presented, err := d.try(pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)); !presented || d.wasRefused() == nil {
		t.Fatalf("the third: %v, %v", presented, err)
	}
	if presented, err := d.try(nil); presented || err == nil {
		t.Error("presented a fourth time")
	}

	d = newPINDesk()
	for range 2 {
		_, _ = d.try(errUnknown) // its error is the subject of the first part
	}
	if _, err := d.try(nil); err != nil {
		t.Fatal(err)
	}
	d.pin = "another" // nothing is known of it
	for i := range 2 {
		if presented, _ := d.try(errUnknown); !presented || d.wasRefused() != nil {
			t.Errorf("after a success, try %d is refused", i)
		}
	}
	if _, _ = d.try(errUnknown); d.wasRefused() == nil {
		t.Error("another PIN, three times with no end known, is not refused")
	}
}

// TestPINChanged forgets nothing of what was taken, but a PIN that was changed is as good as unknown.
func TestPINChanged(t *testing.T) {
	d := newPINDesk()
	if _, err := d.try(nil); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if presented, _ := d.try(errUnknown); !presented {
			t.Fatal("the PIN that was taken is refused")
		}
	}
	// Even a PIN that was taken is refused when the token says so: somebody has set another.
	if _, _ = d.try(wrongPIN); d.wasRefused() == nil {
		t.Error("not refused")
	}
}

func TestPINForgive(t *testing.T) {
	d := newPINDesk()
	if _, err := d.try(wrongPIN); err == nil || d.wasRefused() == nil {
		t.Fatal("not refused")
	}
	d.forgive()
	if d.wasRefused() != nil {
		t.Error("still refused")
	}
	if presented, _ := d.try(wrongPIN); !presented || d.told != 2 {
		t.Errorf("presented: %v, told %d times", presented, d.told)
	}
	if presented, _ := d.try(wrongPIN); presented {
		t.Error("forgiven for more than one try")
	}
	// The count of tries with no end begins anew as well.
	d.forgive()
	for i := range 2 {
		if presented, _ := d.try(errUnknown); !presented || d.wasRefused() != nil {
			t.Errorf("try %d after it was forgiven is refused", i)
		}
	}
	d.forgive()
	if err := d.refuse("the token says no"); err == nil || d.wasRefused() == nil {
		t.Error("a token's own word does not count")
	}
	if presented, err := d.try(nil); presented || !strings.Contains(err.Error(), "the token says no") {
		t.Errorf("presented: %v, %v", presented, err)
	}
	d.forgive()
	if presented, err := d.try(nil); !presented || err != nil {
		t.Errorf("presented: %v, %v", presented, err)
	}
}

// TestPINWiped looks at the memory that the PIN was in, whatever came of the login.
func TestPINWiped(t *testing.T) {
	d := newPINDesk()
	for _, outcome := range []error{nil, errUnknown, pkcs11.Error(pkcs11.CKR_TOKEN_NOT_PRESENT), wrongPIN} {
		_, _ = d.try(outcome) // its error is not the subject
	}
	d.forgive()
	d.readErr = errors.New("the file is half there")
	if presented, err := d.try(nil); presented || !errors.Is(err, d.readErr) || d.wasRefused() != nil {
		t.Errorf("a PIN that can't be read: presented: %v, %v", presented, err)
	}
	if len(d.given) != 5 {
		t.Fatalf("%d PINs were read", len(d.given))
	}
	for i, b := range d.given {
		if !bytes.Equal(b, make([]byte, len(d.pin))) {
			t.Errorf("PIN %d is %q afterwards", i, b)
		}
	}
	if bytes.Contains(d.accepted, []byte(d.pin)) {
		t.Error("the guard keeps the PIN")
	}
}

// TestPINToldFails has it be known that the refusal could not be written down.
func TestPINToldFails(t *testing.T) {
	d := newPINDesk()
	d.toldErr = errors.New("the disk is full")
	if _, err := d.try(wrongPIN); err == nil || !strings.Contains(err.Error(), "the disk is full") || !strings.Contains(err.Error(), "do something") {
		t.Errorf("%v", err)
	}
	g := newPINGuard(&MemberConfig{})
	if err := g.present(func([]byte) error { return nil }); err == nil || !strings.Contains(err.Error(), "no PIN is configured") {
		t.Errorf("without a PIN: %v", err)
	}
	g = newPINGuard(&MemberConfig{PIN: func() ([]byte, error) { return []byte("x"), nil }})
	if err := g.present(func([]byte) error { return wrongPIN }); err == nil || !strings.Contains(err.Error(), "correct it before") {
		t.Errorf("with nobody to tell: %v", err)
	}
}
