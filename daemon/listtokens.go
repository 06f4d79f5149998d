package daemon

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/keyward/keyward/daemon/admin"
)

// cmdTokens lists the tokens of a library, for keywardctl init, which loads no library itself. No PIN is tried.
func cmdTokens(args []string) error {
	var module string
	if err := parse(admin.TokensCommand, args, func(fs *flag.FlagSet) { fs.StringVar(&module, "module", "", "the PKCS#11 `library`") }); err != nil {
		return err
	}
	if module == "" {
		return fmt.Errorf("%w: --module is needed", errUsage)
	}
	if err := harden(); err != nil {
		return err
	}
	all, err := listTokens(module)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(admin.Tokens{Tokens: all})
}

func listTokens(module string) ([]admin.Token, error) {
	p := pkcs11.New(module)
	if p == nil {
		return nil, fmt.Errorf("%s can't be loaded: is it a PKCS#11 library for this machine?", module)
	}
	defer p.Destroy()
	if err := p.Initialize(); err != nil {
		return nil, fmt.Errorf("%s: C_Initialize: %w", module, err)
	}
	defer func() { _ = p.Finalize() }() // the process ends
	slots, err := p.GetSlotList(true)
	if err != nil {
		return nil, fmt.Errorf("%s: C_GetSlotList: %w", module, err)
	}
	all := []admin.Token{}
	for _, slot := range slots {
		info, err := p.GetTokenInfo(slot)
		if err != nil {
			return nil, fmt.Errorf("%s: C_GetTokenInfo of slot %d: %w", module, slot, err)
		}
		has := func(flag uint) bool { return info.Flags&flag != 0 }
		all = append(all, admin.Token{Label: strings.TrimRight(info.Label, " "), Serial: strings.TrimRight(info.SerialNumber, " "), Model: strings.TrimRight(info.Model, " "),
			Manufacturer: strings.TrimRight(info.ManufacturerID, " "), Initialized: has(pkcs11.CKF_TOKEN_INITIALIZED), UserPIN: has(pkcs11.CKF_USER_PIN_INITIALIZED),
			Locked: has(pkcs11.CKF_USER_PIN_LOCKED), FinalTry: has(pkcs11.CKF_USER_PIN_FINAL_TRY)})
	}
	return all, nil
}
