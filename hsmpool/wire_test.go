package hsmpool

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"reflect"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"
)

// reread reads what put wrote, and fails if anything is left of it.
func reread[T any](t *testing.T, b []byte, read func(*cursor) T) T {
	t.Helper()
	c := &cursor{b: b}
	v := read(c)
	if err := c.end(); err != nil {
		t.Errorf("%d octets can't be read back", len(b))
	}
	return v
}

func TestWireOpen(t *testing.T) {
	for _, f := range []*openFrame{
		{},
		{module: "/lib/x.so", label: "token", maxSessions: maxSessions, callTimeout: 3 * time.Second},
		{module: "/lib/x.so", serial: "0123", maxSessions: 1},
	} {
		if got := reread(t, putOpen(nil, f), (*cursor).open); *got != *f {
			t.Errorf("%+v, want %+v", got, f)
		}
	}
}

// TestWireSessions has every number of sessions that a configuration may name arrive at a worker.
func TestWireSessions(t *testing.T) {
	for _, most := range []int{0, 1, 63, 64, 65, 1000, 4096} {
		cfg := &MemberConfig{MaxSessions: most}
		c := &cursor{b: putOpen(nil, &openFrame{maxSessions: cfg.sessionsOfEach()})}
		if c.open(); c.end() != nil {
			t.Errorf("a worker refuses what a member of %d sessions opens it with", most)
		}
	}
}

func TestWireEnrol(t *testing.T) {
	for _, f := range []*enrolFrame{
		{},
		{key: bytes.Repeat([]byte{1}, 32), group: "0123", wrapped: [2][]byte{bytes.Repeat([]byte{2}, 40), bytes.Repeat([]byte{3}, 48)}},
	} {
		if got := reread(t, putEnrol(nil, f), (*cursor).enrol); !reflect.DeepEqual(got, f) {
			t.Errorf("%+v, want %+v", got, f)
		}
	}
}

func TestWireIdentity(t *testing.T) {
	for _, id := range []*identity{
		{Lanes: 1, Width: 1},
		{Token: "a token", Serial: "1234", Group: strings.Repeat("0", 32), Lanes: maxSessions, Width: 2},
	} {
		if got := reread(t, putIdentity(nil, id), (*cursor).identity); *got != *id {
			t.Errorf("%+v, want %+v", got, id)
		}
	}
	for _, id := range []*identity{{Lanes: 0, Width: 0}, {Lanes: 1, Width: 0}, {Lanes: 1, Width: 2}, {Lanes: maxSessions + 1, Width: 1}} {
		c := &cursor{b: putIdentity(nil, id)}
		if c.identity(); !c.bad {
			t.Errorf("%d lanes, %d of them at work: taken", id.Lanes, id.Width)
		}
	}
}

// TestWireError brings errors of every kind, fate and cause over, and asks for their causes as the pool does.
func TestWireError(t *testing.T) {
	if got := reread(t, putError(nil, nil), (*cursor).error); got != nil {
		t.Errorf("nil became %v", got)
	}
	causes := []struct {
		name string
		err  error
		is   error // what the cause must be at the other end; nil: only the words count
	}{
		{"none", nil, nil},
		{"code", pkcs11.Error(pkcs11.CKR_DEVICE_ERROR), pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)},
		{"vendor's code", pkcs11.Error(0x80001234), pkcs11.Error(0x80001234)},
		{"all ones", pkcs11.Error(^uint(0)), pkcs11.Error(^uint(0))},
		{"code inside", fmt.Errorf("login: %w", pkcs11.Error(pkcs11.CKR_PIN_LOCKED)), pkcs11.Error(pkcs11.CKR_PIN_LOCKED)},
		{"words", errors.New("it is cold"), nil},
		{"no words", errors.New(""), nil},
	}
	for i, k := range knownErrors {
		causes = append(causes, struct {
			name string
			err  error
			is   error
		}{fmt.Sprint("known ", i), fmt.Errorf("about: %w", k), k})
	}
	for kind := range Kind(len(kindNames)) {
		for f := fateData; f <= fateOperator; f++ {
			for _, c := range causes {
				e := &Error{Kind: kind, fate: f, Detail: "what happened", Err: c.err}
				got := reread(t, putError(nil, e), (*cursor).error)
				if got == nil || got.Kind != kind || got.fate != f || got.Detail != e.Detail {
					t.Fatalf("%s: %+v, want %+v", c.name, got, e)
				}
				switch {
				case c.err == nil:
					if got.Err != nil {
						t.Errorf("%s: a cause %v", c.name, got.Err)
					}
				case c.is != nil:
					if !errors.Is(got, c.is) {
						t.Errorf("%s: %v is not %v", c.name, got, c.is)
					}
				case got.Err == nil || got.Err.Error() != c.err.Error():
					t.Errorf("%s: %v, want %v", c.name, got.Err, c.err)
				}
			}
		}
	}
}

// TestWireErrorsOfOurs brings over the errors that workers give by name.
func TestWireErrorsOfOurs(t *testing.T) {
	for _, e := range []*Error{errClosed, errReplaced, errStuck, errImpossible, wireError("x"), stuckError(opCheck, time.Second),
		{Kind: KindUnavailable, fate: fateOperator, Err: errNoMasterKeys}} {
		if got := reread(t, putError(nil, e), (*cursor).error); got == nil || got.Error() != e.Error() || got.fate != e.fate || got.Kind != e.Kind {
			t.Errorf("%+v, want %+v", got, e)
		}
	}
}

var wireKeys = []*Key{
	{ID: "aes", Type: AES256, Usage: UseEncrypt, Wrapped: bytes.Repeat([]byte{1}, 40)},
	{ID: "rsa", Type: RSA2048, Usage: UseEncrypt | UseSign, Wrapped: bytes.Repeat([]byte{2}, 1232)},
	{ID: "ec", Type: P256, Usage: UseSign, Wrapped: bytes.Repeat([]byte{3}, 152)},
	{ID: "transport", Type: RSA2048, Usage: UseUnwrap, Wrapped: bytes.Repeat([]byte{4}, 1232)},
	{ID: "pinned", Type: Secp256k1, Usage: UseSign, Member: "b", ObjectID: []byte("object")},
}

// wireTasks is one task of each operation, as the pool makes it.
func wireTasks() []*task {
	aes, rsa, ec, transport, pinned := wireKeys[0], wireKeys[1], wireKeys[2], wireKeys[3], wireKeys[4]
	nonce, digest := bytes.Repeat([]byte{4}, gcmNonce), bytes.Repeat([]byte{5}, 32)
	return []*task{
		{op: EncryptGCM, key: aes, in: []byte("text"), nonce: nonce, aad: []byte("aad")},
		{op: EncryptGCM, key: aes, in: bytes.Repeat([]byte{1}, maxAESText), nonce: nonce, aad: bytes.Repeat([]byte{2}, maxGCMAAD)},
		{op: DecryptGCM, key: aes, in: bytes.Repeat([]byte{6}, gcmTag), nonce: nonce},
		{op: SignPKCS1SHA256, key: rsa, in: SignPKCS1SHA256.input(RSA2048, digest)},
		{op: SignPSSSHA256, key: rsa, in: digest},
		{op: SignECDSA, key: ec, in: digest},
		{op: SignECDSA, key: pinned, in: digest},
		{op: DecryptOAEPSHA1, key: rsa, in: bytes.Repeat([]byte{7}, 256)},
		{op: DecryptOAEPSHA256, key: rsa, in: bytes.Repeat([]byte{8}, 256)},
		{op: EncryptGCM, key: aes, in: []byte("text"), nonce: nonce, told: &choices{tagBits: 96}},
		{op: SignPKCS1, key: rsa, in: bytes.Repeat([]byte{9}, 245)},
		{op: SignPSS, key: rsa, in: digest[:20], told: &choices{hash: crypto.SHA1, mgf: crypto.SHA512, salt: 234}},
		{op: SignRaw, key: rsa, in: bytes.Repeat([]byte{1}, 256)},
		{op: DecryptOAEP, key: rsa, in: bytes.Repeat([]byte{8}, 256), told: &choices{hash: crypto.SHA384, mgf: crypto.SHA256, label: []byte("label")}},
		{op: DecryptRaw, key: rsa, in: bytes.Repeat([]byte{8}, 256)},
		{op: EncryptECB, key: aes, in: bytes.Repeat([]byte{1}, maxAESText)},
		{op: DecryptECB, key: aes, in: bytes.Repeat([]byte{1}, 16)},
		{op: EncryptCBC, key: aes, in: bytes.Repeat([]byte{1}, 32), nonce: bytes.Repeat([]byte{2}, 16)},
		{op: DecryptCBC, key: aes, in: bytes.Repeat([]byte{1}, 48), nonce: bytes.Repeat([]byte{2}, 16)},
		{op: CryptCTR, key: aes, in: []byte("x"), nonce: bytes.Repeat([]byte{2}, 16)},
		{op: opGenerate, key: &Key{ID: "new", Type: P256, Usage: UseSign}},
		{op: opProve, key: ec, pub: []byte("a public key")},
		{op: opGeneratePinned, key: &Key{ID: "new", Type: AES128, Usage: UseEncrypt, Member: "b", ObjectID: []byte("id")}},
		{op: opDestroyPinned, key: &Key{Member: "b", ObjectID: []byte("id")}},
		{op: opCheck},
		{op: opSealGCM, in: []byte("a store key"), nonce: nonce, aad: []byte("aad")},
		{op: opOpenGCM, in: bytes.Repeat([]byte{9}, gcmTag+5), nonce: nonce},
		{op: opLoad, key: aes},
		{op: opGenerate, key: &Key{ID: "new", Type: RSA2048, Usage: UseUnwrap}},
		{op: opProve, key: transport, pub: []byte("a public key")},
		{op: opImport, key: &Key{ID: "new", Type: AES256, Usage: UseEncrypt}, in: bytes.Repeat([]byte{10}, 256), from: transport, algorithm: ImportPKCS1},
		{op: opImport, key: &Key{ID: "new", Type: RSA4096, Usage: UseBoth}, in: bytes.Repeat([]byte{11}, 256+maxWrapped), from: transport,
			algorithm: ImportOAEPSHA1KWP},
		{op: opImportPinned, key: &Key{ID: "new", Type: P256, Usage: UseSign, Member: "b", ObjectID: []byte("id")},
			in: bytes.Repeat([]byte{12}, 256+152), from: transport, algorithm: ImportOAEPSHA256KWP},
		{op: opForget, in: putText(putText(nil, "aes"), "ec")},
	}
}

func sameTask(a, b *task) bool {
	return a.id == b.id && a.op == b.op && bytes.Equal(a.in, b.in) && bytes.Equal(a.nonce, b.nonce) && bytes.Equal(a.aad, b.aad) &&
		(a.told == nil) == (b.told == nil) && reflect.DeepEqual(a.choices(), b.choices()) &&
		bytes.Equal(a.pub, b.pub) && a.algorithm == b.algorithm && (a.from == nil) == (b.from == nil) &&
		(a.from == nil || sameKey(a.from, b.from)) && (a.key == nil) == (b.key == nil) && (a.key == nil || sameKey(a.key, b.key))
}

// TestWireTasks sends each task with its key told, then with the key known, then with the key for once.
func TestWireTasks(t *testing.T) {
	seen := map[Op]bool{}
	slots := new(keySlots)
	for i, x := range wireTasks() {
		seen[x.op] = true
		x.id = uint64(i) << 40
		slot := uint32(i)
		if i == 3 {
			slot = wireSlots - 1
		}
		read := func(c *cursor) *task { return c.task(slots) }
		if x.key == nil {
			slot = noSlot
		}
		if got := reread(t, putTask(nil, x, slot, true), read); !sameTask(got, x) {
			t.Errorf("%v, told: %+v, want %+v", x.op, got, x)
		}
		if got := reread(t, putTask(nil, x, slot, false), read); !sameTask(got, x) {
			t.Errorf("%v, known: %+v, want %+v", x.op, got, x)
		}
		if x.key == nil {
			continue
		}
		before := *slots
		if got := reread(t, putTask(nil, x, noSlot, true), read); !sameTask(got, x) {
			t.Errorf("%v, for once: %+v, want %+v", x.op, got, x)
		}
		if before != *slots {
			t.Errorf("%v: a key that came for once was kept", x.op)
		}
	}
	for o := EncryptGCM; o <= opForget; o++ {
		if int(o) == opsOfJobs {
			o = opGenerate
		}
		if !seen[o] {
			t.Errorf("%v is not tested", o)
		}
	}
	// The slot is the newest key's.
	slots[7] = wireKeys[0]
	reread(t, putTask(nil, &task{op: opLoad, key: wireKeys[2]}, 7, true), func(c *cursor) *task { return c.task(slots) })
	if !sameKey(slots[7], wireKeys[2]) {
		t.Error("a slot kept the key that it had")
	}
}

// TestWireKeyIsCopied has a key outlive the frame that it came in, which the next one overwrites.
func TestWireKeyIsCopied(t *testing.T) {
	slots := new(keySlots)
	for _, k := range wireKeys {
		b := putTask(nil, &task{op: opLoad, key: k}, 1, true)
		reread(t, b, func(c *cursor) *task { return c.task(slots) })
		clear(b)
		if !sameKey(slots[1], k) {
			t.Errorf("key %s changed with the frame", k.ID)
		}
	}
	b := putAnswer(nil, &task{id: 1, out: []byte("out"), pub: []byte("pub")})
	x := reread(t, b, (*cursor).answer)
	clear(b)
	if string(x.out) != "out" || string(x.pub) != "pub" {
		t.Error("an answer changed with the frame")
	}
}

func wireAnswers() []*task {
	return []*task{
		{id: 1},
		{id: 1<<64 - 1, ahead: maxWindow, took: time.Hour, begun: true, loaded: true, count: 1 << 20, out: []byte("out"), pub: []byte("pub")},
		{id: 3, out: bytes.Repeat([]byte{1}, maxAESText+gcmTag)},
		{id: 4, begun: true, err: &Error{Kind: KindBadData, fate: fateData, Detail: "DecryptGCM", Err: pkcs11.Error(pkcs11.CKR_ENCRYPTED_DATA_INVALID)}},
		{id: 5, ahead: 3, took: 17, err: &Error{Kind: KindCanceled, fate: fateData}},
	}
}

func TestWireAnswers(t *testing.T) {
	var all []byte
	for _, x := range wireAnswers() {
		all = putAnswer(all, x)
	}
	c := &cursor{b: all}
	for _, x := range wireAnswers() {
		if got := c.answer(); !reflect.DeepEqual(got, x) {
			t.Errorf("%+v, want %+v", got, x)
		}
	}
	if c.end() != nil {
		t.Error("something is left")
	}
	// What failed has no result, whatever the library left in it.
	got := reread(t, putAnswer(nil, &task{id: 1, out: []byte("out"), err: errClosed}), (*cursor).answer)
	if got.out != nil || got.err == nil {
		t.Errorf("%+v", got)
	}
}

func TestWireFigures(t *testing.T) {
	for _, f := range []*figures{
		{load: load{0, 0, 1}, codes: map[pkcs11.Error]uint64{}},
		{load: load{64, 4096, 64}, codes: map[pkcs11.Error]uint64{pkcs11.CKR_DEVICE_ERROR: 1, 0x80000001: 1 << 60}},
	} {
		if got := reread(t, putFigures(nil, f), (*cursor).figures); !reflect.DeepEqual(got, f) {
			t.Errorf("%+v, want %+v", got, f)
		}
	}
	// A module that gives as many codes as there are numbers must not make its worker say what no worker says.
	var n codeCount
	for code := range pkcs11.Error(5000) {
		n.add(code)
	}
	f := &figures{load: load{1, 1, 1}, codes: n.take()}
	got := reread(t, putFigures(nil, f), (*cursor).figures)
	if !maps.Equal(got.codes, f.codes) || len(f.codes) < codesMost/2 {
		t.Errorf("%d codes of %d", len(got.codes), len(f.codes))
	}
	sum := uint64(0)
	for _, x := range f.codes {
		sum += x
	}
	if sum != 5000 {
		t.Errorf("%d errors counted of 5000", sum)
	}
}

func TestWireStuck(t *testing.T) {
	for _, o := range []Op{EncryptGCM, opCheck, 0, 255} {
		e := reread(t, putStuck(nil, o, 1500*time.Millisecond), (*cursor).stuck)
		if e.fate != fateModule || !strings.Contains(e.Detail, o.String()) || !strings.Contains(e.Detail, "1.5s") {
			t.Errorf("%v: %v", o, e)
		}
	}
}

// TestWireKindsHandled reads the source: every kind of frame has a case where it arrives, and no case is for a frame that only
// goes the other way.
func TestWireKindsHandled(t *testing.T) {
	parse := func(name string) *ast.File {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	var declared [][]string // one list for each direction
	ast.Inspect(parse("wire.go"), func(n ast.Node) bool {
		d, ok := n.(*ast.GenDecl)
		if !ok || d.Tok != token.CONST {
			return true
		}
		var names []string
		for _, s := range d.Specs {
			names = append(names, s.(*ast.ValueSpec).Names[0].Name)
		}
		if typ, ok := d.Specs[0].(*ast.ValueSpec).Type.(*ast.Ident); ok && typ.Name == "frameKind" {
			declared = append(declared, names)
		}
		return true
	})
	if len(declared) != 2 || len(declared[0]) < 7 || len(declared[1]) < 8 {
		t.Fatalf("kinds: %v", declared)
	}
	for i, file := range []string{"workermain.go", "process.go"} {
		var cases []string
		ast.Inspect(parse(file), func(n ast.Node) bool {
			f, ok := n.(*ast.FuncDecl)
			if !ok {
				return true
			}
			if f.Name.Name != "handle" {
				return false
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if c, ok := n.(*ast.CaseClause); ok {
					for _, e := range c.List {
						if id, ok := e.(*ast.Ident); ok {
							cases = append(cases, id.Name)
						}
					}
				}
				return true
			})
			return false
		})
		slices.Sort(cases)
		want := slices.Sorted(slices.Values(declared[i]))
		if !slices.Equal(cases, want) {
			t.Errorf("%s handles %v, and gets %v", file, cases, want)
		}
	}
}

// TestWireKindsUnknown has both ends refuse each kind that is not for them.
func TestWireKindsUnknown(t *testing.T) {
	for kind := range frameKind(255) {
		if kind < frameOpen || kind > frameClose {
			if err := newTestServer().handle(kind, nil); err != errWire {
				t.Errorf("a worker takes a frame of kind %d: %v", kind, err)
			}
		}
		if kind < frameOpened || kind > frameStuck {
			if err := newTestChild(nil).handle(kind, &cursor{}); err != errWire {
				t.Errorf("the daemon takes a frame of kind %d: %v", kind, err)
			}
		}
	}
}

// newTestServer is a worker's end without a socket: what it would do is left in its channels.
func newTestServer() *workerServer {
	return &workerServer{pins: make(chan []byte, 1), verdicts: make(chan *Error, 1), todo: make(chan func(), 1)}
}

// newTestChild is the daemon's end without a process.
func newTestChild(ev events) *child {
	if ev == nil {
		ev = noEvents{}
	}
	return &child{opened: make(chan openResult, 1), tried: make(chan error, 1), dead: make(chan struct{}), ev: ev}
}

// TestWireCutAndTrailing cuts each body short at every octet, and adds one: neither may pass, or end in a panic.
func TestWireCutAndTrailing(t *testing.T) {
	known := func() *keySlots { s := new(keySlots); s[1] = wireKeys[0]; return s }
	for name, c := range map[string]struct {
		b    []byte
		read func(*cursor)
	}{
		"open":     {putOpen(nil, &openFrame{module: "m", label: "l", serial: "s", maxSessions: 3}), func(c *cursor) { c.open() }},
		"enrol":    {putEnrol(nil, &enrolFrame{key: []byte("k"), group: "g", wrapped: [2][]byte{{1}, {2}}}), func(c *cursor) { c.enrol() }},
		"identity": {putIdentity(nil, &identity{Token: "t", Lanes: 2, Width: 1}), func(c *cursor) { c.identity() }},
		"error":    {putError(nil, &Error{fate: fateData, Detail: "d", Err: errors.New("e")}), func(c *cursor) { c.error() }},
		"code":     {putError(nil, &Error{fate: fateData, Detail: "d", Err: pkcs11.Error(7)}), func(c *cursor) { c.error() }},
		"known":    {putError(nil, &Error{fate: fateData, Err: errUnknown}), func(c *cursor) { c.error() }},
		"task": {putTask(nil, &task{op: EncryptGCM, key: wireKeys[0], in: []byte("i"), nonce: make([]byte, gcmNonce)}, 1, true),
			func(c *cursor) { c.task(known()) }},
		"known task": {putTask(nil, &task{op: EncryptGCM, key: wireKeys[0], in: []byte("i"), nonce: make([]byte, gcmNonce)}, 1, false),
			func(c *cursor) { c.task(known()) }},
		"answer":  {putAnswer(nil, &task{id: 1, out: []byte("o"), pub: []byte("p")}), func(c *cursor) { c.answer() }},
		"figures": {putFigures(nil, &figures{load: load{1, 2, 3}, codes: map[pkcs11.Error]uint64{1: 2}}), func(c *cursor) { c.figures() }},
		"stuck":   {putStuck(nil, opCheck, 1), func(c *cursor) { c.stuck() }},
	} {
		for n := range len(c.b) + 2 {
			b := append(slices.Clone(c.b), 0)[:n]
			cur := &cursor{b: b}
			c.read(cur)
			if err := cur.end(); (err == nil) != (n == len(c.b)) {
				t.Errorf("%s, %d octets of %d: %v", name, n, len(c.b), err)
			}
		}
	}
}

// frameOf makes a stream of one frame.
func frameOf(kind frameKind, body ...byte) []byte {
	b, start := beginFrame(nil, kind)
	return endFrame(append(b, body...), start)
}

func TestHostileFrames(t *testing.T) {
	big := binary.BigEndian.AppendUint32
	for name, stream := range map[string][]byte{
		"no octets":        big(nil, 0),
		"one too many":     append(big(nil, maxFrame+1), make([]byte, 64)...),
		"four gigabytes":   append(big(nil, ^uint32(0)), make([]byte, 64)...),
		"two to the 31st":  append(big(nil, 1<<31), make([]byte, 64)...),
		"nothing of kinds": {0, 0, 0, 0, 0, 0, 0, 0},
	} {
		in := newFrameReader(bytes.NewReader(append(stream, make([]byte, 16)...)))
		if _, _, err := in.next(); err != errWire {
			t.Errorf("%s: %v", name, err)
		}
		if len(in.buf) > 64<<10 {
			t.Errorf("%s: room for %d octets was made", name, len(in.buf))
		}
	}
	// The largest passes.
	in := newFrameReader(bytes.NewReader(frameOf(frameAnswers, make([]byte, maxFrame-1)...)))
	if _, body, err := in.next(); err != nil || len(body) != maxFrame-1 || len(in.buf) > 2*maxFrame {
		t.Errorf("the largest frame: %d octets, %v", len(body), err)
	}
	// A frame that ends early is no frame.
	in = newFrameReader(bytes.NewReader(frameOf(frameAnswers, 1, 2, 3)[:6]))
	if _, _, err := in.next(); err != io.EOF {
		t.Errorf("half a frame: %v", err)
	}
}

func TestHostileTasks(t *testing.T) {
	aes := func(f func(*Key)) *Key { k := *wireKeys[0]; f(&k); return &k }
	gcm := func(k *Key) *task { return &task{id: 1, op: EncryptGCM, key: k, nonce: make([]byte, gcmNonce)} }
	some := func(x *task) []byte { return putTask(nil, x, 1, true) }
	patch := func(b []byte, at int, v ...byte) []byte { b = slices.Clone(b); copy(b[at:], v); return b }
	good := some(gcm(wireKeys[0]))
	const opAt, tellAt, slotAt, idAt = 8, 9, 10, 14
	if c := (&cursor{b: good}); c.task(new(keySlots)) == nil || c.end() != nil {
		t.Fatal("the good one is bad")
	}
	imports := func(f func(*task)) []byte {
		x := &task{op: opImport, key: &Key{ID: "new", Type: AES256, Usage: UseEncrypt}, in: make([]byte, 256), from: wireKeys[3], algorithm: ImportPKCS1}
		f(x)
		return putTask(nil, x, noSlot, x.key != nil)
	}
	withOp := func(o Op, k *Key) []byte { return putTask(nil, &task{op: o, key: k}, 1, k != nil) }
	for name, b := range map[string][]byte{
		"operation 0":               patch(good, opAt, 0),
		"operation 255":             patch(good, opAt, 255),
		"operation between":         patch(good, opAt, byte(opsOfJobs)),
		"neither told nor not":      patch(good, tellAt, 2),
		"slot out of range":         patch(good, slotAt, 0, 0, wireSlots>>8, 0),
		"last slot but none":        patch(good, slotAt, 255, 255, 255, 254),
		"slot that nobody told":     putTask(nil, gcm(wireKeys[0]), 2, false),
		"slot beyond, not told":     putTask(nil, gcm(wireKeys[0]), wireSlots, false),
		"no key":                    putTask(nil, gcm(nil), noSlot, false),
		"name beyond the frame":     patch(good, idAt, 0, 0, 4, 0),
		"name of four gigabytes":    patch(good, idAt, 255, 255, 255, 255),
		"key of no type":            some(gcm(aes(func(k *Key) { k.Type = 0 }))),
		"key of an unknown type":    some(gcm(aes(func(k *Key) { k.Type = 255 }))),
		"key of no usage":           some(gcm(aes(func(k *Key) { k.Usage = 0 }))),
		"key without a name":        some(gcm(aes(func(k *Key) { k.ID = "" }))),
		"key with a long name":      some(gcm(aes(func(k *Key) { k.ID = strings.Repeat("x", maxKeyID+1) }))),
		"wrapped key too long":      some(gcm(aes(func(k *Key) { k.Wrapped = make([]byte, maxWrapped+8) }))),
		"object ID too long":        some(gcm(aes(func(k *Key) { k.Member, k.ObjectID = "a", make([]byte, maxObjectID+1) }))),
		"short nonce":               some(&task{op: EncryptGCM, key: wireKeys[0], nonce: make([]byte, 11)}),
		"text too long":             some(&task{op: EncryptGCM, key: wireKeys[0], nonce: make([]byte, 12), in: make([]byte, maxAESText+1)}),
		"digest without its prefix": some(&task{op: SignPKCS1SHA256, key: wireKeys[1], in: make([]byte, 3)}),
		"digest that is not cut":    some(&task{op: SignECDSA, key: wireKeys[2], in: make([]byte, 33)}),
		"digest that is short":      some(&task{op: SignECDSA, key: wireKeys[2], in: make([]byte, 31)}),
		"hash of nothing":           some(&task{op: SignPSS, key: wireKeys[1], in: make([]byte, 32)}),
		"hash that nobody knows":    some(&task{op: SignPSS, key: wireKeys[1], in: make([]byte, 32), told: &choices{hash: 255, mgf: crypto.SHA256}}),
		"mask of a strange hash":    some(&task{op: SignPSS, key: wireKeys[1], in: make([]byte, 32), told: &choices{hash: crypto.SHA256, mgf: crypto.MD5}}),
		"digest of another hash":    some(&task{op: SignPSS, key: wireKeys[1], in: make([]byte, 32), told: &choices{hash: crypto.SHA384, mgf: crypto.SHA384}}),
		"too much salt":             some(&task{op: SignPSS, key: wireKeys[1], in: make([]byte, 32), told: &choices{hash: crypto.SHA256, mgf: crypto.SHA256, salt: 223}}),
		"salt for OAEP":             some(&task{op: DecryptOAEP, key: wireKeys[1], in: make([]byte, 256), told: &choices{hash: crypto.SHA256, mgf: crypto.SHA256, salt: 1}}),
		"label for PSS":             some(&task{op: SignPSS, key: wireKeys[1], in: make([]byte, 32), told: &choices{hash: crypto.SHA256, mgf: crypto.SHA256, label: []byte("x")}}),
		"label for OAEP of the API": some(&task{op: DecryptOAEPSHA1, key: wireKeys[1], in: make([]byte, 256), told: &choices{label: []byte("x")}}),
		"label too long":            some(&task{op: DecryptOAEP, key: wireKeys[1], in: make([]byte, 256), told: &choices{hash: crypto.SHA256, mgf: crypto.SHA256, label: make([]byte, maxLabel+1)}}),
		"too much to pad":           some(&task{op: SignPKCS1, key: wireKeys[1], in: make([]byte, 246)}),
		"nothing to pad":            some(&task{op: SignPKCS1, key: wireKeys[1]}),
		"raw and short":             some(&task{op: SignRaw, key: wireKeys[1], in: make([]byte, 255)}),
		"raw and long":              some(&task{op: DecryptRaw, key: wireKeys[1], in: make([]byte, 257)}),
		"half a block":              some(&task{op: EncryptECB, key: wireKeys[0], in: make([]byte, 24)}),
		"no block":                  some(&task{op: DecryptECB, key: wireKeys[0]}),
		"IV for ECB":                some(&task{op: EncryptECB, key: wireKeys[0], in: make([]byte, 16), nonce: make([]byte, 16)}),
		"short IV":                  some(&task{op: EncryptCBC, key: wireKeys[0], in: make([]byte, 16), nonce: make([]byte, 12)}),
		"no counter":                some(&task{op: CryptCTR, key: wireKeys[0], in: make([]byte, 16)}),
		"AAD for a mode without":    some(&task{op: CryptCTR, key: wireKeys[0], in: make([]byte, 16), nonce: make([]byte, 16), aad: []byte("x")}),
		"blocks beyond the most":    some(&task{op: EncryptCBC, key: wireKeys[0], in: make([]byte, maxAESText+16), nonce: make([]byte, 16)}),
		"tag of 64 bits":            some(&task{op: EncryptGCM, key: wireKeys[0], nonce: make([]byte, 12), told: &choices{tagBits: 64}}),
		"tag of 100 bits":           some(&task{op: EncryptGCM, key: wireKeys[0], nonce: make([]byte, 12), told: &choices{tagBits: 100}}),
		"tag of 136 bits":           some(&task{op: EncryptGCM, key: wireKeys[0], nonce: make([]byte, 12), told: &choices{tagBits: 136}}),
		"less than the tag":         some(&task{op: DecryptGCM, key: wireKeys[0], in: make([]byte, 13), nonce: make([]byte, 12), told: &choices{tagBits: 112}}),
		"seal with a short tag":     putTask(nil, &task{op: opSealGCM, nonce: make([]byte, 12), told: &choices{tagBits: 96}}, noSlot, false),
		"AES of an RSA key":         some(&task{op: EncryptECB, key: wireKeys[1], in: make([]byte, 16)}),
		"raw signature to decrypt":  some(&task{op: SignRaw, key: &Key{ID: "k", Type: RSA2048, Usage: UseEncrypt, Wrapped: make([]byte, 1232)}, in: make([]byte, 256)}),
		"raw decryption to sign":    some(&task{op: DecryptRaw, key: &Key{ID: "k", Type: RSA2048, Usage: UseSign, Wrapped: make([]byte, 1232)}, in: make([]byte, 256)}),
		"seal with a key":           some(&task{op: opSealGCM, key: wireKeys[0], nonce: make([]byte, 12)}),
		"seal too long":             putTask(nil, &task{op: opSealGCM, in: make([]byte, maxSealed+1), nonce: make([]byte, 12)}, noSlot, false),
		"generate nothing":          withOp(opGenerate, nil),
		"generate an unknown type":  withOp(opGenerate, &Key{ID: "x", Type: 99, Usage: UseSign}),
		"destroy every object":      withOp(opDestroyPinned, &Key{}), // an empty ID fits all
		"destroy of a strange type": withOp(opDestroyPinned, &Key{Type: 250, ObjectID: []byte("x")}),
		"check with a key":          withOp(opCheck, &Key{Type: 100}),
		"forget with a key":         withOp(opForget, wireKeys[0]),
		"forget nothing":            putTask(nil, &task{op: opForget}, noSlot, false),
		"forget a key with no name": putTask(nil, &task{op: opForget, in: putText(nil, "")}, noSlot, false),
		"forget a long name":        putTask(nil, &task{op: opForget, in: putText(nil, strings.Repeat("x", maxKeyID+1))}, noSlot, false),
		"forget half a name":        putTask(nil, &task{op: opForget, in: putText(nil, "name")[:6]}, noSlot, false),
		"forget too many":           putTask(nil, &task{op: opForget, in: bytes.Repeat(putText(nil, "x"), forgetAtOnce+1)}, noSlot, false),
		"prove nothing":             withOp(opProve, nil),
		"load nothing":              withOp(opLoad, nil),
		"import nothing":            imports(func(x *task) { x.key = nil }),
		"import from nothing":       imports(func(x *task) { x.from = nil }),
		"import a transport key":    imports(func(x *task) { x.key = &Key{ID: "new", Type: RSA2048, Usage: UseUnwrap} }),
		"import by another key":     imports(func(x *task) { x.from = wireKeys[1] }),
		"import by a pinned key":    imports(func(x *task) { x.from = wireKeys[4] }),
		"import by no algorithm":    imports(func(x *task) { x.algorithm = 0 }),
		"import by a strange one":   imports(func(x *task) { x.algorithm = 255 }),
		"import too little":         imports(func(x *task) { x.in = x.in[:255] }),
		"import too much":           imports(func(x *task) { x.in = make([]byte, 256+maxWrapped+8) }),
		"import pinned, nowhere":    imports(func(x *task) { x.op = opImportPinned }),
		"import somewhere": imports(func(x *task) {
			x.key = &Key{ID: "x", Type: AES256, Usage: UseEncrypt, Member: "b", ObjectID: []byte("x")}
		}),
		"generate a decrypting transport": withOp(opGenerate, &Key{ID: "x", Type: RSA2048, Usage: UseUnwrap | UseEncrypt}),
		"pin a transport":                 withOp(opGeneratePinned, &Key{ID: "x", Type: RSA2048, Usage: UseUnwrap, Member: "b", ObjectID: []byte("x")}),
	} {
		c := &cursor{b: b}
		if c.task(new(keySlots)); c.end() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestHostileBodies has the worker's end get what no daemon sends.
func TestHostileBodies(t *testing.T) {
	s := newTestServer()
	pin := putOctets(nil, []byte("1234"))
	if err := s.handle(framePIN, slices.Clone(pin)); err != nil {
		t.Fatal(err)
	}
	if err := s.handle(framePIN, slices.Clone(pin)); err != errWire {
		t.Errorf("a second PIN that nobody asked for: %v", err)
	}
	if err := s.handle(frameVerdict, putError(nil, nil)); err != nil {
		t.Fatal(err)
	}
	if err := s.handle(frameVerdict, putError(nil, nil)); err != errWire {
		t.Errorf("a second verdict that nobody asked for: %v", err)
	}
	open := putOpen(nil, &openFrame{module: "m"})
	if err := s.handle(frameOpen, slices.Clone(open)); err != nil {
		t.Fatal(err)
	}
	if err := s.handle(frameOpen, slices.Clone(open)); err != errWire {
		t.Errorf("opened twice: %v", err)
	}
	for name, f := range map[string]struct {
		kind frameKind
		body []byte
	}{
		"PIN with more behind it":     {framePIN, append(slices.Clone(pin), 0)},
		"PIN longer than its frame":   {framePIN, []byte{255, 255, 255, 255, 1}},
		"verdict with more behind it": {frameVerdict, append(putError(nil, nil), 0)},
		"open of another version":     {frameOpen, append([]byte{wireVersion + 1}, open[1:]...)},
		"open with more behind it":    {frameOpen, append(slices.Clone(open), 0)},
		"open with enrolment":         {frameOpen, putEnrol(slices.Clone(open), &enrolFrame{})},
		"enrolment without its part":  {frameEnroll, slices.Clone(open)},
		"cancel of half an ID":        {frameCancel, make([]byte, 7)},
		"cancel of an ID and more":    {frameCancel, make([]byte, 9)},
		"close with something in it":  {frameClose, []byte{0}},
		"tasks before the login":      {frameTasks, putTask(nil, &task{op: opCheck}, noSlot, false)},
	} {
		if err := newTestServer().handle(f.kind, f.body); err != errWire {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHostileFromWorker has the daemon's end get what no worker sends.
func TestHostileFromWorker(t *testing.T) {
	id := putIdentity(nil, &identity{Lanes: 1, Width: 1})
	c := newTestChild(nil)
	if err := c.handle(frameOpened, &cursor{b: id}); err != nil {
		t.Fatal(err)
	}
	<-c.opened // who waits for it has it
	if err := c.handle(frameOpened, &cursor{b: id}); err != errWire {
		t.Errorf("two identities: %v", err)
	}
	if err := c.handle(frameFailed, &cursor{b: putError(nil, errClosed)}); err != errWire {
		t.Errorf("a failure after an identity: %v", err)
	}
	answer := putAnswer(nil, &task{id: 1})
	badFate := putError(nil, &Error{fate: fateOperator + 1})
	for name, f := range map[string]struct {
		kind frameKind
		body []byte
	}{
		"failed for no reason":         {frameFailed, putError(nil, nil)},
		"failed with an unknown fate":  {frameFailed, badFate},
		"failed with no fate":          {frameFailed, putError(nil, &Error{})},
		"failed with an unknown kind":  {frameFailed, putError(nil, &Error{Kind: Kind(len(kindNames)), fate: fateData})},
		"an unknown known error":       {frameFailed, []byte{1, 0, byte(fateData), 0, 0, 0, 0, causeKnown, byte(len(knownErrors))}},
		"an unknown kind of cause":     {frameFailed, []byte{1, 0, byte(fateData), 0, 0, 0, 0, causeText + 1}},
		"detail of four gigabytes":     {frameFailed, []byte{1, 0, byte(fateData), 255, 255, 255, 255, 0}},
		"one answer and a half":        {frameAnswers, append(slices.Clone(answer), answer[:9]...)},
		"negative time":                {frameAnswers, putAnswer(nil, &task{id: 1, took: -1})},
		"too many before it":           {frameAnswers, putAnswer(nil, &task{id: 1, ahead: maxWindow + 1})},
		"more codes than there are":    {frameAlive, append(make([]byte, 8), 0, 0, 0, 1, 255, 255, 255, 255)},
		"no width":                     {frameAlive, putFigures(nil, &figures{})},
		"too wide":                     {frameAlive, putFigures(nil, &figures{load: load{width: maxSessions + 1}})},
		"stuck since tomorrow":         {frameStuck, putStuck(nil, opCheck, -1)},
		"asking with something in it":  {frameNeedPIN, []byte{0}},
		"refusal of half a text":       {frameRefuse, []byte{0, 0, 0, 9, 'x'}},
		"tried with more behind it":    {frameTried, append(putError(nil, nil), 0)},
		"an identity without lanes":    {frameOpened, putIdentity(nil, &identity{})},
		"an identity with a long name": {frameOpened, []byte{255, 255, 255, 255}},
	} {
		if err := newTestChild(nil).handle(f.kind, &cursor{b: f.body}); err != errWire {
			t.Errorf("%s: %v", name, err)
		}
	}
	c = newTestChild(nil)
	if err := c.handle(frameTried, &cursor{b: putError(nil, nil)}); err != errWire {
		t.Errorf("the outcome of a try that nobody made: %v", err)
	}
	c.asking.Store(true)
	if err := c.handle(frameTried, &cursor{b: putError(nil, nil)}); err != nil {
		t.Fatal(err)
	}
	if err := c.handle(frameTried, &cursor{b: putError(nil, nil)}); err != errWire {
		t.Errorf("two outcomes of one try: %v", err)
	}
}

// allocated is how much was ever allocated in this process.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// allocatesLittle fails when f allocates much more than n octets of input are worth: a length must be held against what is there first.
func allocatesLittle(t *testing.T, n int, f func()) {
	before := allocated()
	f()
	if got, most := allocated()-before, uint64(1<<20+64*n); got > most {
		t.Errorf("%d octets of input had %d allocated", n, got)
	}
}

// again decodes a body as a worker gets it and encodes what it found; ok says that there was nothing wrong with it.
func againToWorker(t *testing.T, kind frameKind, body []byte, slots *keySlots) (encoded []byte, ok bool) {
	c := &cursor{b: body}
	switch kind {
	case frameOpen:
		encoded = putOpen(nil, c.open())
	case frameEnroll:
		encoded = putOpen(nil, c.open())
		encoded = putEnrol(encoded, c.enrol())
	case framePIN:
		encoded = putOctets(nil, c.octets())
	case frameVerdict:
		encoded = putError(nil, c.error())
	case frameCancel:
		encoded = putID(nil, c.u64())
	case frameTasks:
		for len(c.b) > 0 {
			head := c.b
			x := c.task(slots)
			if c.bad {
				return nil, false
			}
			if int(x.class()) >= taskClasses {
				t.Errorf("a task of class %d of %d", x.class(), taskClasses)
			}
			new(callLimits).of(x)
			encoded = putTask(encoded, x, binary.BigEndian.Uint32(head[10:]), head[9] == 1)
		}
	case frameClose:
	default:
		return nil, false
	}
	return encoded, c.end() == nil
}

func FuzzWorkerFrames(f *testing.F) {
	add := func(kind frameKind, body []byte) { f.Add(byte(kind), body) }
	open := putOpen(nil, &openFrame{module: "/lib/x.so", label: "token", serial: "1", maxSessions: 16, callTimeout: time.Second})
	add(frameOpen, open)
	add(frameEnroll, putEnrol(slices.Clone(open), &enrolFrame{key: []byte("key"), group: "group", wrapped: [2][]byte{{1}, {2}}}))
	add(framePIN, putOctets(nil, []byte("1234")))
	add(frameVerdict, putError(nil, errNoMasterKeysError()))
	add(frameCancel, putID(nil, 7))
	add(frameClose, nil)
	var all []byte
	for i, x := range wireTasks() {
		if len(x.in) > 2000 {
			continue
		}
		add(frameTasks, putTask(nil, x, uint32(i), true))
		all = putTask(putTask(all, x, uint32(i), true), x, uint32(i), false)
	}
	add(frameTasks, all)
	slots := new(keySlots)
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		*slots = keySlots{}
		slots[1] = wireKeys[0]
		var encoded []byte
		var ok bool
		allocatesLittle(t, len(body), func() { encoded, ok = againToWorker(t, frameKind(kind), body, slots) })
		if ok && !bytes.Equal(encoded, body) {
			t.Errorf("%x\nwas read, and is written as\n%x", body, encoded)
		}
		// The handler agrees, and only leaves things to be done.
		s := newTestServer()
		s.slots[1] = wireKeys[0]
		if err := s.handle(frameKind(kind), slices.Clone(body)); ok && err != nil && frameKind(kind) != frameTasks {
			t.Errorf("the handler says: %v", err)
		} else if !ok && err == nil {
			t.Error("the handler takes it")
		}
	})
}

func errNoMasterKeysError() *Error {
	return &Error{Kind: KindUnavailable, fate: fateOperator, Detail: "detail", Err: errNoMasterKeys}
}

// keptEvents keeps what a link tells.
type keptEvents struct {
	tasks []*task
	codes map[pkcs11.Error]uint64
	err   *Error
}

func (k *keptEvents) answers(tasks []*task, _ int) { k.tasks = append(k.tasks, tasks...) }
func (k *keptEvents) counted(c *codeCount)         { k.codes = c.take() }
func (k *keptEvents) failed(e *Error)              { k.err = e }

func FuzzDaemonFrames(f *testing.F) {
	add := func(kind frameKind, body []byte) { f.Add(byte(kind), body) }
	add(frameOpened, putIdentity(nil, &identity{Token: "token", Serial: "1", Group: "group", Lanes: 16, Width: 2}))
	add(frameFailed, putError(nil, errNoMasterKeysError()))
	add(frameFailed, putError(nil, &Error{Kind: KindInternal, fate: fateItem, Detail: "x", Err: errors.New("words")}))
	add(frameTried, putError(nil, &Error{fate: fateDown, Err: pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)}))
	add(frameTried, putError(nil, nil))
	add(frameRefuse, putText(nil, "locked"))
	add(frameNeedPIN, nil)
	add(frameAlive, putFigures(nil, &figures{load: load{3, 5, 2}, codes: map[pkcs11.Error]uint64{0x30: 2}}))
	add(frameStuck, putStuck(nil, opCheck, time.Second))
	var all []byte
	for _, x := range wireAnswers() {
		if len(x.out) < 2000 {
			all = putAnswer(all, x)
		}
	}
	add(frameAnswers, all)
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		var encoded []byte
		c := &cursor{b: body}
		known := true
		allocatesLittle(t, len(body), func() {
			switch frameKind(kind) {
			case frameOpened:
				encoded = putIdentity(nil, c.identity())
			case frameFailed, frameTried:
				encoded = putError(nil, c.error())
			case frameRefuse:
				encoded = putText(nil, c.text())
			case frameStuck:
				if e := c.stuck(); len(e.Detail) > 200 {
					t.Errorf("%d octets of words", len(e.Detail))
				}
				encoded = body
			case frameAlive:
				x := c.figures()
				if c.end() == nil {
					y := (&cursor{b: putFigures(nil, x)}).figures()
					if !reflect.DeepEqual(x, y) {
						t.Errorf("%+v became %+v", x, y)
					}
				}
				encoded = body // codes have no order
			case frameAnswers:
				for len(c.b) > 0 && !c.bad {
					encoded = putAnswer(encoded, c.answer())
				}
			case frameNeedPIN:
			default:
				known = false
			}
		})
		ok := known && c.end() == nil
		if ok && !bytes.Equal(encoded, body) {
			t.Errorf("%x\nwas read, and is written as\n%x", body, encoded)
		}
		switch frameKind(kind) {
		case frameNeedPIN, frameRefuse: // need a PIN's keeper
			return
		case frameFailed:
			ok = ok && len(body) > 1 // it says why
		}
		kept := &keptEvents{}
		ch := newTestChild(kept)
		ch.waiting.Store(1 << 30)
		ch.asking.Store(true)
		if err := ch.handle(frameKind(kind), &cursor{b: slices.Clone(body)}); (err == nil) != ok {
			t.Errorf("the handler says %v", err)
		}
		for _, x := range kept.tasks {
			if x.err == nil {
				plausible(&task{op: EncryptGCM}, x)
			}
		}
	})
}
