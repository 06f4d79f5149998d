package keystore

import (
	"math/bits"
	"math/rand/v2"
	"slices"
)

// skipLevels is enough for some 4^12 records at one in four nodes per level.
const skipLevels = 12

// skipList keeps records in the order of their names: log n to find, put and remove. The zero value is empty. The
// owner locks.
type skipList struct {
	head [skipLevels]*skipNode
}

type skipNode struct {
	record Record
	next   []*skipNode
}

func (n *skipNode) copy() Record {
	r := n.record
	r.Value = slices.Clone(r.Value)
	return r
}

// before fills at with the links that lead to the first node whose name is not below name.
func (l *skipList) before(name string, at *[skipLevels][]*skipNode) *skipNode {
	links := l.head[:]
	for level := skipLevels - 1; level >= 0; level-- {
		for links[level] != nil && links[level].record.Name < name {
			links = links[level].next
		}
		at[level] = links
	}
	return links[0]
}

// seek returns the first node whose name is not below name, or nil.
func (l *skipList) seek(name string) *skipNode {
	var at [skipLevels][]*skipNode
	return l.before(name, &at)
}

func (l *skipList) find(name string) *skipNode {
	if n := l.seek(name); n != nil && n.record.Name == name {
		return n
	}
	return nil
}

func (l *skipList) put(r Record) {
	var at [skipLevels][]*skipNode
	if n := l.before(r.Name, &at); n != nil && n.record.Name == r.Name {
		n.record = r
		return
	}
	height := min(1+bits.TrailingZeros64(rand.Uint64()|1<<62)/2, skipLevels)
	n := &skipNode{record: r, next: make([]*skipNode, height)}
	for level := range n.next {
		n.next[level] = at[level][level]
		at[level][level] = n
	}
}

func (l *skipList) remove(name string) {
	var at [skipLevels][]*skipNode
	n := l.before(name, &at)
	if n == nil || n.record.Name != name {
		return
	}
	for level := range n.next {
		at[level][level] = n.next[level]
	}
}
