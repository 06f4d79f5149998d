package keystore

import (
	"context"
	"slices"
	"strings"
	"sync"
)

// Mem is a Store in memory, for tests and trials of up to some 10,000 records: a new one costs time in proportion to
// those after it. The zero value is an empty store.
type Mem struct {
	mu       sync.RWMutex // over everything below except watchers, which has its own
	closed   bool
	revision uint64   // of the last commit
	records  []Record // by name
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
	i, ok := m.find(name)
	if !ok {
		return Record{}, ErrNotFound
	}
	return m.copy(i), nil
}

// find returns the place of name in records, or the one where it belongs. Caller holds mu.
func (m *Mem) find(name string) (int, bool) {
	return slices.BinarySearchFunc(m.records, name, func(r Record, name string) int { return strings.Compare(r.Name, name) })
}

// copy returns the record at i, as the caller's own.
func (m *Mem) copy(i int) Record {
	r := m.records[i]
	r.Value = slices.Clone(r.Value)
	return r
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
	i, there := m.find(max(prefix, after))
	if there && m.records[i].Name == after {
		i++
	}
	for ; i < len(m.records) && len(found) < limit && strings.HasPrefix(m.records[i].Name, prefix); i++ {
		found = append(found, m.copy(i))
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
		if i, ok := m.find(c.Name); ok {
			have = m.records[i].Revision
		}
		if have != c.Revision {
			return ErrConflict
		}
	}
	m.revision++
	for _, p := range tx.Puts {
		r := Record{Name: p.Name, Value: slices.Clone(p.Value), Revision: m.revision}
		if i, ok := m.find(p.Name); ok {
			m.records[i] = r
		} else {
			m.records = slices.Insert(m.records, i, r)
		}
	}
	for _, d := range tx.Deletes {
		if i, ok := m.find(d); ok {
			m.records = slices.Delete(m.records, i, i+1)
		}
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
	m.records = nil
	m.watchers.Close()
	return nil
}
