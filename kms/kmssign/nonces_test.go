package kmssign

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// signed makes a request with a nonce, signed at a time.
func signedAt(t *testing.T, key, nonce string, at time.Time) func(*Verifier) Code {
	t.Helper()
	r := newRequest(t, "GET", "/?Action=Encrypt&Version=2016-01-20", "")
	s := Signing{AccessKeyID: key, Secret: testSecret, Nonce: nonce, Time: at}
	if err := SignACS3(r, s); err != nil {
		t.Fatal(err)
	}
	return func(v *Verifier) Code { t.Helper(); return codeOf(t, verify(t, v, r)) }
}

// TestReplay sends a request again at every moment when it could be taken: once is all.
func TestReplay(t *testing.T) {
	for _, ahead := range []time.Duration{0, MaxSkew} {
		v, c := newTestVerifier(testTime)
		request := signedAt(t, "testid", "n", testTime.Add(ahead))
		if code := request(v); code != "" {
			t.Fatal(code)
		}
		for range 200 {
			if code := request(v); code != NonceUsed && code != ExpiredTimestamp {
				t.Fatalf("%v after it was signed: %q", c.t.Sub(testTime.Add(ahead)), code)
			}
			c.t = c.t.Add(17 * time.Second)
		}
	}
}

// TestNonceOfOthers lets another access key have the same nonce, and one key not with another time.
func TestNonceOfOthers(t *testing.T) {
	v, c := newTestVerifier(testTime)
	c.t = c.t.Add(time.Minute)
	if code := signedAt(t, "testid", "n", testTime)(v); code != "" {
		t.Fatal(code)
	}
	if code := signedAt(t, "other", "n", testTime)(v); code != "" {
		t.Errorf("another access key's nonce: %q", code)
	}
	for range 2 * 15 {
		if code := signedAt(t, "testid", "n", c.t)(v); code != NonceUsed {
			t.Fatalf("a used nonce, signed anew at %v: %q", c.t, code)
		}
		c.t = c.t.Add(time.Minute)
	}
}

// TestNonceOnlyIfRight remembers no nonce of a request that was not signed by the key's owner, or whose key is disabled.
func TestNonceOnlyIfRight(t *testing.T) {
	v, _ := newTestVerifier(testTime)
	r := newRequest(t, "GET", "/?Action=Encrypt&Version=2016-01-20", "")
	if err := SignACS3(r, Signing{AccessKeyID: "testid", Secret: []byte("guess"), Nonce: "n", Time: testTime}); err != nil {
		t.Fatal(err)
	}
	if code := codeOf(t, verify(t, v, r)); code != SignatureDoesNotMatch {
		t.Fatal(code)
	}
	if code := signedAt(t, "off", "n", testTime)(v); code != DisabledAccessKey {
		t.Fatal(code)
	}
	if n := v.nonces.spans[0].total; n != 0 {
		t.Errorf("%d nonces are remembered", n)
	}
	if code := signedAt(t, "testid", "n", testTime)(v); code != "" {
		t.Errorf("the owner is refused: %q", code)
	}
}

// TestRestart refuses after a restart what was taken before it.
func TestRestart(t *testing.T) {
	v, c := newTestVerifier(testTime)
	request := signedAt(t, "testid", "n", testTime)
	if code := request(v); code != "" {
		t.Fatal(code)
	}
	c.t = c.t.Add(300 * time.Millisecond) // in the same second
	v = NewVerifier(Options{Now: c.now})
	if code := request(v); code != TryAgain {
		t.Errorf("after a restart: %q", code)
	}
	c.t = c.t.Add(time.Second)
	if code := signedAt(t, "testid", "n2", c.t)(v); code != "" {
		t.Errorf("a new one: %q", code)
	}
}

// TestClockSetBack refuses what is forgotten and would not be expired any more.
func TestClockSetBack(t *testing.T) {
	start := time.Now() // with a monotonic reading
	n := newNonces(start, 1000)
	if err := n.use("k", "n", start.Add(time.Minute), start); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := n.use("k", fmt.Sprint(i), start.Add(time.Duration(i+1)*noncePeriod), start.Add(time.Duration(i+1)*noncePeriod)); err != nil {
			t.Fatal(err)
		}
	}
	if code := codeOf(t, n.use("k", "n", start.Add(time.Minute), start.Add(5*noncePeriod))); code != TryAgain {
		t.Errorf("%q", code)
	}
	// A long silence forgets all at once.
	if err := n.use("k", "late", start.Add(100*noncePeriod), start.Add(100*noncePeriod)); err != nil {
		t.Fatal(err)
	}
	if code := codeOf(t, n.use("k", "4", start.Add(5*noncePeriod), start.Add(100*noncePeriod))); code != TryAgain {
		t.Errorf("%q", code)
	}
}

// TestNoncesFull refuses when there is no room, one key never at the cost of another, and has room again later.
func TestNoncesFull(t *testing.T) {
	const most = 4 * minNonces
	n := newNonces(testTime, most)
	fill := func(key string) (taken int) {
		for i := range 2 * most {
			if err := n.use(key, fmt.Sprint(i), testTime, testTime); err != nil {
				if code := codeOf(t, err); code != TooManyRequests {
					t.Fatal(code)
				}
				return taken
			}
			taken++
		}
		return taken
	}
	if got := fill("greedy"); got != most/2 {
		t.Errorf("one key has %d of %d", got, most)
	}
	if got := fill("greedy too"); got != most/2 {
		t.Errorf("the second has %d", got)
	}
	if got := fill("late"); got != minNonces {
		t.Errorf("one that came late has %d, it always gets %d", got, minNonces)
	}
	if code := codeOf(t, n.use("greedy", "0", testTime, testTime)); code != NonceUsed {
		t.Errorf("a full cache has forgotten: %q", code)
	}
	later := testTime.Add(nonceSpans * noncePeriod)
	if err := n.use("greedy", "new", later, later); err != nil {
		t.Error(err)
	}
	if len(n.spans[1].used)+len(n.spans[2].used) != 0 {
		t.Error("what is forgotten is still kept")
	}
}

// TestNonceRace lets one of many take a nonce.
func TestNonceRace(t *testing.T) {
	v, _ := newTestVerifier(testTime)
	request := signedAt(t, "testid", strings.Repeat("n", 100_000), testTime)
	var taken atomic.Int32
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if request(v) == "" {
				taken.Add(1)
			}
		})
	}
	all.Wait()
	if taken.Load() != 1 {
		t.Errorf("%d requests had the same nonce", taken.Load())
	}
}
