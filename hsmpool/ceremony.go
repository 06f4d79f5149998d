package hsmpool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// Ceremony makes the two master keys and gives them to every member. No master key is ever an extractable token object,
// and neither is in this process's memory in the clear: they are made as session objects on the first member, leave it
// only under keys made in the targets (RSA-OAEP) and under the recovery key, and become token objects by unwrapping.
// It refuses when any member already has master keys.
//
// Until every member has both keys they carry another label. A ceremony that was interrupted before that is cleared
// away by the next; one that was interrupted while the labels were changed is refused with what to do.
//
// Whoever controls this machine during a ceremony could put a key of their own in a target's place. So it is held on
// a machine that people trust, and never again on one that serves.
func Ceremony(ctx context.Context, c Config, shares, threshold int) (*CeremonyResult, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	var set [4]byte
	random(set[:])
	key, texts, err := newRecovery(shares, threshold, set)
	if err != nil {
		return nil, err
	}
	r, err := bounded(ctx, func(commit func() bool) (*CeremonyResult, error) {
		defer clear(key)
		return ceremony(&c, key, set, commit)
	})
	if err != nil {
		for _, s := range texts {
			clear(s)
		}
		return nil, err
	}
	r.Shares = texts
	return r, nil
}

// ceremonies go one at a time: one that was given up in a C call may still be at it.
var ceremonies sync.Mutex

// bounded runs f, which can't be cancelled, and waits for it until ctx ends. f calls commit before it does what must not
// be given up: if commit says false it was given up and must end; afterwards it is waited for.
func bounded[T any](ctx context.Context, f func(commit func() bool) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	var decided atomic.Bool
	go func() {
		ceremonies.Lock()
		defer ceremonies.Unlock()
		v, err := f(func() bool { return decided.CompareAndSwap(false, true) })
		done <- outcome{v, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
	}
	if decided.CompareAndSwap(false, true) {
		var none T
		return none, contextError(ctx)
	}
	o := <-done
	return o.value, o.err
}

// errGivenUp ends a ceremony that nobody waits for; nobody sees it.
var errGivenUp = &Error{Kind: KindCanceled, fate: fateData}

// station is a member during a ceremony.
type station struct {
	cfg *MemberConfig
	*login
}

func (s *station) errorf(err error, what string) error {
	e := s.fail(err, fnOther, stageOther, what)
	e.Member = s.cfg.Name
	return e
}

// visit opens a member, with no regard to what is on it.
func visit(cfg *MemberConfig, pin pinKeeper) (*station, error) {
	name := &member{cfg: cfg}
	mod, err := openModule(cfg.Module)
	if err != nil {
		return nil, name.named(err)
	}
	a, err := mod.attach(cfg)
	if err != nil {
		return nil, name.named(err)
	}
	l, err := beginLogin(a, cfg, pin, nil)
	if err != nil {
		a.detach()
		return nil, name.named(err)
	}
	return &station{cfg: cfg, login: l}, nil
}

func (s *station) leave() {
	s.end()
	s.detach()
}

// visitAll opens every member, in order; all or none.
func visitAll(c *Config) (stations []*station, leave func(), err error) {
	leave = func() {
		for _, s := range stations {
			s.leave()
		}
	}
	for i := range c.Members {
		s, err := visit(&c.Members[i], newPINGuard(&c.Members[i]))
		if err != nil {
			leave()
			return nil, nil, err
		}
		stations = append(stations, s)
	}
	return stations, leave, nil
}

var masterLabels = [2]string{labelSeal, labelWrap}

// masterObjects counts the master keys on a token, finished and not.
func (s *station) masterObjects() (finished, unfinished []pkcs11.ObjectHandle, err error) {
	for _, label := range masterLabels {
		f, err := s.findObjects(s.anchor, secretKeyLabelled(label))
		if err != nil {
			return nil, nil, s.errorf(err, "C_FindObjects")
		}
		u, err := s.findObjects(s.anchor, secretKeyLabelled(label+labelUnfinished))
		if err != nil {
			return nil, nil, s.errorf(err, "C_FindObjects")
		}
		finished, unfinished = append(finished, f...), append(unfinished, u...)
	}
	return finished, unfinished, nil
}

// refuseMasters sees to it that no member has master keys, and clears away what an interrupted ceremony left.
func refuseMasters(stations []*station) error {
	var clearable [][]pkcs11.ObjectHandle
	var have *station
	mixed := false
	for _, s := range stations {
		f, u, err := s.masterObjects()
		if err != nil {
			return err
		}
		if len(f) > 0 && have == nil {
			have = s
		}
		mixed = mixed || len(u) > 0
		clearable = append(clearable, u)
	}
	switch {
	case have != nil && mixed:
		return &Error{Kind: KindUnavailable, fate: fateOperator, Member: have.cfg.Name, Detail: "a ceremony was interrupted in its last " +
			"step: some master keys are named \"(unfinished)\", others are finished. It never ended, so nothing can depend on them: " +
			"initialise these tokens again, and hold the ceremony again"}
	case have != nil:
		return &Error{Kind: KindUnavailable, fate: fateOperator, Member: have.cfg.Name, Detail: "the token already has master keys. " +
			"If keys of a store are wrapped by them they must stay; else initialise the token again. A new member gets them from the " +
			"recovery shares"}
	}
	for i, s := range stations {
		for _, h := range clearable[i] {
			if err := s.mod.ctx.DestroyObject(s.anchor, h); err != nil {
				return s.errorf(err, "clear away what an interrupted ceremony left")
			}
		}
	}
	return nil
}

func ceremony(c *Config, recovery []byte, set [4]byte, commit func() bool) (*CeremonyResult, error) {
	stations, leave, err := visitAll(c)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := refuseMasters(stations); err != nil {
		return nil, err
	}
	first := stations[0]
	var masters [2]pkcs11.ObjectHandle
	for i := range masters {
		if masters[i], err = first.makeMaster(); err != nil {
			return nil, err
		}
	}
	for _, s := range stations {
		if err := s.receive(first, masters); err != nil {
			return nil, err
		}
		if e := s.findMasterKeys(labelUnfinished); e != nil {
			e.Member = s.cfg.Name
			return nil, e
		}
		if s.group != first.group {
			return nil, &Error{Kind: KindInternal, fate: fateOperator, Member: s.cfg.Name, Detail: "the master keys arrived changed"}
		}
	}
	wrapped, err := first.wrapForRecovery(recovery, masters)
	if err != nil {
		return nil, err
	}
	for _, h := range masters {
		if err := first.mod.ctx.DestroyObject(first.anchor, h); err != nil {
			return nil, first.errorf(err, "destroy the extractable master keys")
		}
	}
	if !commit() {
		return nil, errGivenUp
	}
	for _, s := range stations {
		if err := s.finishMasters(); err != nil {
			return nil, err
		}
	}
	return &CeremonyResult{Group: first.group, Recovery: encodeRecovery(set, first.group, wrapped)}, nil
}

// makeMaster makes an AES-256 session object that can do nothing but be wrapped.
func (s *station) makeMaster() (pkcs11.ObjectHandle, error) {
	a := append(temporary.attributes(), usageBits{}.attributes(pkcs11.CKO_SECRET_KEY)...)
	a = append(a, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32))
	h, err := s.mod.ctx.GenerateKey(s.anchor, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, a)
	if err != nil {
		return 0, s.errorf(err, "make a master key")
	}
	want := generated(wantedOf(pkcs11.CKO_SECRET_KEY, temporary, usageBits{}), temporary)
	if err := readBack(s.mod.ctx, s.anchor, h, want); err != nil {
		return 0, s.errorf(err, "read a master key's attributes back")
	}
	return h, nil
}

// transportBits is the size of the pair under which master keys travel: it lives for a moment, and what it wraps never
// leaves this process.
const transportBits = 3072

// receive brings the master keys from another member (or the same) into this token.
func (s *station) receive(from *station, masters [2]pkcs11.ObjectHandle) error {
	ctx := s.mod.ctx
	public := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false),
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, transportBits),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
	}
	public = append(public, usageBits{wrap: true}.attributes(pkcs11.CKO_PUBLIC_KEY)...)
	private := append(loaded.attributes(), usageBits{unwrap: true}.attributes(pkcs11.CKO_PRIVATE_KEY)...)
	private = append(private, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA))
	pub, priv, err := ctx.GenerateKeyPair(s.anchor,
		[]*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)}, public, private)
	if err != nil {
		return s.errorf(err, "make a transport key pair")
	}
	defer func() { // both are session objects and would end with the session anyway
		_ = ctx.DestroyObject(s.anchor, pub)
		_ = ctx.DestroyObject(s.anchor, priv)
	}()
	want := generated(wantedOf(pkcs11.CKO_PRIVATE_KEY, loaded, usageBits{unwrap: true}), loaded)
	if err := readBack(ctx, s.anchor, priv, want); err != nil {
		return s.errorf(err, "read the transport key's attributes back")
	}
	a, err := ctx.GetAttributeValue(s.anchor, pub, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, nil), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, nil)})
	if err != nil {
		return s.errorf(err, "read the transport key")
	}
	if _, err := marshalRSAPublic(keyTypes[RSA3072], a[0].Value, a[1].Value); err != nil {
		return s.errorf(err, "read the transport key")
	}

	there := from.mod.ctx
	imported := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false),
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, a[0].Value),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, a[1].Value),
	}
	imported = append(imported, usageBits{wrap: true}.attributes(pkcs11.CKO_PUBLIC_KEY)...)
	target, err := there.CreateObject(from.anchor, imported)
	if err != nil {
		return from.errorf(err, "import the transport key of "+s.cfg.Name)
	}
	defer func() { _ = there.DestroyObject(from.anchor, target) }()
	for i, m := range masters {
		wrapped, oaep, err := from.wrapOAEP(target, m)
		if err != nil {
			return err
		}
		// findMasterKeys looks at what comes out.
		if _, err := ctx.UnwrapKey(s.anchor, oaep, priv, wrapped, masterTemplate(i)); err != nil {
			return s.errorf(err, "unwrap a master key")
		}
	}
	return nil
}

// wrapOAEP wraps with SHA-256, or with SHA-1 where the module (SoftHSM) has no other. OAEP does not lean on the hash's
// resistance to collisions.
func (s *station) wrapOAEP(target, key pkcs11.ObjectHandle) ([]byte, []*pkcs11.Mechanism, error) {
	mech := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, oaepSHA256)}
	wrapped, err := s.mod.ctx.WrapKey(s.anchor, mech, target, key)
	if err != nil && refusesParameter(err) {
		mech = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, oaepSHA1)}
		wrapped, err = s.mod.ctx.WrapKey(s.anchor, mech, target, key)
	}
	if err != nil {
		return nil, nil, s.errorf(err, "wrap a master key")
	}
	if len(wrapped) != transportBits/8 {
		return nil, nil, errImpossible
	}
	return wrapped, mech, nil
}

// masterTemplate is what the seal key (0) and the wrap key (1) become.
func masterTemplate(i int) []*pkcs11.Attribute {
	u := sealUsage
	if i == 1 {
		u = wrapUsage
	}
	a := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, masterLabels[i]+labelUnfinished),
	}
	a = append(a, kept.attributes()...)
	return append(a, u.attributes(pkcs11.CKO_SECRET_KEY)...)
}

// recoveryObject imports the recovery key as a session object for one use.
func (s *station) recoveryObject(recovery []byte, u usageBits) (pkcs11.ObjectHandle, error) {
	a := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE, recovery),
	}
	a = append(a, loaded.attributes()...)
	a = append(a, u.attributes(pkcs11.CKO_SECRET_KEY)...)
	h, err := s.mod.ctx.CreateObject(s.anchor, a)
	if err != nil {
		return 0, s.errorf(err, "import the recovery key")
	}
	return h, nil
}

func (s *station) wrapForRecovery(recovery []byte, masters [2]pkcs11.ObjectHandle) (wrapped [2][]byte, err error) {
	h, err := s.recoveryObject(recovery, usageBits{wrap: true})
	if err != nil {
		return wrapped, err
	}
	defer func() { _ = s.mod.ctx.DestroyObject(s.anchor, h) }()
	for i, m := range masters {
		if wrapped[i], err = s.mod.ctx.WrapKey(s.anchor, keyWrap(), h, m); err != nil {
			return wrapped, s.errorf(err, "wrap a master key for recovery")
		}
		if len(wrapped[i]) != wrappedMaster {
			return wrapped, errImpossible
		}
	}
	return wrapped, nil
}

// finishMasters gives the master keys their names. From here on they count.
func (s *station) finishMasters() error {
	for i, h := range []pkcs11.ObjectHandle{s.seal, s.wrap} {
		err := s.mod.ctx.SetAttributeValue(s.anchor, h, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, masterLabels[i])})
		if err != nil {
			return s.errorf(err, "name a master key")
		}
	}
	if e := s.findMasterKeys(""); e != nil {
		e.Member = s.cfg.Name
		return e
	}
	return nil
}

// Recovery data: name, set (4 octets), group (16), two wrapped keys (40 each), and the first 8 octets of SHA-256 over it
// all.
const (
	recoveryName  = "keyward recovery 1\n"
	wrappedMaster = 40
	recoverySize  = len(recoveryName) + 4 + 16 + 2*wrappedMaster + 8
)

func encodeRecovery(set [4]byte, group string, wrapped [2][]byte) []byte {
	b := append(make([]byte, 0, recoverySize), recoveryName...)
	b = append(b, set[:]...)
	g, err := hex.DecodeString(group)
	if err != nil || len(g) != 16 {
		panic("hsmpool: a group that checkValues did not make")
	}
	b = append(b, g...)
	b = append(b, wrapped[0]...)
	b = append(b, wrapped[1]...)
	sum := sha256.Sum256(b)
	return append(b, sum[:8]...)
}

func decodeRecovery(b []byte) (set [4]byte, group string, wrapped [2][]byte, err error) {
	if len(b) != recoverySize || !bytes.HasPrefix(b, []byte(recoveryName)) {
		return set, "", wrapped, badInput("not the recovery data of a ceremony")
	}
	sum := sha256.Sum256(b[:recoverySize-8])
	if !bytes.Equal(sum[:8], b[recoverySize-8:]) {
		return set, "", wrapped, badInput("the recovery data is damaged")
	}
	b = b[len(recoveryName):]
	copy(set[:], b)
	group = hex.EncodeToString(b[4:20])
	wrapped[0], wrapped[1] = b[20:20+wrappedMaster], b[20+wrappedMaster:20+2*wrappedMaster]
	return set, group, wrapped, nil
}

// Recover puts the master keys of a ceremony on one more member, from its recovery data and at least threshold of its
// shares, which the caller wipes. Like in a ceremony no master key is in this process's memory in the clear; the
// recovery key is, for the moment. It refuses when the member has master keys, and gives the group.
func Recover(ctx context.Context, cfg MemberConfig, recovery []byte, shares [][]byte) (string, error) {
	set, group, wrapped, err := decodeRecovery(recovery)
	if err != nil {
		return "", err
	}
	key, err := combineShares(shares, set)
	if err != nil {
		return "", err
	}
	return bounded(ctx, func(commit func() bool) (string, error) {
		defer clear(key)
		return group, recoverOn(&cfg, newPINGuard(&cfg), &enrolFrame{key: key, group: group, wrapped: wrapped}, commit)
	})
}

// enrol is Recover on a worker's token.
func (w *tokenWorker) enrol(f *enrolFrame) error {
	return recoverOn(w.cfg, w.pin, f, func() bool { return true })
}

func recoverOn(cfg *MemberConfig, pin pinKeeper, f *enrolFrame, commit func() bool) (err error) {
	s, err := visit(cfg, pin)
	if err != nil {
		return err
	}
	defer s.leave()
	if err := refuseMasters([]*station{s}); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// What is left unfinished is cleared away now, or by the next try.
			if _, u, e := s.masterObjects(); e == nil {
				for _, h := range u {
					err = errors.Join(err, s.mod.ctx.DestroyObject(s.anchor, h))
				}
			}
		}
	}()
	h, err := s.recoveryObject(f.key, usageBits{unwrap: true})
	if err != nil {
		return err
	}
	defer func() { _ = s.mod.ctx.DestroyObject(s.anchor, h) }()
	for i, w := range f.wrapped {
		if _, err := s.mod.ctx.UnwrapKey(s.anchor, keyWrap(), h, w, masterTemplate(i)); err != nil {
			e := s.fail(err, fnUnwrap, stageOther, "unwrap a master key: the shares or the recovery data are not those of one ceremony")
			e.Member = cfg.Name
			return e
		}
	}
	if e := s.findMasterKeys(labelUnfinished); e != nil {
		e.Member = cfg.Name
		return e
	}
	if s.group != f.group {
		return &Error{Kind: KindBadData, fate: fateOperator, Member: cfg.Name, Detail: "the recovered master keys are not of the group that " +
			"the recovery data names"}
	}
	if !commit() {
		return errGivenUp
	}
	return s.finishMasters()
}
