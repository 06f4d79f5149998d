package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// day0 is when the tests of the ledger begin.
var day0 = time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)

// moody is a Store that refuses on order.
type moody struct {
	keystore.Store
	refuse atomic.Pointer[error]
	unread atomic.Pointer[error]
}

func set(to *atomic.Pointer[error], err error) {
	if err == nil {
		to.Store(nil)
		return
	}
	to.Store(&err)
}

func (m *moody) Commit(ctx context.Context, tx keystore.Txn) error {
	if err := m.refuse.Load(); err != nil {
		return *err
	}
	return m.Store.Commit(ctx, tx)
}

func (m *moody) Scan(ctx context.Context, prefix, after string, limit int) ([]keystore.Record, error) {
	if err := m.unread.Load(); err != nil && prefix != "" {
		return nil, *err
	}
	return m.Store.Scan(ctx, prefix, after, limit)
}

// useFixture is a service without HSMs and a clock that tests set.
type useFixture struct {
	*fixture
	store *moody
	clock atomic.Int64 // nanoseconds after day0
}

func newUseFixture(t testing.TB) *useFixture {
	t.Helper()
	u := &useFixture{store: &moody{Store: keystore.NewMem()}}
	u.fixture = &fixture{t: t, events: &events{}, db: newStore(t, u.store, testSealer)}
	u.Service = u.begin()
	return u
}

// begin makes a service over the store, as a new process would.
func (u *useFixture) begin() *Service {
	u.t.Helper()
	s, err := New(context.Background(), Config{
		Store: u.db, Region: "local", Account: testAccount, Audit: u.events, Log: zerolog.Nop(),
		Instances: []Instance{{ID: "kst-software", Type: SoftwareInstance}},
		Services:  []ServicePrincipal{{Code: "volumes", Name: "Volumes", Entry: "https://volumes.example", Principals: []string{volumes.Principal}}},
		Now:       func() time.Time { return day0.Add(time.Duration(u.clock.Load())) },
	})
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(s.Close)
	return s
}

// goTo sets the clock to a time after day0.
func (u *useFixture) goTo(d time.Duration) { u.clock.Store(int64(d)) }

var (
	volumes = &Actor{Principal: "acs:ram::" + testAccount + ":role/volumes", Account: testAccount, RemoteAddr: "192.0.2.7:1"}
	nginx   = &Actor{Principal: "acs:ram::" + testAccount + ":role/web", Account: testAccount, UID: 33, Unit: "nginx.service", Executable: "/usr/sbin/nginx"}
)

// again is an actor's next connection.
func again(a *Actor) *Actor {
	next := *a
	next.PID++
	return &next
}

func (u *useFixture) encrypt(a *Actor, keyID string) []byte {
	u.t.Helper()
	r, err := u.Encrypt(context.Background(), a, &kmswire.EncryptRequest{KeyID: keyID, Plaintext: []byte("x")})
	if err != nil {
		u.t.Fatal(err)
	}
	return r.CiphertextBlob
}

// used gives the saved ledger of a key after a flush: calls by principal.
func (u *useFixture) used(keyID string) map[string]uint64 {
	u.t.Helper()
	if err := u.ledger.flush(context.Background()); err != nil {
		u.t.Fatal(err)
	}
	all, err := u.db.Usage(context.Background(), keyID, 10_000)
	if err != nil {
		u.t.Fatal(err)
	}
	calls := map[string]uint64{}
	for _, one := range all {
		calls[one.Principal] += one.Calls
	}
	return calls
}

func (u *useFixture) wantUsed(what, keyID string, want map[string]uint64) {
	u.t.Helper()
	if got := u.used(keyID); fmt.Sprint(got) != fmt.Sprint(want) {
		u.t.Errorf("%s: the ledger has %v, want %v", what, got, want)
	}
}

// TestUseIsCounted has several actors use keys in all the ways that count, and in those that don't.
func TestUseIsCounted(t *testing.T) {
	u := newUseFixture(t)
	ctx := context.Background()
	key, second := u.create(software, kmswire.AES256, "").KeyID, u.create(software, kmswire.AES256, "").KeyID
	ec := u.create(software, kmswire.ECP256, kmswire.SignVerify).KeyID
	u.wantUsed("making a key is no use", key, map[string]uint64{})

	blob, blob2 := u.encrypt(user, key), u.encrypt(root, second)
	u.encrypt(again(user), key)
	u.wantUsed("two connections of one caller", key, map[string]uint64{user.Principal: 2})

	if _, err := u.BatchEncrypt(ctx, nginx, &kmswire.BatchEncryptRequest{KeyID: key, Items: []kmswire.BatchEncryptItem{
		{Plaintext: []byte("a")}, {Plaintext: make([]byte, kmswire.MaxPlaintext+1)}, {Plaintext: []byte("b")}}}); err != nil {
		t.Fatal(err)
	}
	u.wantUsed("a batch of three with a bad one", key, map[string]uint64{user.Principal: 2, nginx.Principal: 2})

	damaged := bytes.Clone(blob2)
	damaged[len(damaged)-1] ^= 1
	if _, err := u.BatchDecrypt(ctx, nginx, &kmswire.BatchDecryptRequest{Items: []kmswire.BatchDecryptItem{
		{CiphertextBlob: blob}, {CiphertextBlob: blob2}, {CiphertextBlob: blob2}, {CiphertextBlob: damaged}, {CiphertextBlob: []byte("?")}}}); err != nil {
		t.Fatal(err)
	}
	u.wantUsed("a batch over two keys", key, map[string]uint64{user.Principal: 2, nginx.Principal: 3})
	u.wantUsed("a batch over two keys", second, map[string]uint64{root.Principal: 1, nginx.Principal: 2})

	if _, err := u.ReEncrypt(ctx, volumes, &kmswire.ReEncryptRequest{CiphertextBlob: blob, DestinationKeyID: second}); err != nil {
		t.Fatal(err)
	}
	u.wantUsed("ReEncrypt's source", key, map[string]uint64{user.Principal: 2, nginx.Principal: 3, volumes.Principal: 1})
	u.wantUsed("ReEncrypt's destination", second, map[string]uint64{root.Principal: 1, nginx.Principal: 2, volumes.Principal: 1})

	if _, err := u.GetPublicKey(ctx, user, &kmswire.GetPublicKeyRequest{KeyID: ec, KeyVersionID: u.onlyVersion(ec)}); err != nil {
		t.Fatal(err)
	}
	u.wantUsed("a public key", ec, map[string]uint64{user.Principal: 1})

	// What fails, what only asks, and what needs no material.
	_, err := u.Decrypt(ctx, root, &kmswire.DecryptRequest{CiphertextBlob: damaged})
	wantCode(t, "a damaged blob", err, InvalidParameter)
	_, err = u.Encrypt(ctx, other, &kmswire.EncryptRequest{KeyID: "acs:kms:local:" + testAccount + ":key/" + second, Plaintext: []byte("x")})
	wantCode(t, "a stranger", err, KeyNotFound)
	_, err = u.Encrypt(ctx, user, &kmswire.EncryptRequest{KeyID: second, Plaintext: []byte("x"), DryRun: true})
	wantCode(t, "a dry run", err, DryRunSucceeded)
	if _, err := u.DescribeKey(ctx, user, &kmswire.DescribeKeyRequest{KeyID: second}); err != nil {
		t.Fatal(err)
	}
	u.events.setFail(errors.New("full"))
	_, err = u.Encrypt(ctx, user, &kmswire.EncryptRequest{KeyID: second, Plaintext: []byte("x")})
	wantCode(t, "without an audit", err, AuditUnavailable)
	u.events.setFail(nil)
	u.wantUsed("nothing of that", second, map[string]uint64{root.Principal: 1, nginx.Principal: 2, volumes.Principal: 1})
}

// TestLedgerIsSavedOnClose closes a service and begins another on the same store.
func TestLedgerIsSavedOnClose(t *testing.T) {
	u := newUseFixture(t)
	key := u.create(software, kmswire.AES256, "").KeyID
	u.encrypt(nginx, key)
	u.Service.Close()
	if all, err := u.db.Usage(context.Background(), key, 10); err != nil || len(all) != 1 || all[0].Calls != 1 {
		t.Fatalf("after Close the store has %+v, %v", all, err)
	}
	u.Service = u.begin()
	u.goTo(day)
	u.encrypt(again(nginx), key)
	u.ledger.flush(context.Background())
	all, err := u.db.Usage(context.Background(), key, 10)
	if err != nil || len(all) != 1 || all[0].Calls != 2 || !all[0].First.Equal(day0) || !all[0].Last.Equal(day0.Add(day)) {
		t.Errorf("after a restart the store has %+v, %v", all[0], err)
	}
}

// TestLedgerIsFull gives a key more callers than it may have.
func TestLedgerIsFull(t *testing.T) {
	u := newUseFixture(t)
	key := u.create(software, kmswire.AES256, "").KeyID
	for round := range 2 {
		for i := range ledgerCallers + 30 {
			u.ledger.note(&Actor{Principal: root.Principal, Account: testAccount, UID: uint32(i), PID: int32(i)}, key, 1, day0)
		}
		if err := u.ledger.flush(context.Background()); err != nil {
			t.Fatal(err)
		}
		all, err := u.db.Usage(context.Background(), key, 10_000)
		if err != nil || len(all) != ledgerCallers+1 {
			t.Fatalf("round %d: %d callers, %v", round, len(all), err)
		}
		var calls, others uint64
		for _, one := range all {
			calls += one.Calls
			if one.Caller == keystore.OtherCallers {
				others = one.Calls
			}
		}
		if calls != uint64((round+1)*(ledgerCallers+30)) || others < uint64((round+1)*30) {
			t.Errorf("round %d: %d calls, %d of them others'", round, calls, others)
		}
	}
}

// TestLedgerHasABound notes more pairs than there is room for while the store refuses: memory stays bounded, the store gets
// what there was room for, and nothing waits.
func TestLedgerHasABound(t *testing.T) {
	u := newUseFixture(t)
	key := u.create(software, kmswire.AES256, "").KeyID
	u.Service.Close() // nobody else flushes
	set(&u.store.refuse, keystore.ErrFull)
	l := u.ledger
	for i := range 2 * ledgerShards * ledgerRoom {
		l.note(&Actor{Principal: root.Principal, Account: testAccount, UID: uint32(i), PID: int32(i)}, key, 1, day0)
	}
	lost, kept := uint64(0), 0
	for i := range l.shards {
		lost += l.shards[i].lost
		kept += len(l.shards[i].uses)
	}
	if kept > ledgerShards*ledgerRoom || kept+int(lost) != 2*ledgerShards*ledgerRoom || len(l.wake) != 1 {
		t.Errorf("%d kept, %d lost, %d flushes asked for", kept, lost, len(l.wake))
	}
	for round := range 2 {
		if err := l.flush(context.Background()); !errors.Is(err, keystore.ErrFull) {
			t.Fatalf("round %d: flush gave %v", round, err)
		}
		if len(l.unsaved) > ledgerUnsaved {
			t.Errorf("round %d: %d wait", round, len(l.unsaved))
		}
		for i := range 1000 {
			l.note(&Actor{Principal: user.Principal, Account: testAccount, UID: uint32(i), PID: int32(i)}, key, 1, day0)
		}
	}
	set(&u.store.refuse, nil)
	if err := l.flush(context.Background()); err != nil || len(l.unsaved) != 0 {
		t.Errorf("when the store takes it again: %v, %d wait", err, len(l.unsaved))
	}
}

// TestFailingStore sees that calls go on and nothing is lost while the store refuses.
func TestFailingStore(t *testing.T) {
	u := newUseFixture(t)
	key := u.create(software, kmswire.AES256, "").KeyID
	set(&u.store.refuse, keystore.ErrFull)
	for range 3 {
		u.encrypt(nginx, key)
		if err := u.ledger.flush(context.Background()); !errors.Is(err, keystore.ErrFull) {
			t.Fatalf("flush gave %v", err)
		}
	}
	set(&u.store.refuse, nil)
	u.wantUsed("after the disk was full", key, map[string]uint64{nginx.Principal: 3})
}

// TestDamagedUse damages one record of use: what would go into it is given up, and the others are brought up to date.
func TestDamagedUse(t *testing.T) {
	u := newUseFixture(t)
	ctx := context.Background()
	bad, good := u.create(software, kmswire.AES256, "").KeyID, u.create(software, kmswire.AES256, "").KeyID
	u.encrypt(nginx, bad)
	u.wantUsed("before", bad, map[string]uint64{nginx.Principal: 1})
	rows, err := u.store.Store.Scan(ctx, "use/"+bad+"/", "", 10)
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d records of use, %v", len(rows), err)
	}
	rows[0].Value[len(rows[0].Value)-1] ^= 1
	if err := u.store.Store.Commit(ctx, keystore.Txn{Puts: []keystore.Put{{Name: rows[0].Name, Value: rows[0].Value}}}); err != nil {
		t.Fatal(err)
	}
	u.encrypt(nginx, bad)
	u.encrypt(nginx, good)
	u.wantUsed("after", good, map[string]uint64{nginx.Principal: 1})
	if len(u.ledger.unsaved) != 0 {
		t.Errorf("%d wait for a record that is damaged", len(u.ledger.unsaved))
	}
	if _, err := u.db.Usage(ctx, bad, 10); !errors.Is(err, keystore.ErrDamaged) {
		t.Errorf("the damaged record reads as %v", err)
	}
	u.stopped()
	u.startCheck(bad)
	u.checkRound(ctx)
	if check, err := u.findCheck(ctx, bad); err != nil || check.Status != string(kmswire.CheckFailed) {
		t.Errorf("its check: %+v, %v", check, err)
	}
}

// TestLedgerConcurrently has many goroutines note, with their own and with shared actors, while flushes run.
func TestLedgerConcurrently(t *testing.T) {
	u := newUseFixture(t)
	keys := []string{u.create(software, kmswire.AES256, "").KeyID, u.create(software, kmswire.AES256, "").KeyID}
	const workers, each = 8, 2000
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			own := again(nginx)
			for i := range each {
				u.ledger.note(user, keys[i%2], 1, day0)
				u.ledger.note(own, keys[i%2], 2, day0)
				if i%500 == 0 {
					if err := u.ledger.flush(context.Background()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		u.wantUsed("after all", key, map[string]uint64{user.Principal: workers * each / 2, nginx.Principal: workers * each})
	}
}

func TestCallersInTheLedger(t *testing.T) {
	services := newServiceTable([]ServicePrincipal{{Code: "volumes", Principals: []string{volumes.Principal}}})
	base := callerOf(nginx, services)
	if base.UID == nil || *base.UID != 33 || base.Unit != "nginx.service" || base.Door != "API" || base.Service != "" || len(base.Caller) != 64 {
		t.Errorf("nginx is %+v", base)
	}
	if v := callerOf(volumes, services); v.Service != "volumes" || v.UID != nil {
		t.Errorf("a service from the network is %+v", v)
	}
	replaced := again(nginx)
	replaced.Executable += " (deleted)"
	if callerOf(replaced, services).Caller != base.Caller {
		t.Error("an upgrade of the program makes it another caller")
	}
	for what, change := range map[string]func(*Actor){
		"principal":  func(a *Actor) { a.Principal = user.Principal },
		"unit":       func(a *Actor) { a.Unit = "other.service" },
		"executable": func(a *Actor) { a.Executable = "/usr/sbin/other" },
		"uid":        func(a *Actor) { a.UID = 34 },
		"network":    func(a *Actor) { a.RemoteAddr = "192.0.2.1:1" },
		"door":       func(a *Actor) { a.Door = DoorXKI },
		"shifted":    func(a *Actor) { a.Unit, a.Executable = "", a.Unit+a.Executable },
	} {
		a := *nginx
		change(&a)
		if callerOf(&a, services).Caller == base.Caller {
			t.Errorf("another %s is the same caller", what)
		}
	}
	for unit, want := range map[string]string{
		"nginx.service": "nginx.service", "session-3.scope": "", "session-c12.scope": "", "run-u77.service": "",
		"run-p12-i34.scope": "", "run-r0123456789abcdef0123456789abcdef.scope": "", "run-backup.service": "run-backup.service",
		"session-x.scope": "session-x.scope", "docker-0a1b.scope": "docker-0a1b.scope", "user@1000.service": "user@1000.service", "": "",
	} {
		if got := lastingUnit(unit); got != want {
			t.Errorf("%q is %q in the ledger, want %q", unit, got, want)
		}
	}
}

// TestPairsSpread sees that the callers of one key find room in many shards, be they processes or connections.
func TestPairsSpread(t *testing.T) {
	for what, actor := range map[string]func(int) *Actor{
		"processes":   func(i int) *Actor { return &Actor{PID: int32(1000 + i)} },
		"connections": func(i int) *Actor { return &Actor{RemoteAddr: fmt.Sprintf("192.0.2.9:%d", 32768+i)} },
	} {
		hits := [ledgerShards]int{}
		for i := range 64 * ledgerShards {
			hits[shardOf(actor(i), "key-hzz0123456789abcdefgh")]++
		}
		if most := slices.Max(hits[:]); most > ledgerRoom/2 {
			t.Errorf("of %d %s %d are in one shard", 64*ledgerShards, what, most)
		}
	}
}

// TestNoteAllocatesNothing holds the hot path to its promise.
func TestNoteAllocatesNothing(t *testing.T) {
	u := newUseFixture(t)
	u.ledger.note(nginx, "key-1", 1, day0)
	u.ledger.note(volumes, "key-1", 1, day0)
	next := again(volumes)
	if n := testing.AllocsPerRun(100, func() {
		u.ledger.note(nginx, "key-1", 1, day0)
		u.ledger.note(next, "key-1", 1, day0)
	}); n != 0 {
		t.Errorf("a note allocates %v times", n)
	}
}

// TestRequestsFromANetwork: each has an Actor of its own, and they are one caller all the same, which takes the room of one.
func TestRequestsFromANetwork(t *testing.T) {
	u := newUseFixture(t)
	k := u.create(software, kmswire.AES256, "")
	const requests = 2 * ledgerShards * ledgerRoom
	for i := range requests {
		a := *volumes
		a.RemoteAddr = fmt.Sprint("192.0.2.7:", 1024+i)
		u.ledger.note(&a, k.KeyID, 1, day0)
	}
	kept := 0
	for i := range u.ledger.shards {
		kept += len(u.ledger.shards[i].uses)
	}
	if kept > ledgerShards || len(u.ledger.wake) != 0 {
		t.Errorf("they take %d places, and %d flushes are wanted", kept, len(u.ledger.wake))
	}
	u.wantUsed("after them", k.KeyID, map[string]uint64{volumes.Principal: requests})
}

// BenchmarkLedgerNote is what each crypto call pays: by connections of their own, by one that
// all share, and from a network.
func BenchmarkLedgerNote(b *testing.B) {
	u := newUseFixture(b)
	const key = "key-hzz0123456789abcdefgh"
	for name, actor := range map[string]func() *Actor{"Own": func() *Actor { return again(nginx) }, "Shared": func() *Actor { return nginx },
		"Network": func() *Actor { return again(volumes) }} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				a := actor()
				for p.Next() {
					u.ledger.note(a, key, 1, day0)
				}
			})
		})
	}
}
