package hsmpool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/hsmpool/hsmtest"
)

// TestMain fails when a goroutine of a pool outlives the tests, each of which closes its pools.
func TestMain(m *testing.M) {
	hsmtest.WorkerMain()
	goleak.VerifyTestMain(m)
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestPool runs what needs nothing but a group that works: a ceremony takes seconds.
func TestPool(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	config := h.Config()
	for i := range config.Members {
		config.Members[i].CallTimeout = time.Minute // testFull keeps calls waiting for as long as thousands of others take to come
	}
	p := hsmtest.OpenConfig(t, config)
	for _, c := range []struct {
		name string
		test func(*testing.T, *hsmpool.Pool)
	}{
		{"Seal", testSeal}, {"AllOps", testAllOps}, {"Choices", testChoices}, {"ModesAgainstGo", testModesAgainstGo}, {"KeysDiffer", testKeysDiffer},
		{"DoAll", testDoAll}, {"Cancel", testCancel}, {"Full", testFull}, {"BadInput", testBadInput}, {"Cache", testCache},
		{"Stampede", testStampede}, {"Separation", testSeparation}, {"Pinned", testPinned},
		{"Transport", testTransport}, {"Import", testImport}, {"BadImports", testBadImports},
		{"WycheproofGCM", testWycheproofGCM}, {"WycheproofOAEP", testWycheproofOAEP}, {"WycheproofVerify", testWycheproofVerify},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(t, p)
			drained(t, p)
			for _, s := range p.Status() {
				if s.State != hsmpool.StateUp || s.Token == "" || s.Serial == "" || s.Since.IsZero() {
					t.Errorf("status afterwards: %+v", s)
				}
			}
		})
	}
}

// TestPoolIsolated runs what needs no look inside through worker processes.
func TestPoolIsolated(t *testing.T) {
	h := hsmtest.New(t, "a", "b")
	h.Ceremony(t)
	for _, workers := range []int{1, 2} {
		t.Run(fmt.Sprintf("workers=%d", workers), func(t *testing.T) {
			p := hsmtest.OpenConfig(t, h.Isolated(workers))
			for _, c := range []struct {
				name string
				test func(*testing.T, *hsmpool.Pool)
			}{
				{"Seal", testSeal}, {"AllOps", testAllOps}, {"Choices", testChoices}, {"DoAll", testDoAll}, {"Cancel", testCancel}, {"BadInput", testBadInput},
				{"Import", testImport},
			} {
				if c.name == "Import" && workers == 1 || c.name == "Choices" && workers == 2 {
					continue // it takes its time
				}
				t.Run(c.name, func(t *testing.T) {
					c.test(t, p)
					drained(t, p)
					for _, s := range p.Status() {
						if s.State != hsmpool.StateUp || s.Token == "" || s.Serial == "" || s.Since.IsZero() || len(s.Workers) != workers || s.Restarts != 0 {
							t.Errorf("status afterwards: %+v", s)
						}
					}
				})
			}
		})
	}
}

func testSeal(t *testing.T, p *hsmpool.Pool) {
	ctx := testContext(t)
	secret := bytes.Repeat([]byte{7}, 64)
	sealed, err := p.Seal(ctx, secret, []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.Seal(ctx, secret, []byte("aad"))
	if err != nil || bytes.Equal(again, sealed) {
		t.Fatalf("sealed alike twice, %v", err)
	}
	for range 8 { // on both members
		got, err := p.Open(ctx, sealed, []byte("aad"))
		if err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("Open: %x, %v", got, err)
		}
	}
	if _, err := p.Open(ctx, sealed, []byte("bad")); hsmpool.KindOf(err) != hsmpool.KindBadData {
		t.Errorf("Open with other aad: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := p.Open(ctx, bad, []byte("aad")); hsmpool.KindOf(err) != hsmpool.KindBadData {
			t.Errorf("Open with octet %d changed: %v", i, err)
		}
	}
	for _, n := range []int{0, 27, 93} {
		if _, err := p.Open(ctx, make([]byte, n), nil); hsmpool.KindOf(err) != hsmpool.KindBadData {
			t.Errorf("Open of %d octets: %v", n, err)
		}
	}
	if _, err := p.Seal(ctx, make([]byte, 65), nil); err == nil {
		t.Error("sealed 65 octets")
	}
}

// gcmJobs makes n encryptions of different texts.
func gcmJobs(k *hsmpool.Key, n int) []*hsmpool.Job {
	jobs := make([]*hsmpool.Job, n)
	for i := range jobs {
		jobs[i] = &hsmpool.Job{Op: hsmpool.EncryptGCM, Key: k, In: fmt.Appendf(nil, "text %d", i), Nonce: fmt.Appendf(nil, "%012d", i)}
	}
	return jobs
}

func testDoAll(t *testing.T, p *hsmpool.Pool) {
	ctx := testContext(t)
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	const n = 5000 // more than the queue holds
	jobs := gcmJobs(k, n)
	jobs[17].In = make([]byte, 1<<20)
	jobs[18].Key = nil
	p.DoAll(ctx, jobs)
	back := make([]*hsmpool.Job, 0, n)
	for i, j := range jobs {
		if i == 17 || i == 18 {
			if hsmpool.KindOf(j.Err) != hsmpool.KindInternal || j.Err == nil || j.Out != nil {
				t.Errorf("job %d: %v", i, j.Err)
			}
			continue
		}
		if j.Err != nil {
			t.Fatalf("job %d: %v", i, j.Err)
		}
		back = append(back, &hsmpool.Job{Op: hsmpool.DecryptGCM, Key: k, In: j.Out, Nonce: j.Nonce})
	}
	back[3].In = bytes.Clone(back[3].In)
	back[3].In[0] ^= 1
	p.DoAll(ctx, back)
	for i, j := range back {
		if i == 3 {
			if hsmpool.KindOf(j.Err) != hsmpool.KindBadData {
				t.Errorf("a changed ciphertext: %v", j.Err)
			}
		} else if j.Err != nil || !bytes.HasPrefix(j.Out, []byte("text ")) {
			t.Fatalf("job %d: %q, %v", i, j.Out, j.Err)
		}
	}
	var both uint64
	for _, s := range p.Status() {
		if s.Done > n/10 {
			both++
		}
	}
	if both != 2 {
		t.Errorf("the work was not shared out: %+v", p.Status())
	}
}

func testCancel(t *testing.T, p *hsmpool.Pool) {
	k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	j := gcmJobs(k, 1)[0]
	if err := p.Do(ctx, j); hsmpool.KindOf(err) != hsmpool.KindCanceled || !errors.Is(err, context.Canceled) {
		t.Errorf("a job whose caller had gone: %v", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := p.Generate(ctx, hsmpool.RSA4096, hsmpool.UseSign) // takes longer
	if hsmpool.KindOf(err) != hsmpool.KindUnavailable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a generation past its deadline: %v", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("it answered after %v", d)
	}
	// Others go on meanwhile.
	if err := p.Do(testContext(t), j); err != nil {
		t.Error(err)
	}
	jobs := gcmJobs(k, 3000)
	ctx2, cancel2 := context.WithCancel(context.Background())
	go cancel2()
	p.DoAll(ctx2, jobs)
	for i, j := range jobs {
		if (j.Err == nil) == (j.Out == nil) || j.Err != nil && hsmpool.KindOf(j.Err) != hsmpool.KindCanceled {
			t.Fatalf("job %d: %d octets, %v", i, len(j.Out), j.Err)
		}
	}
}

func testFull(t *testing.T, p *hsmpool.Pool) {
	release := hsmpool.Stall(p)
	k := &hsmpool.Key{ID: "never loaded", Type: hsmpool.AES256, Usage: hsmpool.UseEncrypt, Wrapped: make([]byte, 40)}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var full, canceled int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4096 + 300 {
		wg.Go(func() {
			err := p.Do(ctx, gcmJobs(k, 1)[0])
			mu.Lock()
			defer mu.Unlock()
			switch hsmpool.KindOf(err) {
			case hsmpool.KindFull:
				full++
				if full == 100 {
					cancel() // everybody else waits
				}
			case hsmpool.KindCanceled:
				canceled++
			default:
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	release()
	if full < 100 || canceled == 0 {
		t.Errorf("%d found the queue full, %d waited", full, canceled)
	}
	ok, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
	if err := roundTrip(testContext(t), p, ok, 3); err != nil {
		t.Error(err)
	}
}

// drained waits until what callers gave up has been taken and ended. That may be an RSA key of 4096 bits, which takes a second and now and then ten times
// as long.
func drained(t *testing.T, p *hsmpool.Pool) {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		waiting := 0
		for _, s := range p.Status() {
			waiting += s.Queue + s.InFlight
		}
		if waiting == 0 {
			return
		}
	}
	t.Error("jobs stay in the queue")
}

func testBadInput(t *testing.T, p *hsmpool.Pool) {
	aes := &hsmpool.Key{ID: "x", Type: hsmpool.AES256, Usage: hsmpool.UseEncrypt, Wrapped: make([]byte, 40)}
	with := func(f func(*hsmpool.Key)) *hsmpool.Key { k := *aes; f(&k); return &k }
	rsa := with(func(k *hsmpool.Key) { k.Type, k.Wrapped = hsmpool.RSA2048, make([]byte, 1232) })
	ec := with(func(k *hsmpool.Key) { k.Type, k.Usage = hsmpool.P256, hsmpool.UseSign })
	nonce := make([]byte, 12)
	var before [2]hsmpool.Status
	copy(before[:], p.Status())
	for name, c := range map[string]struct {
		job  hsmpool.Job
		kind hsmpool.Kind
	}{
		"no key":              {hsmpool.Job{Op: hsmpool.EncryptGCM, Nonce: nonce}, hsmpool.KindInternal},
		"no op":               {hsmpool.Job{Key: aes, Nonce: nonce}, hsmpool.KindInternal},
		"internal op":         {hsmpool.Job{Op: 64, Key: aes, Nonce: nonce}, hsmpool.KindInternal},
		"seal op":             {hsmpool.Job{Op: 69, Key: aes, Nonce: nonce}, hsmpool.KindInternal},
		"open op":             {hsmpool.Job{Op: 70, Key: aes, Nonce: nonce, In: make([]byte, 20)}, hsmpool.KindInternal},
		"import op":           {hsmpool.Job{Op: 72, Key: aes, Nonce: nonce}, hsmpool.KindInternal},
		"import pinned op":    {hsmpool.Job{Op: 73, Key: aes, Nonce: nonce}, hsmpool.KindInternal},
		"unwrapping AES":      {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: with(func(k *hsmpool.Key) { k.Usage = hsmpool.UseUnwrap }), Nonce: nonce}, hsmpool.KindInternal},
		"unwrapping and more": {hsmpool.Job{Op: hsmpool.DecryptOAEPSHA1, Key: with(func(k *hsmpool.Key) { k.Type, k.Usage, k.Wrapped = hsmpool.RSA2048, 5, make([]byte, 1232) }), In: make([]byte, 256)}, hsmpool.KindInternal},
		"unknown op":          {hsmpool.Job{Op: 200, Key: aes, Nonce: nonce}, hsmpool.KindInternal},
		"unknown type":        {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: with(func(k *hsmpool.Key) { k.Type = 99 }), Nonce: nonce}, hsmpool.KindInternal},
		"no usage":            {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: with(func(k *hsmpool.Key) { k.Usage = 0 }), Nonce: nonce}, hsmpool.KindInternal},
		"usage of no type":    {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: with(func(k *hsmpool.Key) { k.Usage = 3 }), Nonce: nonce}, hsmpool.KindInternal},
		"no ID":               {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: with(func(k *hsmpool.Key) { k.ID = "" }), Nonce: nonce}, hsmpool.KindInternal},
		"no wrapped":          {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: with(func(k *hsmpool.Key) { k.Wrapped = nil }), Nonce: nonce}, hsmpool.KindBadData},
		"odd wrapped":         {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: with(func(k *hsmpool.Key) { k.Wrapped = make([]byte, 41) }), Nonce: nonce}, hsmpool.KindBadData},
		"huge wrapped":        {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: with(func(k *hsmpool.Key) { k.Wrapped = make([]byte, 1<<20) }), Nonce: nonce}, hsmpool.KindBadData},
		"wrong wrapped":       {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: aes, Nonce: nonce}, hsmpool.KindBadData},
		"wrong wrapped RSA":   {hsmpool.Job{Op: hsmpool.DecryptOAEPSHA1, Key: rsa, In: make([]byte, 256)}, hsmpool.KindBadData},
		"unknown member":      {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: with(func(k *hsmpool.Key) { k.Member, k.ObjectID = "nobody", []byte("x") }), Nonce: nonce}, hsmpool.KindUnavailable},
		"pinned without ID":   {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: with(func(k *hsmpool.Key) { k.Member = "a" }), Nonce: nonce}, hsmpool.KindInternal},
		"pinned missing":      {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: with(func(k *hsmpool.Key) { k.Member, k.ObjectID = "a", []byte("x") }), Nonce: nonce}, hsmpool.KindKeyMissing},
		"no nonce":            {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: aes}, hsmpool.KindInternal},
		"long nonce":          {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: aes, Nonce: make([]byte, 257)}, hsmpool.KindInternal},
		"nonce where none is": {hsmpool.Job{Op: hsmpool.SignECDSA, Key: ec, In: make([]byte, 32), Nonce: nonce}, hsmpool.KindInternal},
		"long text":           {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: aes, Nonce: nonce, In: make([]byte, 64<<10+1)}, hsmpool.KindInternal},
		"long AAD":            {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: aes, Nonce: nonce, AAD: make([]byte, 64<<10+1)}, hsmpool.KindInternal},
		"short ciphertext":    {hsmpool.Job{Op: hsmpool.DecryptGCM, Key: aes, Nonce: nonce, In: make([]byte, 15)}, hsmpool.KindBadData},
		"long digest":         {hsmpool.Job{Op: hsmpool.SignECDSA, Key: ec, In: make([]byte, 65)}, hsmpool.KindInternal},
		"no digest":           {hsmpool.Job{Op: hsmpool.SignECDSA, Key: ec}, hsmpool.KindInternal},
		"short digest":        {hsmpool.Job{Op: hsmpool.SignPSSSHA256, Key: with(func(k *hsmpool.Key) { k.Type, k.Usage = hsmpool.RSA2048, 2 }), In: make([]byte, 31)}, hsmpool.KindInternal},
		"RSA op, AES key":     {hsmpool.Job{Op: hsmpool.DecryptOAEPSHA1, Key: aes, In: make([]byte, 256)}, hsmpool.KindInternal},
		"AES op, RSA key":     {hsmpool.Job{Op: hsmpool.EncryptGCM, Key: rsa, Nonce: nonce}, hsmpool.KindInternal},
		"sign with decrypter": {hsmpool.Job{Op: hsmpool.SignPSSSHA256, Key: rsa, In: make([]byte, 32)}, hsmpool.KindInternal},
		"OAEP length":         {hsmpool.Job{Op: hsmpool.DecryptOAEPSHA256, Key: rsa, In: make([]byte, 255)}, hsmpool.KindBadData},
	} {
		err := p.Do(testContext(t), &c.job)
		if err == nil || hsmpool.KindOf(err) != c.kind || c.job.Out != nil || c.job.Err != err {
			t.Errorf("%s: %v (kind %v)", name, err, hsmpool.KindOf(err))
		}
	}
	ctx := testContext(t)
	if _, err := p.Generate(ctx, hsmpool.P256, hsmpool.UseEncrypt); err == nil {
		t.Error("made an EC key that encrypts")
	}
	if _, err := p.Generate(ctx, 0, hsmpool.UseEncrypt); err == nil {
		t.Error("made a key of no type")
	}
	for _, id := range [][]byte{nil, make([]byte, 65)} {
		if _, err := p.GeneratePinned(ctx, hsmpool.AES256, hsmpool.UseEncrypt, id, "a"); err == nil {
			t.Error("made a pinned key with a bad ID")
		}
		if _, err := p.DestroyPinned(ctx, "a", id); err == nil {
			t.Error("destroyed by a bad ID") // an empty one would fit every object
		}
	}
	if _, err := p.DestroyPinned(ctx, "nobody", []byte("x")); err == nil {
		t.Error("destroyed on no member")
	}
}

// testCache bounds the cache to 8 keys and uses 40, by many at once.
func testCache(t *testing.T, p *hsmpool.Pool) {
	ctx := testContext(t)
	for _, m := range []string{"a", "b"} {
		if err := hsmpool.SetCachedKeys(p, m, 8); err != nil {
			t.Fatal(err)
		}
		defer hsmpool.SetCachedKeys(p, m, 4096)
	}
	var keys []*hsmpool.Key
	for i := range 40 {
		k, _ := wrappedKey(t, p, hsmpool.AES256, hsmpool.UseEncrypt)
		k.ID += fmt.Sprint(i)
		keys = append(keys, k)
	}
	objects := func() int {
		n, err := hsmpool.SessionKeys(p, "a")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 100 {
				if err := roundTrip(ctx, p, keys[(i*7+j)%len(keys)], 1); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, s := range p.Status() {
		if s.Keys > 8 {
			t.Errorf("%d keys loaded on %s", s.Keys, s.Name)
		}
	}
	if n := objects(); n > 8 {
		t.Errorf("%d session objects for 8 cached keys", n)
	}
}

// testStampede uses a new key from many callers at once: it is loaded once per member.
func testStampede(t *testing.T, p *hsmpool.Pool) {
	for range 5 {
		k, _ := wrappedKey(t, p, hsmpool.RSA2048, hsmpool.UseSign)
		k.ID += fmt.Sprint(importCount())
		before, err := hsmpool.SessionKeys(p, "a")
		if err != nil {
			t.Fatal(err)
		}
		jobs := make([]*hsmpool.Job, 64)
		for i := range jobs {
			jobs[i] = &hsmpool.Job{Op: hsmpool.SignPSSSHA256, Key: k, In: make([]byte, 32)}
		}
		p.DoAll(testContext(t), jobs)
		for _, j := range jobs {
			if j.Err != nil {
				t.Fatal(j.Err)
			}
		}
		// What the pool makes and destroys by itself, such as a probe, may be there for a moment.
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			after, err := hsmpool.SessionKeys(p, "a")
			if err == nil && after <= before+1 {
				break
			}
			if err != nil || time.Now().After(end) {
				t.Fatalf("%d session objects before, %d after, %v", before, after, err)
			}
		}
	}
}
