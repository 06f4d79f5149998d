package boltstore

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// errStopped ends a check whose store is being closed.
var errStopped = errors.New("the check was stopped")

// checker goes through every page that is in use. It looks for what bbolt's own Check looks for: each page in use once,
// or free, never both, never neither; kinds and sizes that fit; names in order and within the bounds the pages above
// promise.
type checker struct {
	image
	bucket string
	used   []bool // by page id
	stop   <-chan struct{}
}

// check returns the first thing that is wrong with the file at m, or nil. Contents of records are not its business.
func check(f io.ReaderAt, m meta, bucket string, stop <-chan struct{}) error {
	c := &checker{
		image:  image{f: f, pageSize: uint64(m.pageSize), pages: m.pages},
		bucket: bucket, used: make([]bool, m.pages), stop: stop,
	}
	c.used[0], c.used[1] = true, true
	free, err := c.freelist(m.freelist)
	if err != nil {
		return err
	}
	root, err := c.take(m.root)
	if err != nil {
		return err
	}
	if err := c.tree(root, nil, nil, 0, true); err != nil {
		return err
	}
	for _, id := range free {
		if c.used[id] {
			return fmt.Errorf("page %d is in use and on the list of free pages", id)
		}
		c.used[id] = true
	}
	if id := slices.Index(c.used, false); id >= 0 {
		return fmt.Errorf("page %d is neither in use nor free", id)
	}
	return nil
}

// take reads a page and marks it and its overflow as in use.
func (c *checker) take(id uint64) (page, error) {
	select {
	case <-c.stop:
		return page{}, errStopped
	default:
	}
	p, err := c.page(id)
	if err != nil {
		return page{}, err
	}
	for i := id; i <= id+p.overflow; i++ {
		if c.used[i] {
			return page{}, fmt.Errorf("page %d is in use twice", i)
		}
		c.used[i] = true
	}
	return p, nil
}

func (c *checker) freelist(id uint64) ([]uint64, error) {
	p, err := c.take(id)
	if err != nil {
		return nil, err
	}
	if p.flags != flagFreelist {
		return nil, fmt.Errorf("page %d should be the list of free pages", id)
	}
	list, n := p.data[pageHeader:], uint64(p.count)
	if p.count == 0xFFFF { // then the first entry is the count
		n, list = le.Uint64(list), list[8:]
	}
	if n > uint64(len(list)/8) || n > c.pages {
		return nil, fmt.Errorf("the list of free pages has %d entries, more than fit", n)
	}
	free := make([]uint64, n)
	for i := range free {
		free[i] = le.Uint64(list[i*8:])
		if free[i] < 2 || free[i] >= c.pages || i > 0 && free[i] <= free[i-1] {
			return nil, fmt.Errorf("the list of free pages is damaged at entry %d", i)
		}
	}
	return free, nil
}

// tree checks p and all below. Names must be at or above low and below high; nil is no bound.
func (c *checker) tree(p page, low, high []byte, depth int, root bool) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d is too deep", p.id)
	}
	last, first := []byte(nil), true
	inOrder := func(name []byte) error {
		bad := low != nil && string(name) < string(low) || high != nil && string(name) >= string(high) ||
			!first && string(name) <= string(last)
		first, last = false, name
		if bad {
			return fmt.Errorf("page %d has names out of order", p.id)
		}
		return nil
	}
	switch p.flags {
	case flagLeaf:
		for i := range p.count {
			flags, name, value, err := p.leaf(i)
			if err != nil {
				return err
			}
			if err := inOrder(name); err != nil {
				return err
			}
			switch {
			case root && flags == flagBucket && string(name) == c.bucket:
				if err := c.records(value); err != nil {
					return err
				}
			case root || flags != 0:
				return fmt.Errorf("page %d has an element of an unknown kind", p.id)
			}
		}
		if root && p.count != 1 {
			return errors.New("the bucket of records is missing")
		}
		return nil
	case flagBranch:
		if p.count == 0 {
			return fmt.Errorf("page %d is an empty branch", p.id)
		}
		for i := range p.count {
			name, child, err := p.branch(i)
			if err != nil {
				return err
			}
			if err := inOrder(name); err != nil {
				return err
			}
			until := high
			if i+1 < p.count {
				if until, _, err = p.branch(i + 1); err != nil {
					return err
				}
			}
			below, err := c.take(child)
			if err != nil {
				return err
			}
			if err := c.tree(below, name, until, depth+1, root); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("page %d is of the wrong kind", p.id)
}

// records checks the tree of the bucket whose header and inline page are value.
func (c *checker) records(value []byte) error {
	if len(value) < bucketHeader {
		return errors.New("the bucket of records is damaged")
	}
	t := tree{image: c.image, top: le.Uint64(value), inline: value[bucketHeader:]}
	var top page
	var err error
	if t.top != 0 {
		top, err = c.take(t.top)
	} else {
		top, err = t.rootPage()
	}
	if err != nil {
		return err
	}
	return c.tree(top, nil, nil, 0, false)
}
