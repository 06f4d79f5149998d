package moduletest

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// Return values that the daemon gives.
const (
	argumentsBad    = 0x7
	mechanismBad    = 0x70
	handleBad       = 0x82
	active          = 0x90
	notInitialized  = 0x91
	pinIncorrect    = 0xa0
	sessionBad      = 0xb3
	signatureBad    = 0xc0
	alreadyLoggedIn = 0x100
	notLoggedIn     = 0x101
	slotBad         = 0x3
)

// Slots: 1 wants no PIN, 2 wants 1234. Keys are any numbers but 666, which no Init takes, and in slot 2 need a login.
const pin = "1234"

// doing is a call that is being answered.
type doing struct {
	d    *daemon
	name string
	v    []any
	app  *app
	s    *serverSession
	out  []byte
}

func (c *doing) u(i int) uint64  { return c.v[i].(uint64) }
func (c *doing) in(i int) []byte { return c.v[i].([]byte) }
func (c *doing) mech(i int) mech { return c.v[i].(mech) }
func (c *doing) room(i int) room { return c.v[i].(room) }
func (c *doing) ulongs(n ...uint64) {
	for _, n := range n {
		c.out = append(c.out, ulong(n)...)
	}
}

// give answers an ay for a room, and says whether it fit.
func (c *doing) give(r room, b []byte) bool {
	if len(b) > 0 && (r.null || uint64(r.n) < uint64(len(b))) {
		c.out = append(c.out, 0)
		c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(b)))
		return false
	}
	c.out = append(c.out, 1)
	c.out = append(c.out, octets(b)...)
	return true
}

func (c *doing) list(r room, n []uint64) {
	present := byte(1)
	if len(n) > 0 && (r.null || uint64(r.n) < uint64(len(n))) {
		present = 0
	}
	c.out = append(c.out, present)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(n)))
	if present == 1 {
		c.ulongs(n...)
	}
}

func (c *doing) do() uint64 {
	if c.name == "Initialize" {
		return c.initialize()
	}
	if c.app == nil {
		return 0x190
	}
	switch c.name {
	case "Finalize":
		for cookie, a := range c.d.apps {
			if a == c.app {
				delete(c.d.apps, cookie)
			}
		}
		c.app = nil
	case "GetSlotList":
		c.list(c.room(1), []uint64{1, 2})
	case "GetSlotInfo":
		c.out = append(c.out, padded("slot", 64)...)
		c.out = append(c.out, padded("maker", 32)...)
		c.ulongs(1)
		c.out = append(c.out, 1, 2, 3, 4)
	case "GetTokenInfo":
		c.out = append(c.out, padded("token", 32)...)
		c.out = append(c.out, padded("maker", 32)...)
		c.out = append(c.out, padded("model", 16)...)
		c.out = append(c.out, padded("serial", 16)...)
		c.ulongs(map[uint64]uint64{1: 1, 2: 5}[c.u(0)])
		for i := range uint64(10) {
			c.ulongs(i)
		}
		c.out = append(c.out, 1, 2, 3, 4)
		c.out = append(c.out, padded("2026", 16)...)
	case "GetMechanismList":
		c.list(c.room(1), []uint64{0x251, 0x1087, 0x1086})
	case "GetMechanismInfo":
		c.ulongs(16, 32, 0x800)
	case "OpenSession":
		if c.u(0) != 1 && c.u(0) != 2 {
			return slotBad
		}
		c.app.next++
		n := c.app.epoch*1000 + c.app.next // never the same after a restart
		c.app.sessions[n] = &serverSession{slot: c.u(0), flags: c.u(1), ops: map[string]*op{}}
		c.ulongs(n)
	case "CloseAllSessions":
		if c.u(0) != 1 && c.u(0) != 2 {
			return slotBad
		}
		for n, s := range c.app.sessions {
			if s.slot == c.u(0) {
				delete(c.app.sessions, n)
			}
		}
		delete(c.app.loggedIn, c.u(0))
	case "WaitForSlotEvent":
		c.ulongs(2)
	case "InitToken2":
		if len(c.v[2].(string)) != 32 {
			return argumentsBad
		}
	default:
		if c.s = c.app.sessions[c.u(0)]; c.s == nil {
			return sessionBad
		}
		return c.inSession()
	}
	return 0
}

func (c *doing) initialize() uint64 {
	cookie := string(c.in(2))
	if string(c.in(0)) != "PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1" || c.v[1].(byte) != 1 || len(cookie) != 32 || strings.Trim(cookie, "0123456789abcdef") != "" {
		return argumentsBad
	}
	c.d.cookies[cookie] = true
	c.app = c.d.apps[cookie]
	if c.app == nil {
		c.d.epochs++
		c.app = &app{epoch: c.d.epochs, sessions: map[uint64]*serverSession{}, loggedIn: map[uint64]bool{}}
		c.d.apps[cookie] = c.app
	}
	c.ulongs(c.app.epoch)
	return 0
}

func (c *doing) inSession() uint64 {
	switch c.name {
	case "CloseSession":
		delete(c.app.sessions, c.u(0))
		return 0
	case "GetSessionInfo":
		state := uint64(0)
		if c.app.loggedIn[c.s.slot] {
			state = 1
		}
		c.ulongs(c.s.slot, state+c.s.flags&2, c.s.flags, 0)
		return 0
	case "Login", "LoginUser":
		c.app.tries++
		switch {
		case c.app.loggedIn[c.s.slot]:
			return alreadyLoggedIn
		case c.s.slot == 2 && string(c.in(2)) != pin:
			return pinIncorrect
		}
		c.app.loggedIn[c.s.slot] = true
		return 0
	case "Logout":
		if !c.app.loggedIn[c.s.slot] {
			return notLoggedIn
		}
		delete(c.app.loggedIn, c.s.slot)
		for _, s := range c.app.sessions {
			if s.slot == c.s.slot {
				clear(s.ops)
			}
		}
		return 0
	case "InitPIN", "SetPIN", "SetOperationState", "DestroyObject", "SetAttributeValue", "SeedRandom":
		return 0
	case "GetOperationState":
		c.give(c.room(1), []byte{1, 2, 3})
		return 0
	case "CreateObject", "GenerateKey", "UnwrapKey", "DeriveKey":
		c.app.next++
		c.ulongs(c.app.epoch*1000 + c.app.next)
		return 0
	case "CopyObject", "GetObjectSize":
		c.ulongs(c.u(1) + 1)
		return 0
	case "GenerateKeyPair":
		c.ulongs(71, 72)
		return 0
	case "WrapKey":
		c.give(c.room(4), []byte{9, 9, 9})
		return 0
	case "GenerateRandom":
		c.give(c.room(1), bytes.Repeat([]byte{4}, int(c.room(1).n)))
		return 0
	case "GetAttributeValue":
		return c.getAttributeValue()
	case "FindObjectsInit":
		if c.s.searching {
			return active
		}
		c.s.searching, c.s.search = true, nil
		for i := range c.d.objects {
			c.s.search = append(c.s.search, uint64(i+1))
		}
		return 0
	case "FindObjects":
		if !c.s.searching {
			return notInitialized
		}
		n := min(int(c.room(1).n), len(c.s.search))
		c.list(c.room(1), c.s.search[:n])
		c.s.search = c.s.search[n:]
		return 0
	case "FindObjectsFinal":
		if !c.s.searching {
			return notInitialized
		}
		c.s.searching = false
		return 0
	case "SessionCancel":
		clear(c.s.ops)
		c.s.searching = false
		return 0
	}
	return c.operation()
}

// operation does the calls of operations: by kind, the name without what comes after it.
func (c *doing) operation() uint64 {
	if name, ok := strings.CutSuffix(c.name, "Init"); ok {
		m := c.mech(1)
		switch {
		case m.null:
			delete(c.s.ops, name)
			switch name {
			case "Sign", "Digest", "Encrypt", "Decrypt":
				c.ulongs(0) // these answers have a number, whatever the Init does
			}
			return 0
		case c.s.ops[name] != nil:
			return active
		}
		o := &op{mech: m}
		if name != "Digest" {
			o.key = c.u(2)
		}
		switch {
		case o.key == 666:
			return mechanismBad
		case c.s.slot == 2 && !c.app.loggedIn[2]:
			return notLoggedIn
		}
		c.s.ops[name] = o
		switch name {
		case "Sign", "Digest":
			c.ulongs(map[bool]uint64{true: 32, false: 0}[m.typ == 0x251 || m.typ == 0x250])
		case "Encrypt", "Decrypt":
			c.ulongs(map[bool]uint64{true: 32, false: 0}[m.typ == 1])
		}
		return 0
	}
	for _, dual := range []struct{ call, first, second string }{{"DigestEncryptUpdate", "Digest", "Encrypt"}, {"DecryptDigestUpdate", "Decrypt", "Digest"},
		{"SignEncryptUpdate", "Sign", "Encrypt"}, {"DecryptVerifyUpdate", "Decrypt", "Verify"}} {
		if c.name == dual.call {
			if c.s.ops[dual.first] == nil || c.s.ops[dual.second] == nil {
				return notInitialized
			}
			c.give(c.room(2), xor(c.in(1)))
			return 0
		}
	}
	for _, message := range []string{"Encrypt", "Decrypt", "Sign", "Verify"} {
		if strings.HasPrefix(c.name, message+"Message") || c.name == "Message"+message+"Final" {
			return c.message(message)
		}
	}
	for _, suffix := range []string{"Update", "Final", "Key", ""} {
		if kind, ok := strings.CutSuffix(c.name, suffix); ok {
			o := c.s.ops[kind]
			if o == nil {
				return notInitialized
			}
			return c.step(o, kind, suffix)
		}
	}
	panic(c.name)
}

func (c *doing) step(o *op, kind, suffix string) uint64 {
	switch suffix {
	case "Key":
		o.data = append(o.data, ulong(c.u(1))...)
		return 0
	case "Update":
		return c.update(o, kind)
	}
	if suffix == "" {
		if o.parts {
			return active
		}
		if !bytes.Equal(c.in(1), nil) {
			o.data = c.in(1)
		}
	}
	last := len(c.v) - 1 // the room, or the signature
	switch kind {
	case "Verify":
		delete(c.s.ops, kind)
		if !bytes.Equal(c.in(last), sign(o.key, o.data)) {
			return signatureBad
		}
		return 0
	case "Sign", "Digest", "SignRecover", "VerifyRecover":
		if c.give(c.room(last), sign(o.key, o.data)) {
			delete(c.s.ops, kind)
		}
	default:
		rest := o.data
		if o.mech.typ == 0x1085 && kind == "Encrypt" {
			rest = append(append([]byte{}, rest...), bytes.Repeat([]byte{0x55}, 16-len(rest)%16)...)
		}
		if c.give(c.room(last), xor(rest)) {
			delete(c.s.ops, kind)
		}
	}
	if suffix == "" && c.s.ops[kind] != nil {
		o.data = nil
	}
	return 0
}

func (c *doing) update(o *op, kind string) uint64 {
	data := append(append([]byte{}, o.data...), c.in(1)...)
	if kind != "Encrypt" && kind != "Decrypt" {
		o.data, o.parts = data, true
		return 0
	}
	n := len(data)
	if o.mech.typ == 0x1085 { // by blocks
		n -= n % 16
	}
	if c.give(c.room(2), xor(data[:n])) {
		o.data, o.parts = data[n:], true
	}
	return 0
}

// message does the calls on messages. The octets of a parameter are bytes IV, fixed bits, generator, bytes tag, tag bits.
func (c *doing) message(kind string) uint64 {
	o := c.s.ops["Message"+kind]
	if o == nil {
		return notInitialized
	}
	if c.name == "Message"+kind+"Final" {
		delete(c.s.ops, "Message"+kind)
		return 0
	}
	var p reader
	if b := c.in(1); b != nil {
		p.b = b
		iv := p.octets()
		p.u64()
		generator := p.u64()
		tag := p.octets()
		bits := p.u64()
		if p.err != nil || len(p.b) > 0 {
			return argumentsBad
		}
		switch c.name {
		case "EncryptMessage":
			if len(tag) != 0 {
				return argumentsBad
			}
			if generator != 0 {
				iv = bytes.Repeat([]byte{0xee}, len(iv))
			}
			var back []byte
			back = append(back, octets(iv)...)
			back = append(back, ulong(0)...)
			back = append(back, ulong(generator)...)
			back = append(back, octets(bytes.Repeat([]byte{0xaa}, int(bits/8)))...)
			back = append(back, ulong(bits)...)
			c.out = append(c.out, 1)
			c.out = append(c.out, octets(back)...)
		case "DecryptMessage":
			if !bytes.Equal(tag, bytes.Repeat([]byte{0xaa}, int(bits/8))) {
				return 0x42
			}
		}
	}
	switch c.name {
	case "EncryptMessage", "DecryptMessage":
		c.give(c.room(4), xor(c.in(3)))
	case "EncryptMessageNext", "DecryptMessageNext":
		c.give(c.room(3), xor(c.in(2)))
	case "SignMessage":
		c.give(c.room(3), sign(o.key, c.in(2)))
	case "SignMessageNext":
		o.data = append(o.data, c.in(2)...)
		if c.v[3].(byte) == 0 {
			c.give(room{n: 9}, nil)
		} else if c.give(c.room(4), sign(o.key, o.data)) {
			o.data = nil
		}
	case "VerifyMessage":
		if !bytes.Equal(c.in(3), sign(o.key, c.in(2))) {
			return signatureBad
		}
	case "VerifyMessageNext":
		o.data = append(o.data, c.in(2)...)
		if c.in(3) != nil && !bytes.Equal(c.in(3), sign(o.key, o.data)) {
			return signatureBad
		}
	}
	return 0
}

// getAttributeValue answers for an object that has one attribute of each kind. CKA_VALUE is sensitive.
func (c *doing) getAttributeValue() uint64 {
	wants := c.v[2].([]want)
	out, rv := answerWants(wants)
	c.out = append(c.out, out...)
	c.ulongs(rv)
	return 0
}

func answerWants(wants []want) (out []byte, rv uint64) {
	out = binary.BigEndian.AppendUint32(out, uint32(len(wants)))
	for _, w := range wants {
		out = binary.BigEndian.AppendUint32(out, w.typ)
		kind, size, value := byte(0), 0, []byte(nil)
		switch w.typ {
		case 0x0:
			kind, size, value = 2, 8, ulong(3)
		case 0x1:
			kind, size, value = 1, 1, []byte{1}
		case 0x3:
			kind, size, value = 0, 5, octets([]byte("label"))
		case 0x102:
			kind, size, value = 0, 0, octets(nil)
		case 0x110:
			kind, size, value = 3, 8, octets([]byte("20261127"))
		case 0x40000600:
			kind, size, value = 4, 16, append(binary.BigEndian.AppendUint32(nil, 2), append(ulong(1), ulong(0x40)...)...)
		case 0x40000211:
			nested := w.nested
			if w.null || w.room != 48 {
				nested = []want{{typ: 0, null: true}, {typ: 3, null: true}}
			} else { // the daemon says what is in it
				nested[0].typ, nested[1].typ = 0, 3
			}
			v, nrv := answerWants(nested)
			if nrv != 0 {
				rv = nrv
			}
			kind, size, value = 5, 48, v
		case 0x11:
			out, rv = append(out, 0), 0x11
			continue
		default:
			out, rv = append(out, 0), 0x12
			continue
		}
		if !w.null && int(w.room) < size {
			rv = 0x150
		}
		out = append(out, 1, kind)
		out = binary.BigEndian.AppendUint32(out, uint32(size))
		if w.null && kind == 0 {
			out = binary.BigEndian.AppendUint32(out, 1<<32-1)
			continue
		}
		out = append(out, value...)
	}
	return out, rv
}
