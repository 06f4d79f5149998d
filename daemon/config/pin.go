package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxPIN is the most octets a PIN file may have: far above what any HSM takes.
const maxPIN = 4096

// checkPINFile checks that file can hold a PIN safely. It does not read it.
func checkPINFile(file string) error {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("pin_file %s is not there; create it with only the PIN in it and mode 0600", file)
	case err != nil:
		return fmt.Errorf("pin_file: %w", err)
	}
	return checkPINInfo(file, info)
}

func checkPINInfo(file string, info os.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("pin_file %s is not a regular file", file)
	case info.Mode().Perm()&0o007 != 0:
		return fmt.Errorf("pin_file %s has mode %04o, so that everybody on this machine may touch it; run: chmod 0600 %s, and change the PIN", file, info.Mode().Perm(), file)
	case info.Mode().Perm()&0o020 != 0:
		return fmt.Errorf("pin_file %s has mode %04o, so that its group may write it; run: chmod 0600 %s", file, info.Mode().Perm(), file)
	case info.Size() == 0:
		return fmt.Errorf("pin_file %s is empty; write the PIN into it", file)
	case info.Size() > maxPIN:
		return fmt.Errorf("pin_file %s has %d octets, which is surely no PIN", file, info.Size())
	}
	return nil
}

// PIN reads the member's PIN. One line end after it is dropped. The caller wipes the result.
func (m *Member) PIN() ([]byte, error) {
	file := m.PINFile
	if m.PINCredential != "" {
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return nil, fmt.Errorf("member %q: pin_credential = %q, but there is no credentials directory: this does not run in a systemd unit. Start the daemon with systemctl; for an init use: systemd-run --pty --wait --collect -p LoadCredentialEncrypted=%s:FILE keywardd init --shares-dir DIR", m.Name, m.PINCredential, m.PINCredential)
		}
		file = filepath.Join(dir, m.PINCredential)
	}
	f, err := os.Open(file)
	switch {
	case errors.Is(err, os.ErrNotExist) && m.PINCredential != "":
		return nil, fmt.Errorf("member %q: the unit has no credential %q; add LoadCredentialEncrypted=%s:FILE to it", m.Name, m.PINCredential, m.PINCredential)
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("member %q: pin_file %s is not there", m.Name, file)
	case err != nil:
		return nil, fmt.Errorf("member %q: %w", m.Name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("member %q: %w", m.Name, err)
	}
	// systemd alone writes credentials; a file of our own is checked again now, as it may have changed since Load.
	if m.PINCredential == "" {
		if err := checkPINInfo(file, info); err != nil {
			return nil, fmt.Errorf("member %q: %w", m.Name, err)
		}
	}
	buf := make([]byte, maxPIN+1)
	n, err := io.ReadFull(f, buf)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		clear(buf)
		return nil, fmt.Errorf("member %q: %w", m.Name, err)
	}
	pin := bytes.TrimSuffix(bytes.TrimSuffix(buf[:n], []byte("\n")), []byte("\r"))
	if len(pin) == 0 || n > maxPIN {
		clear(buf)
		return nil, fmt.Errorf("member %q: %s is empty or too long for a PIN", m.Name, file)
	}
	return pin, nil
}
