package kms

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/hsmpool"
	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/turns"
)

// Config is what a Service is made of.
type Config struct {
	Store     *keystore.DB       // closed by the caller, after the Service
	Pool      *hsmpool.Pool      // closed by the caller, after the Service
	Region    string             // the <region> of ARNs
	Account   string             // the first account: the owner of instances that name none
	Accounts  []string           // all accounts; empty: Account alone
	Instances []Instance         // see also SetInstances
	Services  []ServicePrincipal // see also SetServices
	Audit     Auditor
	Log       zerolog.Logger
	Now       func() time.Time     // wall clock; nil: time.Now
	Boot      func() time.Duration // a clock that nobody sets; nil: the time since the machine started
	Built     time.Time            // a wall clock before it is wrong; zero: not known
	// Tick drives the schedule of what the Service does by itself. nil: it looks every minute, and when something is due.
	// Else it looks when a value is sent, and sends one back when it has done all that was due.
	Tick chan struct{}
}

// Service is the key management service. All its methods may be called at the same time.
type Service struct {
	store     *keystore.DB
	pool      *hsmpool.Pool
	region    string
	account   string
	accounts  []string
	instances atomic.Pointer[instanceTable]
	external  atomic.Pointer[map[string]ExternalKeys] // by instance
	uptime    func() time.Duration                    // how long the Service has been there; it never goes back
	audit     Auditor
	log       zerolog.Logger
	now       func() time.Time
	materials *materialCache
	policies  *compiled
	clock     *clock
	schedule  *schedule
	services  atomic.Pointer[serviceTable]
	ledger    *ledger
	checks    associationChecks
	tokens    *tokenKeys
	pins      *turns.Turns[string] // by principal

	stop context.CancelFunc // ends what runs in the background
	done sync.WaitGroup     // the schedule, and what saves the ledger
}

// New makes a Service. Work that an earlier process left unfinished is undone first; what can't be undone yet, because
// an HSM is away, is tried again in the background until Close. So is all that the Service does by itself: see schedule.
func New(ctx context.Context, c Config) (*Service, error) {
	if err := validInstances(c.Account, c.Instances); err != nil {
		return nil, err
	}
	if len(c.Accounts) == 0 {
		c.Accounts = []string{c.Account}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Boot == nil {
		c.Boot = bootTime
	}
	clock, err := newClock(ctx, &c)
	if err != nil {
		return nil, err
	}
	tokens, err := newTokenKeys(c.Store)
	if err != nil {
		return nil, err
	}
	s := &Service{
		tokens: tokens, pins: turns.New[string](pinsAtOnce), store: c.Store, pool: c.Pool, region: c.Region, account: c.Account, accounts: c.Accounts,
		audit: c.Audit, log: c.Log, now: c.Now, policies: newCompiled(), clock: clock, schedule: newSchedule(&c),
	}
	begin := time.Now()
	s.uptime = func() time.Duration { return time.Since(begin) }
	s.SetInstances(c.Instances)
	s.SetExternal(nil)
	s.materials = newMaterialCache(s.load)
	s.SetServices(c.Services)
	s.ledger = newLedger(c.Store, s.services.Load, c.Log)
	if err := s.recover(ctx); err != nil {
		return nil, err
	}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.done.Go(func() { s.keep(background) })
	s.done.Go(func() { s.watchUse(background) })
	return s, nil
}

// Close ends what runs in the background, saves the ledger, and wipes open key material. Calls must have ended.
func (s *Service) Close() {
	s.stop()
	s.done.Wait()
	s.saveUse()
	s.materials.close()
}

// storeError renders an error of the store for the caller. ErrNotFound and ErrConflict mean something else at each place
// and are looked at there first.
func storeError(err error) error {
	var known *Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, keystore.ErrFull):
		return &Error{Code: StoreUnavailable, Detail: "the disk is full and nothing was changed; free some space and try again", Err: err}
	case errors.Is(err, keystore.ErrReadOnly):
		return &Error{Code: StoreUnavailable, Detail: "the store is read-only and nothing was changed; keywardctl status says why", Err: err}
	case errors.Is(err, keystore.ErrDamaged):
		return &Error{Code: KeyUnavailable, Detail: "a record failed its integrity check; restore it from a backup", Err: err}
	case errors.Is(err, keystore.ErrConflict):
		return &Error{Code: Throttled, Detail: "somebody else changed the same thing at the same time; try again", Err: err}
	case errors.Is(err, keystore.ErrClosed):
		return &Error{Code: StoreUnavailable, Detail: "keyward is stopping", Err: err}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: Canceled, Err: err}
	}
	return &Error{Code: Internal, Err: err}
}

// poolError renders an error of the HSM pool for the caller. bad is what KindBadData means here.
func poolError(err error, bad *Error) error {
	var e *hsmpool.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return &Error{Code: Canceled, Err: err}
		}
		return &Error{Code: Internal, Err: err}
	}
	switch e.Kind {
	case hsmpool.KindBadData:
		if bad != nil {
			return bad
		}
	case hsmpool.KindUnsupported:
		return &Error{Code: UnsupportedOperation, Detail: "no HSM here can do this", Err: err}
	case hsmpool.KindUnavailable:
		return &Error{Code: HSMUnavailable, Detail: "no HSM could serve the call in time; try again", Err: err}
	case hsmpool.KindFull:
		return &Error{Code: Throttled, Detail: "the HSM queue is full; try again", Err: err}
	case hsmpool.KindKeyMissing:
		return &Error{Code: KeyUnavailable, Detail: "the key is not in its HSM", Err: err}
	case hsmpool.KindCanceled:
		return &Error{Code: Canceled, Err: err}
	}
	return &Error{Code: Internal, Err: err}
}
