package pkcs11front

import (
	"slices"
	"sync"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
)

// The session objects of an application, and what else of it is counted in memory. application.mu guards them.

// addObject keeps a session object that a call of the session s made. Its mu is held.
func (a *application) addObject(s *session, o sessionObject) (handle, ck.RV) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, octets := o.handle(), o.weight()
	switch {
	case a.sessions[s.id] != s:
		return 0, ck.CKR_SESSION_HANDLE_INVALID // it ended while the object was made
	case a.objects[h] != nil:
		return 0, ck.CKR_GENERAL_ERROR // two handles of 60 bits that were drawn are the same: never
	case len(a.objects)+a.reserved >= maxSessionObjects || a.octets+octets > maxSessionObjectOctets || !a.memory.take(octets):
		return 0, ck.CKR_DEVICE_MEMORY
	}
	a.objects[h] = &heldObject{o, s}
	a.octets += octets
	return h, ck.CKR_OK
}

// maxDestroyed is how many keys an application is remembered to have destroyed.
const maxDestroyed = 64

// noteDestroyed remembers that the application has destroyed a key of the KMS.
func (a *application) noteDestroyed(place kms.KeyPlace) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.destroyed) == maxDestroyed {
		a.destroyed = slices.Delete(a.destroyed, 0, 1)
	}
	a.destroyed = append(a.destroyed, place)
}

// hasDestroyed says whether the application has destroyed the key of an object: programs that destroy one half of a pair and then the other
// find that it went with the first.
func (a *application) hasDestroyed(h handle) bool {
	class, place, ok := h.key()
	a.mu.Lock()
	defer a.mu.Unlock()
	return ok && class == ck.CKO_PUBLIC_KEY && slices.Contains(a.destroyed, place)
}

// holdMore counts octets that an operation or a search is going to hold, and says whether the application and its user may hold so many.
func (a *application) holdMore(n int) bool {
	if a.gathered.Add(int64(n)) > maxGatheredApplication || !a.memory.take(n) {
		a.gathered.Add(int64(-n))
		return false
	}
	return true
}

// holdLess undoes holdMore.
func (a *application) holdLess(n int) {
	a.gathered.Add(int64(-n))
	a.memory.give(n)
}

// reservedOctets is what reserve counts for an object: a public key with names takes less.
const reservedOctets = 16 << 10

// reserve makes room for an object that is going to be added, and gives its end: called before the object is added, or when there is none. So that
// nothing is made in a token of which the other half has no room here.
func (a *application) reserve() (end func(), rv ck.RV) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.objects)+a.reserved >= maxSessionObjects || a.octets+reservedOctets > maxSessionObjectOctets || !a.memory.take(reservedOctets) {
		return nil, ck.CKR_DEVICE_MEMORY
	}
	a.reserved++
	a.octets += reservedOctets
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.reserved--
		a.octets -= reservedOctets
		a.memory.give(reservedOctets)
	}), ck.CKR_OK
}

// replaceObject puts next in the place of a session object, if that is still there. The key of the two is the same: nothing is destroyed.
func (a *application) replaceObject(instance string, o, next sessionObject) ck.RV {
	a.mu.Lock()
	defer a.mu.Unlock()
	held := a.objects[o.handle()]
	more := next.weight() - o.weight()
	switch {
	case held == nil || held.owner.instance != instance:
		return ck.CKR_OBJECT_HANDLE_INVALID
	case held.sessionObject != o:
		return ck.CKR_FUNCTION_FAILED // another session was faster
	case a.octets+more > maxSessionObjectOctets || !a.memory.take(more):
		return ck.CKR_DEVICE_MEMORY
	}
	held.sessionObject = next
	a.octets += more
	return ck.CKR_OK
}

// object gives a session object of the instance by its handle; nil if there is none.
func (a *application) object(instance string, h handle) sessionObject {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o := a.objects[h]; o != nil && o.owner.instance == instance {
		return o.sessionObject
	}
	return nil
}

// eachObject gives all session objects of the instance, in no order. The function must not call the application.
func (a *application) eachObject(instance string, f func(handle, sessionObject)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for h, o := range a.objects {
		if o.owner.instance == instance {
			f(h, o.sessionObject)
		}
	}
}

// removeObject destroys a session object of the instance, and says whether it was there.
func (a *application) removeObject(instance string, h handle) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.objects[h]
	if o == nil || o.owner.instance != instance {
		return false
	}
	a.dropObject(h, o)
	return true
}

// removeObjects destroys the objects that are meant. a.mu is held.
func (a *application) removeObjects(meant func(*heldObject) bool) {
	for h, o := range a.objects {
		if meant(o) {
			a.dropObject(h, o)
		}
	}
}

// dropObject destroys one. a.mu is held.
func (a *application) dropObject(h handle, o *heldObject) {
	delete(a.objects, h)
	a.octets -= o.weight()
	a.memory.give(o.weight())
	o.destroy()
}
