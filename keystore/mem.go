package keystore

import (
	"context"
	"slices"
	"strings"
	"sync"
)

// Mem is a Store in memory, for tests and trials. The zero value is an empty store.
type Mem struct {
	mu       sync.RWMutex // over everything below except watchers, which has its own
	closed   bool
	revision uint64 // of the last commit
	records  skipList
	watchers Watchers
}

// NewMem returns an empty store.
func NewMem() *Mem { return &Mem{} }

// Get implements Store.
func (m *Mem) Get(ctx context.Context, name string) (Record, error) {
	if err := ctx.Err(); err != nil {
		return Record{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return Record{}, ErrClosed
	}
	n := m.records.find(name)
	if n == nil {
		return Record{}, ErrNotFound
	}
	return n.copy(), nil
}

// Scan implements Store.
func (m *Mem) Scan(ctx context.Context, prefix, after string, limit int) ([]Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, ErrClosed
	}
	var found []Record
	for n := m.records.seek(max(prefix, after)); n != nil && len(found) < limit; n = n.next[0] {
		if n.record.Name == after {
			continue
		}
		if !strings.HasPrefix(n.record.Name, prefix) {
			break
		}
		found = append(found, n.copy())
	}
	return found, nil
}

// Commit implements Store. It is as durable as the process.
func (m *Mem) Commit(ctx context.Context, tx Txn) error {
	if err := tx.Validate(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	for _, c := range tx.Checks {
		var have uint64
		if n := m.records.find(c.Name); n != nil {
			have = n.record.Revision
		}
		if have != c.Revision {
			return ErrConflict
		}
	}
	m.revision++
	for _, p := range tx.Puts {
		m.records.put(Record{Name: p.Name, Value: slices.Clone(p.Value), Revision: m.revision})
	}
	for _, d := range tx.Deletes {
		m.records.remove(d)
	}
	m.watchers.Committed(tx)
	return nil
}

// Watch implements Store.
func (m *Mem) Watch(ctx context.Context, prefix string) (<-chan Event, error) {
	return m.watchers.Watch(ctx, prefix)
}

// Close implements Store. The records are gone.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.closed = true
	m.records = skipList{}
	m.watchers.Close()
	return nil
}
