package hsmpool

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"
)

// module is the one owner of a PKCS#11 library in this process. Several members may share it.
//
// crypto11 calls C_Initialize when the first member attaches and C_Finalize when the last one detaches; ctx and fns are
// the same library seen by the miekg binding and by our hot path, which must do neither. So a library is started again
// by all its members detaching, and that is what makes SoftHSM see a token that was not there when it started.
//
// What is known of crypto11 and kept in mind here: it gives a session back to its pool whatever happened to it, so after
// an error its context is replaced and not used on; its pool waits without end unless told otherwise; it panics for a
// token with one session; one slot that fails hides the tokens behind it; it knows no secp256k1. It is told that login is not
// supported: the login belongs to our anchor session (it is one for the whole process), and the PIN never gets into its
// configuration.
type module struct {
	path   string
	alone  bool        // nobody but one worker uses it in this process
	ctx    *pkcs11.Ctx // never initialises or finalises; stays loaded until the process ends
	fns    functions
	quirks *quirks // known after the first attach; guarded by mu

	mu sync.Mutex // serialises attach and detach

	workersMu sync.Mutex
	workers   []*tokenWorker // logged in; guarded by workersMu

	restartMu   sync.Mutex // held during a restart; taken before any worker's gate
	restarted   time.Time
	restartWait time.Duration
}

var (
	modulesMu sync.Mutex
	modules   = map[string]*module{}
)

// aWorkerProcess says that this process is there for one worker.
var aWorkerProcess atomic.Bool

// openModule loads the library at path, once.
func openModule(path string) (*module, error) {
	if strings.Contains(path, "/") {
		// crypto11 counts by path: two spellings would be initialised twice.
		full, err := filepath.Abs(path)
		if err == nil {
			full, err = filepath.EvalSymlinks(full)
		}
		if err != nil {
			return nil, errorf(KindUnavailable, fateDown, "the PKCS#11 library %s can't be opened: %v", path, err)
		}
		path = full
	}
	modulesMu.Lock()
	defer modulesMu.Unlock()
	if m := modules[path]; m != nil {
		return m, nil
	}
	ctx := pkcs11.New(path)
	fns, ok := openFunctions(path)
	if ctx == nil || !ok {
		if ctx != nil {
			ctx.Destroy()
		}
		return nil, errorf(KindUnavailable, fateDown, "%s is no PKCS#11 library that can be loaded", path)
	}
	m := &module{path: path, alone: aWorkerProcess.Load(), ctx: ctx, fns: fns, quirks: noQuirks}
	modules[path] = m
	return m, nil
}

// attachment is a member's hold on a module, and where its token is for as long as it holds.
type attachment struct {
	mod    *module
	c11    *crypto11.Context // nil: the token has one session, and crypto11 can't do with one
	slot   uint
	info   pkcs11.TokenInfo
	quirks *quirks
}

// crypto11Wait bounds how long crypto11 may wait for its one session.
const crypto11Wait = 30 * time.Second

// attach starts the library if nobody has, and finds the token.
func (m *module) attach(cfg *MemberConfig) (a *attachment, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c11, err := m.find(cfg)
	if err != nil && err != errOneSession {
		return nil, &Error{Kind: KindUnavailable, fate: fateDown, Err: err,
			Detail: fmt.Sprintf("no token with %s in %s: insert or initialise it, or correct the configuration", cfg.token(), m.path)}
	}
	defer func() {
		if err != nil && c11 != nil {
			c11.Close()
		}
	}()
	info, err := m.ctx.GetInfo()
	if err != nil {
		return nil, m.quirks.fail(err, fnOther, stageOther, "C_GetInfo")
	}
	m.quirks = quirksOf(info.ManufacturerID)
	a = &attachment{mod: m, c11: c11, quirks: m.quirks}
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return nil, m.quirks.fail(err, fnOther, stageOther, "C_GetSlotList")
	}
	found := 0
	for _, slot := range slots {
		ti, err := m.ctx.GetTokenInfo(slot)
		if err != nil {
			continue // another token's trouble
		}
		if cfg.TokenLabel != "" && ti.Label == cfg.TokenLabel || cfg.TokenSerial != "" && ti.SerialNumber == cfg.TokenSerial {
			a.slot, a.info = slot, ti
			found++
		}
	}
	if found != 1 {
		return nil, errorf(KindUnavailable, fateOperator, "%d tokens with %s in %s: name it by serial", found, cfg.token(), m.path)
	}
	return a, nil
}

// findTries is how often a token is looked for, with findPause between. One slot that fails hides the tokens behind it, and a SoftHSM
// token fails for a moment while another process logs in to it.
const (
	findTries = 3
	findPause = 30 * time.Millisecond
)

// find has crypto11 start the library if nobody has, and find the token.
func (m *module) find(cfg *MemberConfig) (c11 *crypto11.Context, err error) {
	for try := range findTries {
		if try > 0 {
			time.Sleep(findPause)
		}
		c11, err = configure(&crypto11.Config{
			Path:              m.path,
			TokenLabel:        cfg.TokenLabel,
			TokenSerial:       cfg.TokenSerial,
			LoginNotSupported: true,
			MaxSessions:       2, // the one it keeps, and one to work in
			PoolWaitTimeout:   crypto11Wait,
		})
		if err == nil || err == errOneSession {
			break
		}
	}
	return c11, err
}

// detach lets go. Sessions of ours must be closed and no call may be on its way.
func (a *attachment) detach() {
	a.mod.mu.Lock()
	defer a.mod.mu.Unlock()
	if a.c11 != nil {
		a.c11.Close() // always nil
	}
}

// reattach replaces crypto11's context, whose sessions may be dead. The new one comes first, so that the library is not
// finalised in between; if that fails, the old one goes first. After an error nothing is held.
func (a *attachment) reattach(cfg *MemberConfig) error {
	b, err := a.mod.attach(cfg)
	a.detach()
	if err != nil {
		if b, err = a.mod.attach(cfg); err != nil {
			return err
		}
	}
	*a = *b
	return nil
}

// join and quit keep the list of workers that are logged in, for restart.
func (m *module) join(w *tokenWorker) {
	m.workersMu.Lock()
	defer m.workersMu.Unlock()
	m.workers = append(m.workers, w)
}

func (m *module) quit(w *tokenWorker) {
	m.workersMu.Lock()
	defer m.workersMu.Unlock()
	m.workers = slices.DeleteFunc(m.workers, func(x *tokenWorker) bool { return x == w })
}

// Between two restarts for a token that is not found lies at least the first, then twice as long each time that it did not
// help, up to the last.
const (
	restartFirst = time.Second
	restartLast  = 5 * time.Minute
)

// restart finalises and initialises the library under all members that work, for a module that never looks again at
// tokens that it did not find or lost (SoftHSM). They log in again and load their keys again; their tasks wait so long, a
// few milliseconds. It says whether it did that. A worker process of its own for each member needs none of this.
func (m *module) restart() bool {
	m.restartMu.Lock()
	defer m.restartMu.Unlock()
	m.mu.Lock()
	forgetful := m.quirks.forgetful
	m.mu.Unlock()
	if !forgetful || time.Since(m.restarted) < m.restartWait {
		return false
	}
	m.workersMu.Lock()
	workers := slices.Clone(m.workers)
	m.workersMu.Unlock()
	if len(workers) == 0 {
		return false // nobody held it, so it has just been started
	}
	m.restarted = time.Now()
	m.restartWait = min(max(2*m.restartWait, restartFirst), restartLast)
	for i, w := range workers {
		if !w.gate.lock(time.Second) {
			for _, locked := range workers[:i] {
				locked.gate.unlock()
			}
			return false
		}
	}
	groups := make([]string, len(workers)) // empty: it was closed meanwhile
	for i, w := range workers {
		if w.login != nil {
			groups[i] = w.login.group
			w.closeLocked()
		}
	}
	for i, w := range workers {
		if groups[i] != "" {
			// A member that fails here is closed: its next task finds out, and its supervisor has it from there.
			a, err := m.attach(w.cfg)
			if err == nil {
				if err = w.begin(a, groups[i]); err == nil {
					m.join(w)
				} else {
					a.detach()
				}
			}
			if err != nil {
				w.lost = down(noQuirks.fail(err, fnOther, stageOther, "start the library again"))
			}
		}
		w.gate.unlock()
	}
	return true
}

// restartHelped makes the next restart wait as little as the first: it is no longer the same trouble.
func (m *module) restartHelped() {
	m.restartMu.Lock()
	defer m.restartMu.Unlock()
	m.restartWait = restartFirst
}

// errOneSession says that crypto11 has initialised the library and found the token, and can't go on.
var errOneSession = errors.New("the token has one session")

// configure is crypto11.Configure without its panic for tokens that allow a single session. It leaves a reference to the library
// behind then, so that it stays initialised until the process ends.
func configure(c *crypto11.Config) (ctx *crypto11.Context, err error) {
	defer func() {
		if recover() != nil {
			ctx, err = nil, errOneSession
		}
	}()
	return crypto11.Configure(c)
}

func (c *MemberConfig) token() string {
	if c.TokenLabel != "" {
		return fmt.Sprintf("label %q", c.TokenLabel)
	}
	return fmt.Sprintf("serial %q", c.TokenSerial)
}
