package hsmpool

import (
	"container/list"
	"sync"

	"github.com/miekg/pkcs11"
)

// defaultCachedKeys is how many keys a member keeps loaded. SoftHSM opens and closes sessions slowly with 10,000.
const defaultCachedKeys = 4096

// keyCache keeps the handles of one login epoch by key ID. A handle is valid in its epoch only, so the cache ends with it.
type keyCache struct {
	max     int
	destroy func(t *task, h pkcs11.ObjectHandle) error

	mu   sync.Mutex
	keys map[string]*cachedKey
	lru  list.List // of *cachedKey, least recently used last
}

// cachedKey is a loaded key, or one that is being loaded. handle and err may be read after ready is closed; the rest is
// guarded by keyCache.mu.
type cachedKey struct {
	id     string
	ready  chan struct{}
	handle pkcs11.ObjectHandle
	err    *Error

	elem  *list.Element // nil: no longer in the cache
	refs  int           // jobs that use it: it is not destroyed meanwhile
	owned bool          // a session object of ours, to be destroyed
}

func newKeyCache(max int, destroy func(t *task, h pkcs11.ObjectHandle) error) *keyCache {
	return &keyCache{max: max, destroy: destroy, keys: map[string]*cachedKey{}}
}

// get gives the loaded key, and calls load if nobody has; who comes meanwhile waits for that. The caller must release
// it. A failed load is not remembered. t is the task that it is for.
func (c *keyCache) get(id string, t *task, load func() (h pkcs11.ObjectHandle, owned bool, err *Error)) (*cachedKey, *Error) {
	c.mu.Lock()
	if k := c.keys[id]; k != nil {
		k.refs++
		c.lru.MoveToFront(k.elem)
		c.mu.Unlock()
		if !isClosed(k.ready) {
			t.waits(func() { <-k.ready })
		}
		if k.err != nil {
			c.release(k)
			return nil, k.err
		}
		return k, nil
	}
	k := &cachedKey{id: id, ready: make(chan struct{}), refs: 1}
	k.elem = c.lru.PushFront(k)
	c.keys[id] = k
	victims := c.evict()
	c.mu.Unlock()
	for _, h := range victims {
		_ = c.destroy(t, h) // it ends with its session
	}

	h, owned, err := load()
	c.mu.Lock()
	k.handle, k.owned, k.err = h, owned, err
	if err != nil {
		c.remove(k)
	}
	c.mu.Unlock()
	close(k.ready)
	if err != nil {
		c.release(k)
		return nil, err
	}
	return k, nil
}

// evict takes unused keys out until the bound holds, and returns the objects to destroy. If all are in use the cache is
// over its bound for a while.
func (c *keyCache) evict() (victims []pkcs11.ObjectHandle) {
	for e := c.lru.Back(); e != nil && len(c.keys) > c.max; {
		k := e.Value.(*cachedKey)
		e = e.Prev()
		if k.refs > 0 {
			continue
		}
		c.remove(k)
		if k.owned {
			k.owned = false
			victims = append(victims, k.handle)
		}
	}
	return victims
}

func (c *keyCache) remove(k *cachedKey) {
	if k.elem != nil {
		c.lru.Remove(k.elem)
		k.elem = nil
		delete(c.keys, k.id)
	}
}

// release ends a use. The last user of a key that left the cache destroys its object.
func (c *keyCache) release(k *cachedKey) {
	if c.last(k) {
		_ = c.destroy(nil, k.handle) // it ends with its session
	}
}

// last ends a use, and says whether the object is to be destroyed now.
func (c *keyCache) last(k *cachedKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	k.refs--
	last := k.refs == 0 && k.elem == nil && k.owned
	if last {
		k.owned = false
	}
	return last
}

// forget takes out a key whose handle the module no longer knows. The number may belong to another object by now, so
// nothing is destroyed.
func (c *keyCache) forget(k *cachedKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(k)
	k.owned = false
}

// discard takes a key out and destroys its object, or leaves that to who uses it last. An object that can't be destroyed ends
// with its session. t is the task that it is for, or nil.
func (c *keyCache) discard(id string, t *task) error {
	c.mu.Lock()
	k := c.keys[id]
	if k == nil {
		c.mu.Unlock()
		return nil
	}
	k.refs++
	c.remove(k)
	c.mu.Unlock()
	if !isClosed(k.ready) {
		t.waits(func() { <-k.ready })
	}
	if c.last(k) {
		return c.destroy(t, k.handle)
	}
	return nil
}

func (c *keyCache) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.keys)
}
