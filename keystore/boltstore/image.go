package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// This file reads the file format of bbolt (version 2) without bbolt. bbolt trusts its pages: a flipped bit makes it
// panic, fault, recurse without end, or free a page that is in use. Here every offset is checked and
// every descent is bounded, so a damaged file gives an error. It serves the check at open and all reading: the file of an
// open store can be damaged too, and bbolt's cursor goes round in a loop of pages until the process dies.

// Page layout, from the file format: id u64, flags u16, count u16, overflow u32, then the elements.
const (
	pageHeader   = 16
	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10
	elementSize  = 16   // of branch and leaf elements alike
	flagBucket   = 0x01 // of a leaf element: its value is a bucket
	bucketHeader = 16   // root u64, sequence u64

	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaSize    = 64

	maxDepth = 32 // of a tree; a sound one of 2^40 records has fewer than 16 levels
)

var le = binary.LittleEndian // bbolt writes the order of the host; Open refuses the wrong one by its magic

// meta is one of the two meta pages.
type meta struct {
	pageSize uint32
	root     uint64 // page of the root bucket
	freelist uint64
	pages    uint64 // high water mark: pages from here on are not in use
	txid     uint64
}

var errMeta = errors.New("the meta page is invalid")

func parseMeta(b []byte) (meta, error) {
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	if le.Uint32(b) != metaMagic || le.Uint32(b[4:]) != metaVersion || le.Uint64(b[metaSize-8:]) != sum.Sum64() {
		return meta{}, errMeta
	}
	return meta{
		pageSize: le.Uint32(b[8:]),
		root:     le.Uint64(b[16:]),
		freelist: le.Uint64(b[32:]),
		pages:    le.Uint64(b[40:]),
		txid:     le.Uint64(b[48:]),
	}, nil
}

// mendMeta tries whether one flipped bit explains an invalid meta page. The checksum has 64 bits, so a wrong guess among
// the 512 is out of the question.
func mendMeta(b []byte) (meta, error) {
	mended := append([]byte(nil), b[:metaSize]...)
	for bit := range metaSize * 8 {
		mended[bit/8] ^= 1 << (bit % 8)
		if m, err := parseMeta(mended); err == nil {
			return m, nil
		}
		mended[bit/8] ^= 1 << (bit % 8)
	}
	return meta{}, errMeta
}

// readMeta returns the newest meta page of a file of size octets. damage says what is wrong with the other one or with
// this one, if anything is: bbolt would go back to the transaction before without a word.
func readMeta(f io.ReaderAt, size int64) (newest meta, damage string, err error) {
	var raw [2][]byte
	read := func(at int64) ([]byte, error) {
		b := make([]byte, metaSize)
		_, err := f.ReadAt(b, at+pageHeader)
		return b, err
	}
	if raw[0], err = read(0); err != nil {
		return meta{}, "", err
	}
	first, firstErr := parseMeta(raw[0])
	if firstErr != nil {
		if first, err = mendMeta(raw[0]); err != nil {
			first = meta{}
		}
	}
	// The second meta page is one page in; when the first cannot tell how much that is, try all sizes.
	sizes := []uint32{first.pageSize}
	if first.pageSize == 0 {
		sizes = []uint32{4096, 8192, 16384, 65536, 1024, 2048, 32768}
	}
	var second meta
	var secondErr error
	for _, s := range sizes {
		if raw[1], err = read(int64(s)); err != nil {
			return meta{}, "", err
		}
		if second, secondErr = parseMeta(raw[1]); secondErr == nil {
			break
		}
		if second, err = mendMeta(raw[1]); err == nil {
			break
		}
		second = meta{}
	}
	for i, m := range []*meta{&first, &second} {
		if m.pageSize == 0 {
			continue
		}
		if m.pageSize < 1024 || m.pageSize > 65536 || m.pageSize&(m.pageSize-1) != 0 || m.pages > uint64(size)/uint64(m.pageSize) || m.pages < 4 {
			damage = fmt.Sprintf("meta page %d promises %d pages of %d octets, and the file has %d octets", i, m.pages, m.pageSize, size)
			*m = meta{}
		}
	}
	newest = first
	if second.txid > first.txid || first.pageSize == 0 {
		newest = second
	}
	switch {
	case newest.pageSize == 0:
		return meta{}, "", errors.New("both meta pages are damaged, or this is not a store file")
	case damage != "":
	case first.pageSize == 0 || second.pageSize == 0:
		damage = "a meta page is damaged and the last change may be missing"
	case firstErr != nil || secondErr != nil:
		damage = "a bit of a meta page is flipped"
	}
	return newest, damage, nil
}

// image is a file as pages.
type image struct {
	f        io.ReaderAt
	mapped   []byte // the file in memory, to be read in place of f; nil when it is not
	pageSize uint64
	pages    uint64 // ids are below
}

// page is one page with its overflow.
type page struct {
	id       uint64
	flags    uint16
	count    int
	overflow uint64
	data     []byte // header included
}

// octets returns size octets at an offset. Those of a map may change while they are looked at, when the disk fails.
func (im image) octets(at, size uint64) ([]byte, error) {
	if im.mapped == nil {
		data := make([]byte, size)
		_, err := im.f.ReadAt(data, int64(at))
		return data, err
	}
	if at > uint64(len(im.mapped)) || size > uint64(len(im.mapped))-at {
		return nil, io.ErrUnexpectedEOF
	}
	return im.mapped[at : at+size : at+size], nil
}

func (im image) page(id uint64) (page, error) {
	if id < 2 || id >= im.pages {
		return page{}, fmt.Errorf("page %d does not exist", id)
	}
	data, err := im.octets(id*im.pageSize, im.pageSize)
	if err != nil {
		return page{}, fmt.Errorf("page %d: %w", id, err)
	}
	p, err := parsePage(data)
	if err != nil || p.id != id {
		return page{}, fmt.Errorf("page %d has a damaged header", id)
	}
	if p.overflow > 0 {
		if p.overflow >= im.pages-id {
			return page{}, fmt.Errorf("page %d has a damaged header", id)
		}
		if p.data, err = im.octets(id*im.pageSize, (p.overflow+1)*im.pageSize); err != nil {
			return page{}, fmt.Errorf("page %d: %w", id, err)
		}
	}
	if p.flags != flagFreelist && pageHeader+p.count*elementSize > len(p.data) {
		return page{}, fmt.Errorf("page %d has a damaged header", id)
	}
	return p, nil
}

func parsePage(data []byte) (page, error) {
	if len(data) < pageHeader {
		return page{}, io.ErrUnexpectedEOF
	}
	p := page{
		id: le.Uint64(data), flags: le.Uint16(data[8:]), count: int(le.Uint16(data[10:])),
		overflow: uint64(le.Uint32(data[12:])), data: data,
	}
	if p.flags != flagBranch && p.flags != flagLeaf && p.flags != flagFreelist {
		return page{}, errors.New("no such kind of page")
	}
	return p, nil
}

// cut returns size octets at an offset from the element at base.
func (p page) cut(base int, pos, size uint64) ([]byte, error) {
	begin := uint64(base) + pos
	if pos > uint64(len(p.data)) || size > uint64(len(p.data)) || begin+size > uint64(len(p.data)) ||
		begin < uint64(pageHeader+p.count*elementSize) {
		return nil, fmt.Errorf("page %d has a damaged element", p.id)
	}
	return p.data[begin : begin+size], nil
}

// branch returns element i of a branch page: the least name below child.
func (p page) branch(i int) (name []byte, child uint64, err error) {
	base := pageHeader + i*elementSize
	e := p.data[base:]
	name, err = p.cut(base, uint64(le.Uint32(e)), uint64(le.Uint32(e[4:])))
	return name, le.Uint64(e[8:]), err
}

// leaf returns element i of a leaf page.
func (p page) leaf(i int) (flags uint32, name, value []byte, err error) {
	base := pageHeader + i*elementSize
	e := p.data[base:]
	pos, nameSize, valueSize := uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))
	both, err := p.cut(base, pos, nameSize+valueSize)
	if err != nil {
		return 0, nil, nil, err
	}
	return le.Uint32(e), both[:nameSize:nameSize], both[nameSize:], nil
}

// name returns the name of element i of a page of either kind.
func (p page) name(i int) (name []byte, err error) {
	if p.flags == flagBranch {
		name, _, err = p.branch(i)
	} else {
		_, name, _, err = p.leaf(i)
	}
	return name, err
}

// tree is the bucket of records in an image.
type tree struct {
	image
	top    uint64 // its page, or 0
	inline []byte // its only page, when top is 0: small buckets live in the value that names them
}

// openTree finds the bucket, whose name is below root.
func openTree(im image, root uint64, bucket string) (tree, error) {
	var t tree
	err := tree{image: im, top: root}.walk(bucket, func(flags uint32, name, value []byte) (bool, error) {
		if string(name) != bucket || flags != flagBucket || len(value) < bucketHeader {
			return false, errors.New("the bucket of records is missing")
		}
		t = tree{image: im, top: le.Uint64(value), inline: value[bucketHeader:]}
		return false, nil
	})
	if err == nil && t.pageSize == 0 {
		err = errors.New("the bucket of records is missing")
	}
	return t, err
}

func (t tree) rootPage() (page, error) {
	if t.top != 0 {
		return t.page(t.top)
	}
	p, err := parsePage(t.inline)
	if err != nil || p.flags != flagLeaf || pageHeader+p.count*elementSize > len(p.data) {
		return page{}, errors.New("the inline bucket is damaged")
	}
	return p, nil
}

// walk calls visit for the leaf elements from the name from on, in order, until visit returns false.
func (t tree) walk(from string, visit func(flags uint32, name, value []byte) (bool, error)) error {
	p, err := t.rootPage()
	if err != nil {
		return err
	}
	_, err = t.walkPage(p, nil, nil, from, 0, visit)
	return err
}

// walkPage walks p and what is below. Its names must be at or above low and below high, as the page above says, or else it
// is not the page that belongs here; nil is no bound.
func (t tree) walkPage(p page, low, high []byte, from string, depth int, visit func(uint32, []byte, []byte) (bool, error)) (more bool, err error) {
	if depth > maxDepth {
		return false, fmt.Errorf("page %d is part of a loop", p.id)
	}
	if p.count > 0 {
		first, err := p.name(0)
		if err != nil {
			return false, err
		}
		last, err := p.name(p.count - 1)
		if err != nil {
			return false, err
		}
		if string(first) < string(low) || high != nil && string(last) >= string(high) {
			return false, fmt.Errorf("page %d is in the wrong place", p.id)
		}
	}
	switch p.flags {
	case flagLeaf:
		for i := range p.count {
			flags, name, value, err := p.leaf(i)
			if err != nil {
				return false, err
			}
			if string(name) < from {
				continue
			}
			if more, err := visit(flags, name, value); err != nil || !more {
				return false, err
			}
		}
		return true, nil
	case flagBranch:
		for i := range p.count {
			until := high
			if i+1 < p.count { // a child ends where the next one begins
				if until, _, err = p.branch(i + 1); err != nil {
					return false, err
				}
				if string(until) <= from {
					continue
				}
			}
			begin, child, err := p.branch(i)
			if err != nil {
				return false, err
			}
			below, err := t.page(child)
			if err != nil {
				return false, err
			}
			if more, err := t.walkPage(below, begin, until, from, depth+1, visit); err != nil || !more {
				return false, err
			}
		}
		return true, nil
	}
	return false, fmt.Errorf("page %d is of the wrong kind", p.id)
}

// inspect checks the pages that bbolt will touch when it changes name: those on the way down, and their neighbours, which
// it merges with when one gets small. seen holds the pages that were checked before.
func (t tree) inspect(name string, seen map[uint64]bool) error {
	p, err := t.rootPage()
	for depth := 0; err == nil; depth++ {
		if depth > maxDepth {
			return fmt.Errorf("page %d is part of a loop", p.id)
		}
		if err := p.intact(seen); err != nil || p.flags == flagLeaf {
			return err
		}
		i := 0
		for ; i+1 < p.count; i++ {
			next, _, err := p.branch(i + 1)
			if err != nil {
				return err
			}
			if string(next) > name {
				break
			}
		}
		var below page
		for n := max(0, i-1); n < min(p.count, i+2); n++ {
			_, child, err := p.branch(n)
			if err != nil {
				return err
			}
			if n != i && seen[child] {
				continue
			}
			q, err := t.page(child)
			if err != nil {
				return err
			}
			if err := q.intact(seen); err != nil {
				return err
			}
			if n == i {
				below = q
			}
		}
		p = below
	}
	return err
}

// intact checks the elements of a page by themselves, and that they need the pages that it claims: bbolt frees them all.
func (p page) intact(seen map[uint64]bool) error {
	if seen[p.id] && p.id != 0 {
		return nil
	}
	seen[p.id] = true
	var last []byte
	size := uint64(pageHeader + p.count*elementSize)
	for i := range p.count {
		var name, value []byte
		var err error
		switch p.flags {
		case flagLeaf:
			_, name, value, err = p.leaf(i)
		case flagBranch:
			name, _, err = p.branch(i)
		default:
			err = fmt.Errorf("page %d is of the wrong kind", p.id)
		}
		if err != nil {
			return err
		}
		if i > 0 && string(name) <= string(last) {
			return fmt.Errorf("page %d has names out of order", p.id)
		}
		last = name
		size += uint64(len(name) + len(value))
	}
	if p.id != 0 && p.overflow > (size-1)/(uint64(len(p.data))/(p.overflow+1)) {
		return fmt.Errorf("page %d claims the pages after it", p.id)
	}
	if p.flags == flagBranch && p.count == 0 {
		return fmt.Errorf("page %d is an empty branch", p.id)
	}
	return nil
}
