package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// A list is an order in which records are paged: rows with names of their own, and a head that counts them in buckets. A
// page at any offset is found by adding up counts, and then costs one scan of at most a bucket and the page. Rows may
// go in any place, so holes need no care. A commit rewrites the head: some 25 octets per bucket.
type list struct {
	head string // record of the listHead
	rows string // prefix of the rows

	numbered bool // rows are called sequenceRow(1), (2), … in order of creation
}

// bucketRows is the most rows in a bucket.
const bucketRows = 1024

// listHead counts the rows of a list. Bucket i holds the rows whose names (after the prefix) are above After[i] and not
// above After[i+1].
type listHead struct {
	Last  uint64 `json:",omitempty"` // the last sequence number given out; only of lists in order of creation
	After []string
	Rows  []int
}

// listRow is a row of a list in order of creation.
type listRow struct{ ID string }

// aliasRow is a row of the aliases of a key.
type aliasRow struct{ Account, Name string }

func keysOf(account string) list {
	return list{"list/keys/" + account, "row/keys/" + account + "/", true}
}
func versionsOf(key string) list   { return list{"list/vers/" + key, "row/vers/" + key + "/", true} }
func aliasesOfKey(key string) list { return list{"list/of/" + key, "row/of/" + key + "/", false} }

// aliasesIn has the alias records themselves as rows.
func aliasesIn(account string) list {
	return list{"list/aliases/" + account, nameAlias(account, ""), false}
}

func aliasRowName(a *Alias) string { return a.Account + "/" + a.Name }

func sequenceRow(n uint64) string { return fmt.Sprintf("%016x", n) }

func (h *listHead) total() (n int) {
	for _, rows := range h.Rows {
		n += rows
	}
	return n
}

// bucket returns the place of the bucket that row belongs to. There is at least one.
func (h *listHead) bucket(row string) int {
	return max(0, sort.Search(len(h.After), func(i int) bool { return h.After[i] >= row })-1)
}

// valid guards the arithmetic below against a record that passed its tag and still makes no sense.
func (h *listHead) valid() bool {
	if len(h.After) != len(h.Rows) || len(h.After) > 0 && h.After[0] != "" {
		return false
	}
	for i, n := range h.Rows {
		if n < 1 || n > bucketRows || i > 0 && h.After[i] <= h.After[i-1] {
			return false
		}
	}
	return true
}

// pageTries is how often a page is read again because its list changed between head and rows.
const pageTries = 8

// page returns the records of up to limit rows from offset, and how many rows there are. Their tags are not checked.
func (db *DB) page(ctx context.Context, l list, offset, limit int) ([]Record, int, error) {
	if offset < 0 || limit < 0 {
		return nil, 0, fmt.Errorf("keystore: a page of %d from %d", limit, offset)
	}
	if db.closed.Load() {
		return nil, 0, ErrClosed
	}
	var last uint64
	for try := 0; ; try++ {
		var h listHead
		st, err := db.lookUp(ctx, l.head)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil, 0, nil
		case err != nil:
			return nil, 0, err
		}
		if err := db.decodeHead(st, &h); err != nil {
			return nil, 0, err
		}
		total := h.total()
		want := min(limit, max(0, total-offset))
		if want == 0 {
			return nil, total, nil
		}
		skip, i := offset, 0
		for skip >= h.Rows[i] {
			skip -= h.Rows[i]
			i++
		}
		after := ""
		if i > 0 {
			after = l.rows + h.After[i]
		}
		if row, ok := h.jump(l, i, skip); ok {
			after, skip = l.rows+row, 0
		}
		rows, err := db.store.Scan(ctx, l.rows, after, skip+want)
		if err != nil {
			return nil, 0, err
		}
		if len(rows) == skip+want {
			return rows[skip:], total, nil
		}
		if st.revision == last || try == pageTries {
			return nil, 0, fmt.Errorf("%w: the list %q counts %d rows and %d are missing", ErrDamaged, l.head, total, skip+want-len(rows))
		}
		last = st.revision // a commit came between; if the next look finds the same head, none did
	}
}

// jump returns the row after which the row at skip in bucket i comes, when that can be told without reading the bucket:
// rows with numbers, and no holes among them.
func (h *listHead) jump(l list, i, skip int) (string, bool) {
	if !l.numbered || skip == 0 {
		return "", false
	}
	first, last := uint64(0), h.Last // the numbers in the bucket are above first and not above last
	var err error
	if i > 0 {
		if first, err = strconv.ParseUint(h.After[i], 16, 64); err != nil {
			return "", false
		}
	}
	if i+1 < len(h.After) {
		if last, err = strconv.ParseUint(h.After[i+1], 16, 64); err != nil {
			return "", false
		}
	}
	if last-first != uint64(h.Rows[i]) {
		return "", false
	}
	return sequenceRow(first + uint64(skip)), true
}

func (db *DB) decodeHead(st stored, h *listHead) error {
	if err := db.decodeRecord(st, h); err != nil {
		return err
	}
	if !h.valid() {
		db.noteDamaged(st.name)
		return fmt.Errorf("%w: the list %q makes no sense", ErrDamaged, st.name)
	}
	return nil
}

// rowID checks a row of a list in order of creation and returns its ID.
func (db *DB) rowID(r Record) (string, error) {
	st, err := db.checked(r)
	if err != nil {
		return "", err
	}
	var row listRow
	return row.ID, db.decodeRecord(st, &row)
}

// head returns the head of l as the plan has it so far. Changes to it are written with keepHead or dropHead.
func (p *plan) head(l list) (*listHead, error) {
	if h := p.heads[l.head]; h != nil {
		return h, nil
	}
	s, err := p.slot(l.head)
	if err != nil {
		return nil, err
	}
	h := new(listHead)
	if s.payload != nil {
		if err := p.db.decodeHead(stored{name: l.head, payload: s.payload}, h); err != nil {
			return nil, err
		}
	}
	p.heads[l.head] = h
	return h, nil
}

// keepHead marks a head as changed. It is encoded once, by txn, however many rows a change has.
func (p *plan) keepHead(l list) { p.slots[l.head].changed = true }

// dropHead deletes a head.
func (p *plan) dropHead(l list) error {
	delete(p.heads, l.head)
	return p.remove(l.head)
}

// encodeHeads brings the payloads of changed heads up to date.
func (p *plan) encodeHeads() error {
	for name, h := range p.heads {
		if p.slots[name].changed {
			if err := p.put(name, h); err != nil {
				return err
			}
		}
	}
	return nil
}

// append adds a row with the next sequence number and returns the number, from 1.
func (p *plan) append(l list, id string) (uint64, error) {
	h, err := p.head(l)
	if err != nil {
		return 0, err
	}
	h.Last++
	last := len(h.Rows) - 1
	if last < 0 || h.Rows[last] >= bucketRows {
		after := ""
		if last >= 0 {
			after = sequenceRow(h.Last - 1)
		}
		h.After, h.Rows = append(h.After, after), append(h.Rows, 1)
	} else {
		h.Rows[last]++
	}
	if err := p.create(l.rows+sequenceRow(h.Last), listRow{ID: id}); err != nil {
		return 0, err
	}
	p.keepHead(l)
	return h.Last, nil
}

// count counts a row that the caller has put, or will put, at its place in the order of names.
func (p *plan) count(l list, row string) error {
	h, err := p.head(l)
	if err != nil {
		return err
	}
	if len(h.Rows) == 0 {
		h.After, h.Rows = []string{""}, []int{0}
	}
	i := h.bucket(row)
	if h.Rows[i] >= bucketRows {
		middle, err := p.middle(l, h, i, l.rows+row)
		if err != nil {
			return err
		}
		h.After = slices.Insert(h.After, i+1, middle)
		h.Rows[i] = bucketRows / 2
		h.Rows = slices.Insert(h.Rows, i+1, bucketRows-bucketRows/2)
		i = h.bucket(row)
	}
	h.Rows[i]++
	p.keepHead(l)
	return nil
}

// middle returns the last row of the first half of bucket i, which is full. The row called uncounted is left out.
func (p *plan) middle(l list, h *listHead, i int, uncounted string) (string, error) {
	after := l.rows + h.After[i]
	end := "" // the last name that may belong here; empty is no bound
	if i+1 < len(h.After) {
		end = l.rows + h.After[i+1]
	}
	in := func(name string) bool {
		return name != uncounted && strings.HasPrefix(name, l.rows) && name > after && (end == "" || name <= end)
	}
	// Rows that this plan added or removed are not in the store yet, or still.
	var names []string
	changed := 0
	for name, s := range p.slots {
		if in(name) && s.changed {
			changed++
			if s.payload != nil {
				names = append(names, name)
			}
		}
	}
	rows, err := p.db.store.Scan(p.ctx, l.rows, after, bucketRows+changed+2)
	if err != nil {
		return "", err
	}
	for _, r := range rows {
		if s := p.slots[r.Name]; in(r.Name) && (s == nil || !s.changed) {
			names = append(names, r.Name)
		}
	}
	if len(names) != h.Rows[i] {
		return "", fmt.Errorf("%w: the list %q counts %d rows after %q and %d are there", ErrDamaged, l.head, h.Rows[i], h.After[i], len(names))
	}
	slices.Sort(names)
	return strings.TrimPrefix(names[bucketRows/2-1], l.rows), nil
}

// uncount takes a row out of the count.
func (p *plan) uncount(l list, row string) error {
	h, err := p.head(l)
	if err != nil {
		return err
	}
	if len(h.Rows) == 0 {
		return fmt.Errorf("%w: the list %q does not count %q", ErrDamaged, l.head, row)
	}
	i := h.bucket(row)
	h.Rows[i]--
	if h.Rows[i] == 0 {
		h.After, h.Rows = slices.Delete(h.After, i, i+1), slices.Delete(h.Rows, i, i+1)
		if len(h.After) > 0 {
			h.After[0] = ""
		}
	}
	if len(h.Rows) == 0 && h.Last == 0 {
		return p.dropHead(l)
	}
	p.keepHead(l)
	return nil
}
