package kms

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/keystore/boltstore"
	"github.com/keyward/keyward/keystore/storetest"
	"github.com/keyward/keyward/kms/kmswire"
)

// world is a service with clocks of its own, whose process can die. It has no HSM unless it is given one.
type world struct {
	*Service
	t      testing.TB
	events *events
	pool   *hsmpool.Pool
	seal   keystore.Sealer
	mem    *keystore.Mem
	disk   *disk
	db     *keystore.DB
	ticks  chan struct{}
	built  time.Time
	path   string // of the store's file, in place of mem

	mu   sync.Mutex
	wall time.Time
	boot time.Duration
}

// disk is a Store that can stop taking commits, as when the process dies: before or after one is written.
type disk struct {
	*keystore.Mem
	mu     sync.Mutex
	budget int  // commits until it dies; negative: it lives
	torn   bool // the last one is written, but nobody learns of it
}

var errDied = errors.New("the process died")

func (d *disk) Commit(ctx context.Context, tx keystore.Txn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.budget == 0 {
		return errDied
	}
	if d.budget > 0 {
		d.budget--
	}
	if d.budget == 0 && d.torn {
		return errors.Join(errDied, d.Mem.Commit(ctx, tx))
	}
	if d.budget == 0 {
		return errDied
	}
	return d.Mem.Commit(ctx, tx)
}

// Close leaves the records for the next process.
func (d *disk) Close() error { return nil }

func newWorld(t testing.TB, pool *hsmpool.Pool) *world {
	t.Helper()
	w := &world{t: t, events: &events{}, pool: pool, seal: storetest.Sealer("g"), mem: keystore.NewMem(), ticks: make(chan struct{}),
		wall: time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC), boot: time.Hour, built: time.Date(2029, 1, 1, 0, 0, 0, 0, time.UTC)}
	if pool != nil {
		w.seal = pool
	}
	if err := keystore.Create(context.Background(), w.mem, w.seal); err != nil {
		t.Fatal(err)
	}
	w.start()
	t.Cleanup(func() { w.end() })
	return w
}

// onDisk moves a new world to a store in a file.
func (w *world) onDisk() {
	w.t.Helper()
	w.end()
	w.path = filepath.Join(w.t.TempDir(), "store")
	s, err := boltstore.Open(w.path, boltstore.Options{Ballast: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := errors.Join(keystore.Create(context.Background(), s, w.seal), s.Close()); err != nil {
		w.t.Fatal(err)
	}
	w.start()
}

// start begins a process. Its disk dies after so many commits, if that is given.
func (w *world) start(budget ...int) {
	w.t.Helper()
	w.disk = &disk{Mem: w.mem, budget: -1}
	if len(budget) > 0 {
		w.disk.budget = budget[0]
	}
	ctx := context.Background()
	var err error
	var store keystore.Store = w.disk
	if w.path != "" {
		if store, err = boltstore.Open(w.path, boltstore.Options{Ballast: -1}); err != nil {
			w.t.Fatal(err)
		}
	}
	if w.db, err = keystore.Open(ctx, store, w.seal); err != nil {
		w.t.Fatal(err)
	}
	w.Service, err = New(ctx, Config{
		Store: w.db, Pool: w.pool, Region: "local", Account: testAccount, Audit: w.events, Log: zerolog.Nop(),
		Instances: []Instance{{ID: "kst-software", Type: SoftwareInstance}, {ID: "kst-hardware", Type: HardwareInstance}},
		Now:       w.now, Boot: w.sinceBoot, Tick: w.ticks, Built: w.built,
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) end() {
	w.Service.Close()
	w.db.Close()
}

func (w *world) restart() {
	w.t.Helper()
	w.end()
	w.start()
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wall
}

func (w *world) sinceBoot() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.boot
}

// pass lets time pass; set moves the wall clock alone.
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wall, w.boot = w.wall.Add(d), w.boot+d
}

func (w *world) set(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wall = w.wall.Add(d)
}

// look has the service do what is due.
func (w *world) look() {
	w.ticks <- struct{}{}
	<-w.ticks
}

// live lets time pass as a running service sees it.
func (w *world) live(d time.Duration) {
	for ; d > 0; d -= time.Hour {
		w.pass(min(d, time.Hour))
		w.look()
	}
}

func (w *world) create(req kmswire.CreateKeyRequest) kmswire.KeyMetadata {
	w.t.Helper()
	if req.DKMSInstanceID == "" {
		req.DKMSInstanceID = "kst-software"
	}
	r, err := w.CreateKey(context.Background(), root, &req)
	if err != nil {
		w.t.Fatalf("CreateKey %+v: %v", req, err)
	}
	return r.KeyMetadata
}

func (w *world) describe(id string) kmswire.KeyMetadata {
	w.t.Helper()
	r, err := w.DescribeKey(context.Background(), root, &kmswire.DescribeKeyRequest{KeyID: id})
	if err != nil {
		w.t.Fatalf("DescribeKey %s: %v", id, err)
	}
	return r.KeyMetadata
}

func (w *world) schedule(id string, days int) error {
	_, err := w.ScheduleKeyDeletion(context.Background(), root, &kmswire.ScheduleKeyDeletionRequest{KeyID: id, PendingWindowInDays: days})
	return err
}

func (w *world) encrypt(id, text string) []byte {
	w.t.Helper()
	r, err := w.Encrypt(context.Background(), root, &kmswire.EncryptRequest{KeyID: id, Plaintext: []byte(text)})
	if err != nil {
		w.t.Fatalf("Encrypt: %v", err)
	}
	return []byte(r.CiphertextBlob)
}

func (w *world) wantDecrypts(blob []byte, text string) {
	w.t.Helper()
	r, err := w.Decrypt(context.Background(), root, &kmswire.DecryptRequest{CiphertextBlob: blob})
	if err != nil || !bytes.Equal(r.Plaintext, []byte(text)) {
		w.t.Errorf("Decrypt of %q: %v", text, err)
	}
}

func (w *world) wantState(id string, want kmswire.KeyState) {
	w.t.Helper()
	if got := w.describe(id).KeyState; got != want {
		w.t.Errorf("%s is %s, want %s", id, got, want)
	}
}

// material says whether the store still has a key's material.
func (w *world) material(id string) bool {
	w.t.Helper()
	versions, _, err := w.db.Versions(context.Background(), id, 0, 10)
	if err != nil {
		w.t.Fatal(err)
	}
	return slices.ContainsFunc(versions, hasMaterial)
}

func (w *world) gone(id string) bool {
	_, err := w.DescribeKey(context.Background(), root, &kmswire.DescribeKeyRequest{KeyID: id})
	return errors.Is(err, KeyNotFound)
}

// edit changes a key behind the service's back.
func (w *world) edit(id string, f func(*keystore.Key)) {
	w.t.Helper()
	k, err := w.db.Key(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	next := *k
	f(&next)
	if err := w.db.Change().UpdateKey(k, &next).Commit(context.Background()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) count(action, outcome string) (n int) {
	w.events.mu.Lock()
	defer w.events.mu.Unlock()
	for _, e := range w.events.all {
		if e.Action == action && e.Outcome == outcome {
			n++
		}
	}
	return n
}

// lastOf is the last event of an action.
func (w *world) lastOf(action string) AuditEvent {
	w.t.Helper()
	w.events.mu.Lock()
	defer w.events.mu.Unlock()
	for i := len(w.events.all) - 1; i >= 0; i-- {
		if e := w.events.all[i]; e.Action == action {
			return e
		}
	}
	w.t.Fatalf("no event of %s", action)
	return AuditEvent{}
}

func TestDeletion(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	m := w.create(kmswire.CreateKeyRequest{AliasName: "alias/doomed"})
	blob := w.encrypt(m.KeyID, "x")

	for _, days := range []int{-1, 0, 6, 367} {
		wantCode(t, fmt.Sprintf("%d days", days), w.schedule(m.KeyID, days), InvalidParameter)
	}
	asked := w.now()
	if err := w.schedule(m.KeyID, 7); err != nil {
		t.Fatal(err)
	}
	d := w.describe(m.KeyID)
	if want := formatTime(asked.Add(7 * 24 * time.Hour)); d.KeyState != kmswire.PendingDeletion || d.DeleteDate != want {
		t.Errorf("%s, to be deleted at %q, want %q", d.KeyState, d.DeleteDate, want)
	}
	wantCode(t, "a second time", w.schedule(m.KeyID, 7), StateNotAllowed)
	_, err := w.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: blob})
	wantCode(t, "a key that is to be deleted", err, KeyPendingDeletion)

	w.live(6 * 24 * time.Hour)
	if _, err := w.CancelKeyDeletion(ctx, root, &kmswire.CancelKeyDeletionRequest{KeyID: m.KeyID}); err != nil {
		t.Fatal(err)
	}
	if d := w.describe(m.KeyID); d.KeyState != kmswire.Enabled || d.DeleteDate != "" {
		t.Errorf("%s with the date %q after it was cancelled", d.KeyState, d.DeleteDate)
	}
	w.wantDecrypts(blob, "x")
	w.live(30 * 24 * time.Hour)
	w.wantDecrypts(blob, "x")

	if err := w.schedule("alias/doomed", 7); !errors.Is(err, UnsupportedAlias) {
		t.Errorf("by its alias: %v", err)
	}
	if err := w.schedule(m.KeyID, 7); err != nil {
		t.Fatal(err)
	}
	w.live(7*24*time.Hour - time.Second)
	w.wantState(m.KeyID, kmswire.PendingDeletion)
	w.pass(2 * time.Second)
	w.look()
	if !w.gone(m.KeyID) {
		t.Error("the key outlived its time")
	}
	stone, err := w.db.Tombstone(ctx, m.KeyID)
	if err != nil || stone.ScheduledBy != root.Principal {
		t.Errorf("tombstone %+v, %v", stone, err)
	}
	if i, err := w.db.Intents(ctx); err != nil || len(i) != 0 {
		t.Errorf("intents %v, %v", i, err)
	}
	e := w.lastOf("DeleteKey")
	if e.Outcome != "ok" || e.KeyID != m.KeyID || e.Actor.Principal != "acs:keyward:scheduler" || e.Actor.Account != testAccount {
		t.Errorf("the last event is %+v by %+v", e, e.Actor)
	}
	if n := w.count("DeleteKey", "begun"); n != 1 {
		t.Errorf("%d deletions begun", n)
	}
	_, err = w.CreateAlias(ctx, root, &kmswire.CreateAliasRequest{AliasName: "alias/doomed", KeyID: w.create(kmswire.CreateKeyRequest{}).KeyID})
	if err != nil {
		t.Errorf("its alias is not free: %v", err)
	}
}

func TestProtection(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	m := w.create(kmswire.CreateKeyRequest{AliasName: "alias/kept"})
	set := func(r kmswire.SetDeletionProtectionRequest) error {
		_, err := w.SetDeletionProtection(ctx, root, &r)
		return err
	}
	for _, c := range []struct {
		what string
		req  kmswire.SetDeletionProtectionRequest
		want Code
	}{
		{"nothing", kmswire.SetDeletionProtectionRequest{}, MissingParameter},
		{"two", kmswire.SetDeletionProtectionRequest{KeyID: m.KeyID, ProtectedResourceArn: m.Arn}, InvalidParameter},
		{"an instance", kmswire.SetDeletionProtectionRequest{KmsInstanceID: "kst-software"}, UnsupportedOperation},
		{"an ID as ARN", kmswire.SetDeletionProtectionRequest{ProtectedResourceArn: m.KeyID}, InvalidParameter},
		{"an alias's ARN", kmswire.SetDeletionProtectionRequest{ProtectedResourceArn: "acs:kms:local:" + testAccount + ":alias/kept"}, InvalidParameter},
		{"an alias", kmswire.SetDeletionProtectionRequest{KeyID: "alias/kept"}, UnsupportedAlias},
		{"a reason to switch off", kmswire.SetDeletionProtectionRequest{KeyID: m.KeyID, DeletionProtectionDescription: "x"}, InvalidParameter},
		{"a long reason", kmswire.SetDeletionProtectionRequest{KeyID: m.KeyID, EnableDeletionProtection: true,
			DeletionProtectionDescription: strings.Repeat("x", kmswire.MaxDescription+1)}, InvalidParameter},
		{"no key", kmswire.SetDeletionProtectionRequest{KeyID: newKeyID()}, KeyNotFound},
	} {
		wantCode(t, c.what, set(c.req), c.want)
	}
	if err := set(kmswire.SetDeletionProtectionRequest{ProtectedResourceArn: m.Arn, EnableDeletionProtection: true, DeletionProtectionDescription: "payroll"}); err != nil {
		t.Fatal(err)
	}
	if d := w.describe(m.KeyID); d.DeletionProtection != "Enabled" || d.DeletionProtectionDescription != "payroll" {
		t.Errorf("described as %+v", d)
	}
	err := w.schedule(m.KeyID, 7)
	wantCode(t, "deletion of a protected key", err, KeyProtected)
	if err != nil && !strings.Contains(err.Error(), "SetDeletionProtection") {
		t.Errorf("%v does not say what to do", err)
	}
	w.wantState(m.KeyID, kmswire.Enabled)
	if err := set(kmswire.SetDeletionProtectionRequest{KeyID: m.KeyID}); err != nil {
		t.Fatal(err)
	}
	if d := w.describe(m.KeyID); d.DeletionProtection != "Disabled" || d.DeletionProtectionDescription != "" {
		t.Errorf("described as %+v", d)
	}
	if err := w.schedule(m.KeyID, 7); err != nil {
		t.Error(err)
	}
	wantCode(t, "protection of a doomed key", set(kmswire.SetDeletionProtectionRequest{KeyID: m.KeyID, EnableDeletionProtection: true}), KeyPendingDeletion)
}

func TestRotationPolicies(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	m := w.create(kmswire.CreateKeyRequest{})
	update := func(id string, on bool, interval string) error {
		_, err := w.UpdateRotationPolicy(ctx, root, &kmswire.UpdateRotationPolicyRequest{KeyID: id, EnableAutomaticRotation: on, RotationInterval: interval})
		return err
	}
	for text, want := range map[string]Code{
		"7d": pass, "365d": pass, "168h": pass, "8760h": pass, "10080m": pass, "604800s": pass, "31536000s": pass,
		"6d": InvalidParameter, "366d": InvalidParameter, "167h": InvalidParameter, "604799s": InvalidParameter, "31536001s": InvalidParameter,
		"": MissingParameter, "d": InvalidParameter, "30": InvalidParameter, "30w": InvalidParameter, "-30d": InvalidParameter, "+30d": InvalidParameter,
		"3 0d": InvalidParameter, "1e9s": InvalidParameter, "99999999999999999999d": InvalidParameter, "4294967295d": InvalidParameter, "30dd": InvalidParameter,
	} {
		err := update(m.KeyID, true, text)
		if want == pass && err != nil || want != pass && !errors.Is(err, want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := update(m.KeyID, true, "30d"); err != nil {
		t.Fatal(err)
	}
	d := w.describe(m.KeyID)
	next := formatTime(w.now().Truncate(time.Second).Add(30 * 24 * time.Hour))
	if d.AutomaticRotation != "Enabled" || d.RotationInterval != "2592000s" || d.NextRotationDate != next {
		t.Errorf("described as %s, %s, %s; want the next at %s", d.AutomaticRotation, d.RotationInterval, d.NextRotationDate, next)
	}
	if err := update(m.KeyID, false, ""); err != nil {
		t.Fatal(err)
	}
	if d := w.describe(m.KeyID); d.AutomaticRotation != "Disabled" || d.RotationInterval != "" || d.NextRotationDate != "" {
		t.Errorf("described as %+v", d)
	}

	rsa := w.create(kmswire.CreateKeyRequest{KeySpec: kmswire.ECP256}).KeyID
	imported, service, external, inside, ours := w.create(kmswire.CreateKeyRequest{}).KeyID, w.create(kmswire.CreateKeyRequest{}).KeyID,
		w.create(kmswire.CreateKeyRequest{}).KeyID, w.create(kmswire.CreateKeyRequest{}).KeyID, w.create(kmswire.CreateKeyRequest{}).KeyID
	w.edit(imported, func(k *keystore.Key) { k.Origin = kmswire.OriginExternal })
	w.edit(external, func(k *keystore.Key) { k.ExternalID = "x" })
	w.edit(inside, func(k *keystore.Key) { k.Storage = kmswire.HsmInternal })
	for id, want := range map[string]Code{rsa: OperationRejected, imported: UnsupportedOrigin, external: OperationRejected, inside: OperationRejected} {
		wantCode(t, "policy of "+string(w.describe(id).KeySpec), update(id, true, "30d"), want)
		wantCode(t, "no policy", update(id, false, ""), want)
		if id != rsa {
			_, err := w.CreateKeyVersion(ctx, root, &kmswire.CreateKeyVersionRequest{KeyID: id})
			wantCode(t, "a version", err, want)
		}
	}
	for k, want := range map[*keystore.Key]Code{
		{ID: service, Role: keystore.RoleService, Origin: kmswire.OriginKMS}: OperationRejected,
		{ID: ours, Role: keystore.RoleDefault, Origin: kmswire.OriginKMS}:    InvalidParameter,
	} {
		wantCode(t, k.Role, setRotation(k, specs[kmswire.AES256], true, 30*day), want)
	}
	if err := setRotation(&keystore.Key{Role: keystore.RoleDefault, Origin: kmswire.OriginKMS}, specs[kmswire.AES256], true, 365*day); err != nil {
		t.Error(err)
	}

	for _, c := range []struct {
		req  kmswire.CreateKeyRequest
		want Code
	}{
		{kmswire.CreateKeyRequest{EnableAutomaticRotation: true}, MissingParameter},
		{kmswire.CreateKeyRequest{EnableAutomaticRotation: true, RotationInterval: "1d"}, InvalidParameter},
		{kmswire.CreateKeyRequest{EnableAutomaticRotation: true, RotationInterval: "30d", KeySpec: kmswire.ECP256}, OperationRejected},
	} {
		c.req.DKMSInstanceID = "kst-software"
		_, err := w.CreateKey(ctx, root, &c.req)
		wantCode(t, fmt.Sprintf("%+v", c.req), err, c.want)
	}
	_, err := w.CreateKey(ctx, root, &kmswire.CreateKeyRequest{DKMSInstanceID: "kst-software", KeySpec: kmswire.ECP256, EnableAutomaticRotation: true, RotationInterval: "30d"})
	if d := AsError(err).Detail; !strings.HasPrefix(d, "the new key is EC_P256") {
		t.Errorf("a key that was not made is called %q", d)
	}
	if d := w.create(kmswire.CreateKeyRequest{EnableAutomaticRotation: true, RotationInterval: "30d"}); d.AutomaticRotation != "Enabled" || d.NextRotationDate != next {
		t.Errorf("made as %+v", d)
	}
}

func TestRotation(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	m := w.create(kmswire.CreateKeyRequest{EnableAutomaticRotation: true, RotationInterval: "30d"})
	blob := w.encrypt(m.KeyID, "first")
	w.live(30*24*time.Hour - time.Minute)
	if got := w.describe(m.KeyID).PrimaryKeyVersion; got != m.PrimaryKeyVersion {
		t.Error("rotated before its time")
	}
	w.live(time.Minute)
	second := w.describe(m.KeyID)
	if second.PrimaryKeyVersion == m.PrimaryKeyVersion || second.LastRotationDate != formatTime(w.now()) {
		t.Errorf("not rotated when its time had come: %+v", second)
	}
	w.wantDecrypts(blob, "first")
	if e := w.lastOf("RotateKey"); e.Outcome != "ok" || e.VersionID != second.PrimaryKeyVersion || e.Actor.Principal != "acs:keyward:scheduler" {
		t.Errorf("the last event is %+v", e)
	}

	// Out of use, it is suspended; in use again, it is rotated once for all that it missed.
	if _, err := w.DisableKey(ctx, root, &kmswire.DisableKeyRequest{KeyID: m.KeyID}); err != nil {
		t.Fatal(err)
	}
	w.live(100 * 24 * time.Hour)
	if d := w.describe(m.KeyID); d.AutomaticRotation != "Suspended" || d.PrimaryKeyVersion != second.PrimaryKeyVersion || d.RotationInterval == "" || d.NextRotationDate == "" {
		t.Errorf("disabled: %+v", d)
	}
	if _, err := w.EnableKey(ctx, root, &kmswire.EnableKeyRequest{KeyID: m.KeyID}); err != nil {
		t.Fatal(err)
	}
	w.look()
	third := w.describe(m.KeyID)
	if third.AutomaticRotation != "Enabled" || third.PrimaryKeyVersion == second.PrimaryKeyVersion || third.NextRotationDate != formatTime(w.now().Truncate(time.Second).Add(30*24*time.Hour)) {
		t.Errorf("enabled again: %+v", third)
	}
	// So it is after keyward was away.
	w.end()
	w.pass(200 * 24 * time.Hour)
	w.start()
	w.look()
	w.look()
	if l, err := w.ListKeyVersions(ctx, root, &kmswire.ListKeyVersionsRequest{KeyID: m.KeyID}); err != nil || l.TotalCount != 4 {
		t.Errorf("%+v versions, %v", l, err)
	}
	// A shorter period that is over already rotates at once.
	w.live(10 * 24 * time.Hour)
	before := w.describe(m.KeyID).PrimaryKeyVersion
	if _, err := w.UpdateRotationPolicy(ctx, root, &kmswire.UpdateRotationPolicyRequest{KeyID: m.KeyID, EnableAutomaticRotation: true, RotationInterval: "7d"}); err != nil {
		t.Fatal(err)
	}
	w.look()
	if w.describe(m.KeyID).PrimaryKeyVersion == before {
		t.Error("a period that is over did not rotate the key")
	}
	w.wantDecrypts(blob, "first")
	if got := w.count("RotateKey", "ok"); got != 4 {
		t.Errorf("%d rotations in the audit", got)
	}
}

// A version that has used up half of its messages is replaced, if its key is one that is rotated by itself.
func TestWornVersions(t *testing.T) {
	w := newWorld(t, nil)
	auto, manual := w.create(kmswire.CreateKeyRequest{EnableAutomaticRotation: true, RotationInterval: "365d"}), w.create(kmswire.CreateKeyRequest{})
	ctx := context.Background()
	for _, m := range []kmswire.KeyMetadata{auto, manual} {
		c := &callCounter{store: w.db, log: zerolog.Nop(), version: m.PrimaryKeyVersion, worn: func() { w.Service.schedule.wear(m.PrimaryKeyVersion) }}
		if _, err := w.db.ReserveCalls(ctx, m.PrimaryKeyVersion, warnCalls); err != nil {
			t.Fatal(err)
		}
		if err := c.take(ctx, 1); err != nil {
			t.Fatal(err)
		}
	}
	w.look()
	w.look()
	if w.describe(auto.KeyID).PrimaryKeyVersion == auto.PrimaryKeyVersion {
		t.Error("a worn version was not replaced")
	}
	if n := w.count("RotateKey", "ok"); n != 1 {
		t.Errorf("%d rotations", n)
	}
	if w.describe(manual.KeyID).PrimaryKeyVersion != manual.PrimaryKeyVersion {
		t.Error("a key was rotated that is not to be rotated by itself")
	}
}

// importedKey makes a key look as if its material had been imported until expires.
func (w *world) importedKey(expires time.Duration) string {
	id := w.create(kmswire.CreateKeyRequest{}).KeyID
	at := w.now().Add(expires)
	w.edit(id, func(k *keystore.Key) {
		k.Origin, k.MaterialExpires, k.MaterialAfter = kmswire.OriginExternal, &at, w.clock.after(expires)
	})
	return id
}

func TestExpiry(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	used, doomed := w.importedKey(10*day), w.importedKey(10*day)
	blob := w.encrypt(used, "x")
	if err := w.schedule(doomed, 30); err != nil {
		t.Fatal(err)
	}
	date := w.describe(doomed).DeleteDate
	if got, want := w.describe(used).MaterialExpireTime, formatTime(w.now().Add(10*day)); got != want {
		t.Errorf("it expires at %q, want %q", got, want)
	}
	w.live(10*day - time.Minute)
	w.wantDecrypts(blob, "x")
	w.live(time.Minute + time.Second)
	w.wantState(used, kmswire.PendingImport)
	if d := w.describe(doomed); d.KeyState != kmswire.PendingDeletion || d.DeleteDate != date {
		t.Errorf("the doomed key is %+v", d)
	}
	_, err := w.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: blob})
	wantCode(t, "expired material", err, KeyPendingImport)
	for _, id := range []string{used, doomed} {
		versions, n, err := w.db.Versions(ctx, id, 0, 10)
		if err != nil || n != 1 || hasMaterial(versions[0]) {
			t.Errorf("%s has %d versions, and material in %+v (%v)", id, n, versions, err)
		}
	}
	if got := w.describe(used).MaterialExpireTime; got != "" {
		t.Errorf("what is gone expires at %q", got)
	}
	if _, err := w.CancelKeyDeletion(ctx, root, &kmswire.CancelKeyDeletionRequest{KeyID: doomed}); err != nil {
		t.Fatal(err)
	}
	w.wantState(doomed, kmswire.PendingImport)
	if n := w.count("ExpireKeyMaterial", "ok"); n != 2 {
		t.Errorf("%d expiries in the audit", n)
	}
}

// The wall clock alone, or the running time alone, deletes nothing.
func TestClockAttacks(t *testing.T) {
	ctx := context.Background()
	t.Run("set forward", func(t *testing.T) {
		w := newWorld(t, nil)
		m, expiring := w.create(kmswire.CreateKeyRequest{}), w.importedKey(10*day)
		if err := w.schedule(m.KeyID, 7); err != nil {
			t.Fatal(err)
		}
		w.set(30 * day)
		w.live(6 * day)
		w.wantState(m.KeyID, kmswire.PendingDeletion)
		w.wantState(expiring, kmswire.PendingImport) // for whoever asks
		if !w.material(expiring) {
			t.Error("material was destroyed by the wall clock alone")
		}
		w.live(day)
		if !w.gone(m.KeyID) {
			t.Error("a day after the freeze is over, both clocks have passed")
		}
	})
	t.Run("set forward in the small", func(t *testing.T) {
		w := newWorld(t, nil)
		m := w.create(kmswire.CreateKeyRequest{})
		if err := w.schedule(m.KeyID, 7); err != nil {
			t.Fatal(err)
		}
		for range 6 * 24 {
			w.set(59 * time.Minute)
			w.live(time.Hour)
		}
		w.wantState(m.KeyID, kmswire.PendingDeletion)
	})
	t.Run("down time earns nothing", func(t *testing.T) {
		w := newWorld(t, nil)
		m := w.create(kmswire.CreateKeyRequest{})
		if err := w.schedule(m.KeyID, 7); err != nil {
			t.Fatal(err)
		}
		w.end()
		w.pass(30 * day)
		w.start()
		w.live(7*day - time.Hour)
		w.wantState(m.KeyID, kmswire.PendingDeletion)
		w.live(2 * time.Hour)
		if !w.gone(m.KeyID) {
			t.Error("the key outlived its time")
		}
	})
	t.Run("set back", func(t *testing.T) {
		w := newWorld(t, nil)
		m := w.create(kmswire.CreateKeyRequest{})
		if err := w.schedule(m.KeyID, 7); err != nil {
			t.Fatal(err)
		}
		w.live(6 * day)
		w.set(-2 * time.Minute)
		w.look()
		if err := w.ClockTrusted(); err == nil {
			t.Error("a clock that went back is trusted")
		}
		w.live(time.Hour)
		if err := w.ClockTrusted(); err != nil {
			t.Errorf("a clock that has caught up is not trusted: %v", err)
		}
		if w.ClockStatus().Problem == "" || len(w.Problems()) != 1 {
			t.Error("the freeze is not told")
		}
		w.restart() // which does not end a freeze
		if w.ClockStatus().Problem == "" {
			t.Error("a restart ended the freeze")
		}
		w.live(day)
		if p := w.Problems(); len(p) != 0 {
			t.Errorf("problems after the freeze: %q", p)
		}
	})
	t.Run("before it was made", func(t *testing.T) {
		w := newWorld(t, nil)
		m := w.create(kmswire.CreateKeyRequest{EnableAutomaticRotation: true, RotationInterval: "7d"})
		w.set(-3 * 365 * day)
		w.live(8 * day)
		if err := w.ClockTrusted(); err == nil {
			t.Error("trusted")
		}
		wantCode(t, "confirming it", w.ConfirmClock(ctx, root), OperationRejected)
		if w.describe(m.KeyID).PrimaryKeyVersion != m.PrimaryKeyVersion {
			t.Error("rotated by a clock that is wrong")
		}
	})
	t.Run("confirmed", func(t *testing.T) {
		w := newWorld(t, nil)
		m := w.create(kmswire.CreateKeyRequest{EnableAutomaticRotation: true, RotationInterval: "30d"})
		w.live(29 * day)
		w.set(-2 * day)
		w.live(time.Hour)
		wantCode(t, "a user's word", w.ConfirmClock(ctx, user), Denied)
		wantCode(t, "another root's word", w.ConfirmClock(ctx, &Actor{Principal: "acs:ram::" + otherAccount + ":root", Account: otherAccount}), Denied)
		if w.ClockTrusted() == nil {
			t.Error("a user's word counted")
		}
		if err := w.ConfirmClock(ctx, root); err != nil {
			t.Fatal(err)
		}
		if err := w.ClockTrusted(); err != nil || w.ClockStatus().Problem != "" {
			t.Errorf("%v, %q", err, w.ClockStatus().Problem)
		}
		w.restart()
		if err := w.ClockTrusted(); err != nil {
			t.Errorf("after a restart: %v", err)
		}
		w.live(3 * day)
		if w.describe(m.KeyID).PrimaryKeyVersion == m.PrimaryKeyVersion {
			t.Error("not rotated")
		}
	})
	t.Run("noted", func(t *testing.T) {
		w := newWorld(t, nil)
		w.look()
		w.set(2 * time.Second)
		w.look()
		if n := w.count("ClockStep", "ok"); n != 0 {
			t.Errorf("%d steps noted", n)
		}
		w.set(-3 * time.Second)
		w.look()
		w.look()
		if n := w.count("ClockStep", "ok"); n != 1 || !strings.Contains(w.events.last().Detail, "back by 3s") {
			t.Errorf("%d steps noted, the last as %+v", n, w.events.last())
		}
		if p := w.Problems(); len(p) != 0 {
			t.Errorf("a small step is a problem: %q", p)
		}
	})
}

// Deletions are apart, whatever is due, and whoever starts keyward again and again.
func TestDeletionsAreApart(t *testing.T) {
	w := newWorld(t, nil)
	var ids []string
	for range 25 {
		ids = append(ids, w.create(kmswire.CreateKeyRequest{}).KeyID)
		if err := w.schedule(ids[len(ids)-1], 7); err != nil {
			t.Fatal(err)
		}
	}
	w.live(7 * day)
	gone := func() (n int) {
		for _, id := range ids {
			if w.gone(id) {
				n++
			}
		}
		return n
	}
	before := gone()
	for range 60 {
		w.pass(time.Minute)
		w.restart()
		w.look()
	}
	if n := gone() - before; n != 0 {
		t.Errorf("%d keys were deleted by starts", n)
	}
	for range 60 {
		w.pass(time.Minute)
		w.look()
	}
	if n := gone() - before; n != 10 {
		t.Errorf("%d keys were deleted in an hour, want 10", n)
	}
}

// What is destroyed is not in the store's file any more, half an hour later.
func TestNothingIsLeftInTheFile(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	w.onDisk()
	doomed, expiring, kept := w.create(kmswire.CreateKeyRequest{}).KeyID, w.importedKey(7*day), w.create(kmswire.CreateKeyRequest{}).KeyID
	sealed := map[string][]byte{}
	for _, id := range []string{doomed, expiring, kept} {
		versions, _, err := w.db.Versions(ctx, id, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		sealed[id] = []byte(base64.StdEncoding.EncodeToString(versions[0].Sealed)) // as a record has it
	}
	found := func(id string) bool {
		t.Helper()
		file, err := os.ReadFile(w.path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(file, sealed[id])
	}
	if err := w.schedule(doomed, 7); err != nil {
		t.Fatal(err)
	}
	w.live(7*day - time.Hour)
	for id := range sealed {
		if !found(id) {
			t.Fatal("the material is not where this test looks for it")
		}
	}
	w.pass(time.Hour)
	for range 40 {
		w.pass(time.Minute)
		w.look()
	}
	if !w.gone(doomed) || w.describe(expiring).KeyState != kmswire.PendingImport || w.material(expiring) {
		t.Fatal("nothing was destroyed")
	}
	if found(doomed) || found(expiring) {
		t.Error("destroyed material is still in the file")
	}
	if !found(kept) {
		t.Error("other material is gone from the file")
	}
	w.restart()
	w.wantDecrypts(w.encrypt(kept, "x"), "x")
}

// Ten years of a set of keys, with a clock that people and time servers set, and with restarts: no key goes before its time
// by either clock, every rotation happens, and everything that was encrypted is read to the end.
func TestTenYears(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	random := rand.New(rand.NewPCG(1, 2))
	type kept struct {
		id, text string
		blob     []byte
	}
	var blobs []kept
	intervals := map[string]time.Duration{}
	for _, days := range []int{7, 30, 90, 180, 365} {
		m := w.create(kmswire.CreateKeyRequest{EnableAutomaticRotation: true, RotationInterval: fmt.Sprintf("%dd", days)})
		intervals[m.KeyID] = time.Duration(days) * day
	}
	type doomed struct {
		at      time.Time
		running time.Duration
	}
	dying := map[string]doomed{}
	deleted, steps := 0, 0
	var running time.Duration // of the service
	const step = 12 * time.Hour
	for elapsed := time.Duration(0); elapsed < 10*365*day; elapsed += step {
		w.pass(step)
		running += step
		w.look()
		for id, d := range dying {
			if !w.gone(id) {
				continue
			}
			deleted++
			delete(dying, id)
			if running < d.running || w.now().Before(d.at) {
				t.Fatalf("a key is gone %s and %s before its time", d.running-running, d.at.Sub(w.now()))
			}
		}
		switch random.IntN(200) {
		case 0:
			steps++
			w.set(time.Duration(random.IntN(int(5 * day))))
		case 1:
			steps++
			w.set(-time.Duration(random.IntN(int(2 * day))))
		case 2, 3:
			w.restart()
		case 4: // away
			w.end()
			w.pass(time.Duration(random.IntN(int(3 * day))))
			w.start()
		case 5, 6, 7:
			id := w.create(kmswire.CreateKeyRequest{}).KeyID
			days := minWindowDays + random.IntN(30)
			dying[id] = doomed{w.now().Add(time.Duration(days) * day), running + time.Duration(days)*day}
			if err := w.schedule(id, days); err != nil {
				t.Fatal(err)
			}
		case 8, 9, 10, 11:
			for id := range intervals {
				text := fmt.Sprint(elapsed)
				blobs = append(blobs, kept{id, text, w.encrypt(id, text)})
				break
			}
		}
	}
	if deleted < 50 || steps < 40 || len(blobs) < 100 {
		t.Errorf("too little happened: %d deletions, %d steps, %d blobs", deleted, steps, len(blobs))
	}
	if err := w.ConfirmClock(ctx, root); err != nil {
		t.Fatal(err)
	}
	w.live(3 * day)
	for id, interval := range intervals {
		k, err := w.db.Key(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if late := w.now().Sub(k.NextRotation()); late > time.Hour {
			t.Errorf("the rotation of a key with %s is %s late", interval, late)
		}
		// The freezes, and what the clock was back, cost some.
		if most := int(10*365*day/interval) + 1; k.Versions > most+steps || k.Versions < most*2/3 {
			t.Errorf("a key with %s has %d versions after ten years", interval, k.Versions)
		}
	}
	for _, b := range blobs {
		w.wantDecrypts(b.blob, b.text)
	}
	w.live(50 * day)
	for id := range dying {
		if !w.gone(id) {
			t.Errorf("%s outlived its time", id)
		}
	}
}

// A process that dies at any commit of a rotation or deletion leaves a key that works, or one that is going.
func TestTornSteps(t *testing.T) {
	ctx := context.Background()
	for _, torn := range []bool{false, true} {
		for budget := 1; ; budget++ {
			w := newWorld(t, nil)
			rotated := w.create(kmswire.CreateKeyRequest{EnableAutomaticRotation: true, RotationInterval: "7d"})
			doomed := w.create(kmswire.CreateKeyRequest{AliasName: "alias/doomed"})
			expiring := w.importedKey(7 * day)
			blob, lost := w.encrypt(rotated.KeyID, "kept"), w.encrypt(doomed.KeyID, "lost")
			if err := w.schedule(doomed.KeyID, 7); err != nil {
				t.Fatal(err)
			}
			w.live(7*day - time.Hour)
			w.disk.mu.Lock()
			w.disk.budget, w.disk.torn = budget, torn
			w.disk.mu.Unlock()
			w.live(time.Hour + time.Minute)
			w.disk.mu.Lock()
			survived := w.disk.budget > 0
			w.disk.mu.Unlock()
			w.restart()

			w.wantDecrypts(blob, "kept")
			w.wantDecrypts(w.encrypt(rotated.KeyID, "new"), "new")
			d := w.describe(rotated.KeyID)
			if _, err := w.db.Version(ctx, rotated.KeyID, d.PrimaryKeyVersion); err != nil {
				t.Errorf("the primary version: %v", err)
			}
			if _, err := w.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: lost}); err == nil {
				t.Error("a key that is half deleted decrypts")
			}
			k, err := w.db.Key(ctx, doomed.KeyID)
			_, stone := w.db.Tombstone(ctx, doomed.KeyID)
			if (err == nil) == (stone == nil) {
				t.Errorf("key %v and tombstone %v", err, stone)
			}
			if err == nil && k.Deleting {
				_, err := w.CancelKeyDeletion(ctx, root, &kmswire.CancelKeyDeletionRequest{KeyID: doomed.KeyID})
				wantCode(t, "cancelling what has begun", err, StateNotAllowed)
			}
			w.live(day)
			if !w.gone(doomed.KeyID) {
				t.Error("the deletion did not go on")
			}
			if w.describe(rotated.KeyID).PrimaryKeyVersion == rotated.PrimaryKeyVersion {
				t.Error("the rotation did not happen")
			}
			w.wantState(expiring, kmswire.PendingImport)
			if w.material(expiring) {
				t.Error("expired material is still there")
			}
			w.wantDecrypts(blob, "kept")
			if i, err := w.db.Intents(ctx); err != nil || len(i) != 0 {
				t.Errorf("intents %v, %v", i, err)
			}
			if t.Failed() {
				t.Fatalf("torn %v, budget %d", torn, budget)
			}
			if survived {
				if budget < 4 {
					t.Errorf("all was done in %d commits", budget)
				}
				break
			}
		}
	}
}

// What fails is tried again with growing pauses, and told once.
func TestScheduledWorkThatFails(t *testing.T) {
	w := newWorld(t, nil)
	m := w.create(kmswire.CreateKeyRequest{EnableAutomaticRotation: true, RotationInterval: "7d"})
	good := w.create(kmswire.CreateKeyRequest{EnableAutomaticRotation: true, RotationInterval: "7d"})
	w.edit(m.KeyID, func(k *keystore.Key) { k.Spec = "SomethingNew" })
	w.live(9 * day)
	if w.describe(good.KeyID).PrimaryKeyVersion == good.PrimaryKeyVersion {
		t.Error("one key that can't be rotated keeps another from it")
	}
	p := w.Problems()
	if len(p) != 1 || !strings.Contains(p[0], m.KeyID) {
		t.Errorf("problems %q", p)
	}
	w.edit(m.KeyID, func(k *keystore.Key) { k.Spec = string(kmswire.AES256) })
	w.live(2 * time.Hour)
	if w.describe(m.KeyID).PrimaryKeyVersion == m.PrimaryKeyVersion || len(w.Problems()) != 0 {
		t.Errorf("it was not tried again: %q", w.Problems())
	}
	// Without the audit nothing is deleted.
	if err := w.schedule(m.KeyID, 7); err != nil {
		t.Fatal(err)
	}
	w.live(7*day - time.Hour)
	w.events.setFail(errors.New("no disk"))
	w.live(3 * time.Hour)
	w.events.setFail(nil)
	w.wantState(m.KeyID, kmswire.PendingDeletion)
	w.live(2 * time.Hour)
	if !w.gone(m.KeyID) {
		t.Error("the deletion was not tried again")
	}
}

// Expired material is not used, whatever keeps it from being destroyed yet: nobody looked, a frozen clock, a clock that was set back,
// or keyward was not running. One clock is enough for that: what is refused is not lost.
func TestExpiredMaterialIsNotUsed(t *testing.T) {
	ctx := context.Background()
	fixed := func(t *testing.T) (*world, string, []byte) {
		w := newWorld(t, nil)
		id := w.importedKey(10 * day)
		return w, id, w.encrypt(id, "secret")
	}
	refused := func(w *world, id string, blob []byte) {
		w.t.Helper()
		_, err := w.Encrypt(ctx, root, &kmswire.EncryptRequest{KeyID: id, Plaintext: []byte("x")})
		wantCode(w.t, "Encrypt", err, KeyPendingImport)
		_, err = w.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: blob})
		wantCode(w.t, "Decrypt", err, KeyPendingImport)
		_, err = w.BatchEncrypt(ctx, root, &kmswire.BatchEncryptRequest{KeyID: id, Items: []kmswire.BatchEncryptItem{{Plaintext: []byte("x")}}})
		wantCode(w.t, "BatchEncrypt", err, KeyPendingImport)
		out, err := w.BatchDecrypt(ctx, root, &kmswire.BatchDecryptRequest{Items: []kmswire.BatchDecryptItem{{CiphertextBlob: blob}}})
		if err != nil || out.Items[0].ItemError == nil || !errors.Is(out.Items[0].Err, KeyPendingImport) {
			w.t.Errorf("BatchDecrypt: %+v %v", out, err)
		}
		if k, err := w.db.Key(ctx, id); err != nil || k.State != string(kmswire.Enabled) {
			w.t.Errorf("the test is about material that is still there: %v %v", k, err)
		}
	}
	t.Run("in time", func(t *testing.T) {
		w, _, blob := fixed(t)
		w.pass(10*day - time.Second)
		w.wantDecrypts(blob, "secret")
	})
	t.Run("nobody looked", func(t *testing.T) {
		w, id, blob := fixed(t)
		w.pass(10 * day)
		refused(w, id, blob)
	})
	t.Run("not running", func(t *testing.T) {
		w, id, blob := fixed(t)
		w.end()
		w.set(11 * day)
		w.start()
		w.look() // the running time says that it is too early
		refused(w, id, blob)
	})
	t.Run("frozen", func(t *testing.T) {
		w, id, blob := fixed(t)
		w.set(10 * day)
		w.look()
		refused(w, id, blob)
	})
	t.Run("set back", func(t *testing.T) {
		w, id, blob := fixed(t)
		w.set(-2 * 365 * day)
		w.live(10*day + time.Hour)
		refused(w, id, blob)
		w.restart()
		w.look()
		refused(w, id, blob)
	})
}
