package kms

import (
	"cmp"
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyward/keyward/keystore"
	"github.com/keyward/keyward/kms/kmswire"
)

// The types of association.
const (
	serviceAssociation = "Service" // a declared service
	programAssociation = "Program" // any other caller
)

// checksAtOnce is how many checks share one flush of the ledger.
const checksAtOnce = 64

// checkWait bounds one round of checks.
const checkWait = 30 * time.Second

// associationChecks are the checks that are under way in this process. One that a record calls so and that is not here was
// cut off with the process that began it.
type associationChecks struct {
	mu      sync.Mutex
	running map[string]*keystore.AssociationCheck // by key
	queue   []*keystore.AssociationCheck          // of running: what no round has taken yet
}

// begin makes a check of a key, or gives the one that is under way.
func (a *associationChecks) begin(keyID string, now time.Time) (check *keystore.AssociationCheck, made bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if check := a.running[keyID]; check != nil {
		return check, false
	}
	check = &keystore.AssociationCheck{ID: "chk-" + newID(20), KeyID: keyID, Status: string(kmswire.CheckRunning), Started: now.UTC()}
	if a.running == nil {
		a.running = map[string]*keystore.AssociationCheck{}
	}
	a.running[keyID] = check
	return check, true
}

func (a *associationChecks) enqueue(check *keystore.AssociationCheck) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.queue = append(a.queue, check)
}

// take gives the checks of the next round, and whether there are more.
func (a *associationChecks) take() (round []*keystore.AssociationCheck, more bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := min(len(a.queue), checksAtOnce)
	round = slices.Clone(a.queue[:n])
	a.queue = slices.Delete(a.queue, 0, n)
	return round, len(a.queue) > 0
}

func (a *associationChecks) end(check *keystore.AssociationCheck) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.running, check.KeyID)
}

// of gives the check of a key that is under way, nil if none is.
func (a *associationChecks) of(keyID string) *keystore.AssociationCheck {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.running[keyID]
}

// watchUse saves the ledger now and then and does the checks, until ctx ends.
func (s *Service) watchUse(ctx context.Context) {
	tick := time.NewTicker(ledgerEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.ledger.wake:
		}
		s.checkRound(ctx)
	}
}

// saveUse saves the ledger for the last time.
func (s *Service) saveUse() {
	ctx, cancel := context.WithTimeout(context.Background(), ledgerLastWait)
	defer cancel()
	if err := s.ledger.flush(ctx); err != nil {
		s.log.Error().Err(err).Msg("who used which key since the ledger was last saved is lost; it is in the audit only")
	}
}

// checkRound saves the ledger and ends the checks that waited for that.
func (s *Service) checkRound(ctx context.Context) {
	round, more := s.checks.take()
	ctx, cancel := context.WithTimeout(ctx, checkWait)
	defer cancel()
	err := s.ledger.flush(ctx)
	for _, check := range round {
		s.endCheck(ctx, check, err)
	}
	if more {
		s.ledger.poke()
	}
}

// endCheck ends a check whose ledger was saved, or could not be: flushed says why.
func (s *Service) endCheck(ctx context.Context, check *keystore.AssociationCheck, flushed error) {
	defer s.checks.end(check)
	err := flushed
	if err == nil {
		err = s.lookAtUse(ctx, check.KeyID)
	}
	now := s.now().UTC()
	ended := *check
	ended.Status, ended.Ended = string(kmswire.CheckSucceeded), &now
	if err != nil {
		ended.Status = string(kmswire.CheckFailed)
		s.log.Warn().Err(err).Str("key", check.KeyID).Msg("a check of who uses a key failed")
	}
	err = s.store.Change().PutAssociationCheck(&ended).Commit(ctx)
	if err != nil && !errors.Is(err, keystore.ErrConflict) { // ErrConflict: the key is gone, and nobody asks any more
		s.log.Warn().Err(err).Str("key", check.KeyID).Msg("the end of a check of who uses a key could not be saved, so it counts as failed")
	}
}

// lookAtUse reads all that is known of a key's callers, so that a check does not succeed whose result can't be shown, and
// forgets those that were not there for long.
func (s *Service) lookAtUse(ctx context.Context, keyID string) error {
	all, err := s.store.Usage(ctx, keyID, ledgerCallers+1)
	if err != nil {
		return err
	}
	ch, old := s.store.Change(), 0
	for _, u := range all {
		if s.now().Sub(u.Last) > usageKept {
			ch.DropUsage(u)
			old++
		}
	}
	if old == 0 {
		return nil
	}
	return ch.Commit(ctx)
}

// StartKeyAssociationCheck starts to look up who uses a key. It is over within seconds; ListKeyAssociations tells. While one
// check of a key is under way, another start gives that one.
func (s *Service) StartKeyAssociationCheck(ctx context.Context, actor *Actor, req *kmswire.StartKeyAssociationCheckRequest) (*kmswire.StartKeyAssociationCheckResponse, error) {
	return audited(s, ctx, actor, actStartKeyAssociationCheck, false, func(c *call) (*kmswire.StartKeyAssociationCheckResponse, error) {
		g, err := c.authorizeRef(req.KeyID)
		if err != nil {
			return nil, err
		}
		check, made := s.checks.begin(g.key.ID, s.now())
		if made {
			if err := s.store.Change().PutAssociationCheck(check).Commit(ctx); err != nil {
				s.checks.end(check)
				if errors.Is(err, keystore.ErrConflict) {
					return nil, keyNotFound(g.key.ID)
				}
				return nil, storeError(err)
			}
			s.checks.enqueue(check)
			s.ledger.poke()
		}
		c.event.Detail = check.ID
		return &kmswire.StartKeyAssociationCheckResponse{CheckID: check.ID, CheckStatus: kmswire.CheckRunning}, nil
	})
}

// ListKeyAssociations lists who uses a key, the last one first: a row for each declared service, and one for each other
// program. What was used after the last check is there as far as it is saved, and when there was no check, CheckId and
// CheckStatus are empty.
func (s *Service) ListKeyAssociations(ctx context.Context, actor *Actor, req *kmswire.ListKeyAssociationsRequest) (*kmswire.ListKeyAssociationsResponse, error) {
	return audited(s, ctx, actor, actListKeyAssociations, false, func(c *call) (*kmswire.ListKeyAssociationsResponse, error) {
		offset, limit, paged, err := page(req.Page)
		if err != nil {
			return nil, err
		}
		g, err := c.authorizeRef(req.KeyID)
		if err != nil {
			return nil, err
		}
		out := &kmswire.ListKeyAssociationsResponse{Paged: paged}
		// The check first: what it found is then there.
		if err := s.lastCheck(ctx, g.key.ID, out); err != nil {
			return nil, err
		}
		used, err := s.store.Usage(ctx, g.key.ID, ledgerCallers+1)
		if err != nil {
			return nil, storeError(err)
		}
		rows := s.associations(actor, g.key, used)
		out.TotalCount = len(rows)
		out.Associations.Association = rows[min(offset, len(rows)):min(offset+limit, len(rows))]
		return out, nil
	})
}

// lastCheck fills in what became of the last check.
func (s *Service) lastCheck(ctx context.Context, keyID string, out *kmswire.ListKeyAssociationsResponse) error {
	check, err := s.findCheck(ctx, keyID)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil
	} else if err != nil {
		return storeError(err)
	}
	out.CheckID, out.CheckStatus, out.CheckTime = check.ID, kmswire.CheckStatus(check.Status), formatTime(check.Started)
	if check.Ended != nil {
		out.CheckTime = formatTime(*check.Ended)
	}
	return nil
}

// findCheck reads the last check of a key. One that the store calls running and that is not here was cut off, and failed.
func (s *Service) findCheck(ctx context.Context, keyID string) (*keystore.AssociationCheck, error) {
	cutOff := ""
	for {
		check, err := s.store.AssociationCheck(ctx, keyID)
		if running := s.checks.of(keyID); running != nil {
			return running, nil
		}
		if err != nil || check.Status != string(kmswire.CheckRunning) {
			return check, err
		}
		// Its end may have come in between, which is in the store before it is gone from here.
		if check.ID == cutOff {
			check.Status = string(kmswire.CheckFailed)
			return check, nil
		}
		cutOff = check.ID
	}
}

// associations words a key's callers for an actor. One of another account than the key's owner sees only its own account's
// callers, and nothing of the appliance's programs.
func (s *Service) associations(actor *Actor, k *keystore.Key, used []*keystore.Usage) []kmswire.KeyAssociation {
	owner := actor.Account == k.Account
	now := s.now()
	services := map[string]*keystore.Usage{} // by code
	var shown []*keystore.Usage
	for _, u := range used {
		if !owner && accountOf(u.Principal) != actor.Account || now.Sub(u.Last) > usageKept {
			continue
		}
		if u.Service == "" {
			shown = append(shown, u)
			continue
		}
		sum := services[u.Service]
		if sum == nil {
			first := *u
			services[u.Service] = &first
			shown = append(shown, &first)
			continue
		}
		sum.Calls += u.Calls
		if u.First.Before(sum.First) {
			sum.First = u.First
		}
		if u.Last.After(sum.Last) {
			sum.Last, sum.Principal, sum.Door = u.Last, u.Principal, u.Door
		}
	}
	slices.SortFunc(shown, func(a, b *keystore.Usage) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Caller, b.Caller))
	})
	rows := make([]kmswire.KeyAssociation, len(shown))
	for i, u := range shown {
		row := &rows[i]
		*row = kmswire.KeyAssociation{PrincipalArn: u.Principal, Door: u.Door, FirstCalledAt: formatTime(u.First), Calls: int(u.Calls)}
		if now.Sub(u.Last) <= usageShown {
			row.LastCalledAt = formatTime(u.Last)
		}
		if u.Service != "" {
			row.ServiceType, row.ServiceName = serviceAssociation, u.Service
			if d, ok := s.serviceNamed(u.Service); ok {
				row.ServiceName, row.ServiceEntry = d.Name, d.Entry
			}
			continue
		}
		row.ServiceType, row.ServiceName = programAssociation, principalName(u.Principal)
		if owner {
			row.ServiceName, row.Unit, row.Executable = programName(u), u.Unit, u.Executable
			if u.UID != nil {
				uid := int(*u.UID)
				row.UID = &uid
			}
		}
	}
	return rows
}

// programName is what a person would call a caller.
func programName(u *keystore.Usage) string {
	switch {
	case u.Caller == keystore.OtherCallers:
		return keystore.OtherCallers
	case u.Unit != "":
		return u.Unit
	case strings.HasPrefix(u.Executable, "/"):
		return path.Base(u.Executable)
	case u.Executable != "":
		return u.Executable
	}
	return principalName(u.Principal)
}

// principalName is the last part of a principal's ARN: root, user/x or role/x.
func principalName(principal string) string {
	return principal[strings.LastIndexByte(principal, ':')+1:]
}

// accountOf is the account in a principal's ARN, "" if there is none.
func accountOf(principal string) string {
	rest, ok := strings.CutPrefix(principal, "acs:ram::")
	account, _, found := strings.Cut(rest, ":")
	if !ok || !found {
		return ""
	}
	return account
}
