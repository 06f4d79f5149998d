package pkcs11front

import (
	"bytes"
	"slices"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// lookup gives the object that a handle names; CKR_OBJECT_HANDLE_INVALID if there is none for the caller. An object of another instance
// than the session's is none, and neither is a private one before the login that a PIN asks for.
func (q *request) lookup(h handle) (object, ck.RV) {
	o, err := q.locate(h)
	switch {
	case err != nil:
		return nil, q.failed(err, aboutObject)
	case o == nil:
		return nil, ck.CKR_OBJECT_HANDLE_INVALID
	case isPrivate(o) && !q.privateAllowed():
		return nil, ck.CKR_OBJECT_HANDLE_INVALID
	}
	return o, ck.CKR_OK
}

func (q *request) locate(h handle) (object, error) {
	service, instance := q.front.cfg.Service, q.session.instance
	if class, place, ok := h.key(); ok {
		t, err := service.TokenKey(q.ctx, q.actor(), instance, place)
		if err != nil {
			return nil, err
		}
		return q.kmsObject(t, class)
	}
	if n, ok := h.tokenObject(); ok {
		o, err := service.TokenObject(q.ctx, q.actor(), instance, n)
		if err != nil {
			return nil, err
		}
		return q.front.newStoredObject(o)
	}
	if o := q.app.object(instance, h); o != nil {
		return o, nil
	}
	return nil, nil
}

// kmsObject is newKMSKey, with a nil that is one.
func (q *request) kmsObject(t *kms.TokenKey, class ck.Class) (object, error) {
	k, err := q.front.newKMSKey(q.actor(), t, class)
	if k == nil || err != nil {
		return nil, err
	}
	return k, nil
}

// isPrivate says whether CKA_PRIVATE of an object is true.
func isPrivate(o object) bool {
	p, ok := o.(interface{ private() bool })
	return ok && p.private()
}

// key gives the key that a handle names; CKR_KEY_HANDLE_INVALID if there is none for the caller, or if it is no key.
func (q *request) key(h handle) (key, ck.RV) {
	o, rv := q.lookup(h)
	if rv == ck.CKR_OBJECT_HANDLE_INVALID {
		return nil, ck.CKR_KEY_HANDLE_INVALID
	} else if rv != ck.CKR_OK {
		return nil, rv
	}
	if k, ok := o.(key); ok {
		return k, ck.CKR_OK
	}
	return nil, ck.CKR_KEY_HANDLE_INVALID
}

// keyPage is how many keys a search looks at before it looks whether it has found enough.
const keyPage = 256

// search is between C_FindObjectsInit and C_FindObjectsFinal. It holds handles of what was found and not fetched, and where among the keys it is: objects of
// the application and those that clients keep were looked at when it began. The order is that, then keys in order of their making; keys that are
// searched for by name come before what clients keep. Of a pair the private one comes first, so
// that a program that destroys what it finds destroys the key.
type search struct {
	template values // its own, while there are keys to look at: it may hold secrets, and is wiped
	begun    []byte // see operation.begun
	held     int    // octets of template and found, as the application counts them
	found    []handle
	fetched  int          // of found
	keys     bool         // there are more keys to look at
	after    kms.KeyPlace // which they follow
	private  bool         // private objects are looked at
}

// findObjectsInit is C_FindObjectsInit.
func (q *request) findObjectsInit() ck.RV {
	given := q.in.Template()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	if q.session.searching() != nil {
		return ck.CKR_OPERATION_ACTIVE
	}
	v, rv := readTemplate(given)
	if rv != ck.CKR_OK {
		return rv
	}
	s := &search{template: v, private: q.privateAllowed()}
	for i := range v {
		if v[i].Kind == p11rpc.Template { // no object has such an attribute
			q.session.search = &search{}
			return ck.CKR_OK
		}
	}
	if err := q.beginSearch(s); err != nil {
		return q.failed(err, aboutToken)
	}
	s.template = nil // it is of the frame
	if s.keys {
		s.template = v.clone()
	}
	if !v.hasSecret() {
		s.begun = q.begunOf()
	}
	q.session.search = s
	return q.weigh(s)
}

// hasSecret says whether a template names what may be a part of a key: such a search is not held for the next daemon.
func (v values) hasSecret() bool {
	return slices.ContainsFunc(v, func(a p11rpc.Attribute) bool {
		switch ck.Attribute(a.Type) {
		case ck.CKA_VALUE, ck.CKA_PRIVATE_EXPONENT, ck.CKA_PRIME_1, ck.CKA_PRIME_2, ck.CKA_EXPONENT_1, ck.CKA_EXPONENT_2, ck.CKA_COEFFICIENT:
			return true
		}
		return false
	})
}

// weigh counts what the session's search holds now. If that is too much the search ends.
func (q *request) weigh(s *search) ck.RV {
	more := 8*cap(s.found) + s.template.weight() - s.held
	if more > 0 && !q.app.holdMore(more) {
		q.session.endSearch()
		return ck.CKR_HOST_MEMORY
	}
	if more < 0 {
		q.app.holdLess(-more)
	}
	s.held += more
	return ck.CKR_OK
}

// endSearch ends the session's search, if there is one. The session's mu is held.
func (s *session) endSearch() {
	if s.search == nil {
		return
	}
	s.app.holdLess(s.search.held)
	s.search.template.wipe()
	s.search = nil
}

// beginSearch looks at everything but pages of keys.
func (q *request) beginSearch(s *search) error {
	class, anyClass := s.class()
	inToken, inSession := true, true
	if t, ok := s.template.get(ck.CKA_TOKEN); ok {
		inToken, inSession = t.Number != 0, t.Number == 0
	}
	if inSession {
		q.findSessionObjects(s)
	}
	if !inToken {
		return nil
	}
	if id, ok := s.template.get(ck.CKA_UNIQUE_ID); ok { // the handle is in it
		return q.findUnique(s, byUniqueID(id.Octets))
	}
	var names kms.SomeNames
	if v, ok := s.template.get(ck.CKA_ID); ok {
		names.ID = append([]byte{}, v.Octets...)
	}
	if v, ok := s.template.get(ck.CKA_LABEL); ok {
		text := string(v.Octets)
		names.Label = &text
	}
	if v, ok := s.template.get(ck.CKA_SUBJECT); ok && len(v.Octets) > 0 { // an empty one almost all keys have
		names.Subject = bytes.Clone(v.Octets)
	}
	keys := anyClass || class == ck.CKO_PUBLIC_KEY || class == ck.CKO_PRIVATE_KEY || class == ck.CKO_SECRET_KEY
	s.keys = keys && names.ID == nil && names.Label == nil && names.Subject == nil
	if keys && !s.keys {
		// Before what clients keep, who may have kept a public key under the name of one of these.
		named, err := q.front.cfg.Service.TokenKeysNamed(q.ctx, q.actor(), q.session.instance, names)
		if err != nil {
			return err
		}
		if err := q.addKeys(s, named); err != nil {
			return err
		}
	}
	if anyClass || class == ck.CKO_DATA || class == ck.CKO_CERTIFICATE || class == ck.CKO_PUBLIC_KEY {
		return q.findStored(s, names.ID, names.Label, class, anyClass)
	}
	return nil
}

// class gives CKA_CLASS of the template; anyClass if it says none.
func (s *search) class() (class ck.Class, anyClass bool) {
	v, ok := s.template.get(ck.CKA_CLASS)
	return ck.Class(v.Number), !ok
}

func (q *request) findSessionObjects(s *search) {
	type aged struct {
		handle
		age uint64
	}
	var found []aged
	q.app.eachObject(q.session.instance, func(h handle, o sessionObject) {
		if (s.private || !o.private()) && matches(o, s.template) {
			found = append(found, aged{h, o.age()})
		}
	})
	slices.SortFunc(found, func(a, b aged) int {
		if a.age < b.age {
			return -1
		}
		return 1
	})
	for _, f := range found {
		s.found = append(s.found, f.handle)
	}
}

func (q *request) findUnique(s *search, h handle) error {
	if h == 0 || h.isSessionObject() {
		return nil
	}
	switch o, err := q.locate(h); {
	case err != nil:
		if code := kms.AsError(err).Code; code == kms.KeyNotFound || code == kms.ResourceNotFound {
			return nil
		}
		return err
	case o != nil && (s.private || !isPrivate(o)) && matches(o, s.template):
		s.found = append(s.found, h)
	}
	return nil
}

func (q *request) findStored(s *search, id []byte, label *string, class ck.Class, anyClass bool) error {
	var only *kms.ObjectClass
	if !anyClass {
		c := kms.ObjectClass(class)
		only = &c
	}
	kept, err := q.front.cfg.Service.TokenObjects(q.ctx, q.actor(), q.session.instance, id, label, only)
	if err != nil {
		return err
	}
	for _, t := range kept {
		o, err := q.front.newStoredObject(t)
		if err != nil { // it can't be read: the others can
			q.failed(err, aboutObject)
			continue
		}
		if (s.private || !isPrivate(o)) && matches(o, s.template) {
			s.found = append(s.found, o.handle())
		}
	}
	return nil
}

// classOrder is that of the objects of one key.
var classOrder = [...]ck.Class{ck.CKO_PRIVATE_KEY, ck.CKO_PUBLIC_KEY, ck.CKO_SECRET_KEY}

// addKeys adds the objects of keys that match.
func (q *request) addKeys(s *search, keys []*kms.TokenKey) error {
	only, anyClass := s.class()
	for _, t := range keys {
		for _, class := range classOrder {
			if !anyClass && class != only || class != ck.CKO_PUBLIC_KEY && !s.private {
				continue
			}
			k, err := q.front.newKMSKey(q.actor(), t, class)
			if err != nil { // its public key can't be read: the other keys can
				q.failed(err, aboutObject)
				continue
			}
			if k != nil && matches(k, s.template) {
				s.found = append(s.found, k.handle())
			}
		}
	}
	return nil
}

// matches says whether an object has all attributes of a template. What is secret matches nothing, readable or not: nobody can try values.
func matches(o object, template values) bool {
	for i := range template {
		if secretClass(o.class()) && slices.Contains(secretParts, template[i].Type) {
			return false
		}
		v, rv := o.attribute(template[i].Type)
		if rv != ck.CKR_OK || !sameValue(v, template[i].Value) {
			return false
		}
	}
	return true
}

// findObjects is C_FindObjects.
func (q *request) findObjects() ck.RV {
	room := q.in.Room()
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	s := q.session.searching()
	if s == nil {
		return ck.CKR_OPERATION_NOT_INITIALIZED
	}
	s.private = s.private && q.privateAllowed() // the PIN may have been changed
	want := int(min(room.Size, maxFound))
	if s.keys && len(s.found)-s.fetched < want {
		if rv := q.compute(func() ck.RV { return q.walk(s, want) }); rv != ck.CKR_OK {
			return rv
		}
	}
	n := min(len(s.found)-s.fetched, want)
	handles := make([]uint64, n)
	for i, h := range s.found[s.fetched:][:n] {
		handles[i] = uint64(h)
	}
	if s.fetched += n; s.fetched == len(s.found) {
		s.found, s.fetched = nil, 0
	}
	if !s.keys {
		s.template.wipe()
		s.template = nil
	}
	if rv := q.weigh(s); rv != ck.CKR_OK {
		return rv
	}
	q.out.Ulongs(p11rpc.Room{Size: uint32(n)}, handles)
	return ck.CKR_OK
}

// walk looks at keys, page by page, until the search has as many as are wanted or there are no more.
func (q *request) walk(s *search, want int) ck.RV {
	for s.keys && len(s.found)-s.fetched < want {
		keys, next, more, err := q.front.cfg.Service.TokenKeys(q.ctx, q.actor(), q.session.instance, s.after, keyPage)
		if err != nil {
			return q.failed(err, aboutToken)
		}
		s.after, s.keys = next, more
		if err := q.addKeys(s, keys); err != nil {
			return q.failed(err, aboutToken)
		}
	}
	return ck.CKR_OK
}

// maxFound is how many handles one call gives: they fit into a frame.
const maxFound = 1 << 16

// findObjectsFinal is C_FindObjectsFinal.
func (q *request) findObjectsFinal() ck.RV {
	if rv := q.arguments(); rv != ck.CKR_OK {
		return rv
	}
	if q.session.searching() == nil {
		return ck.CKR_OPERATION_NOT_INITIALIZED
	}
	q.session.endSearch()
	return ck.CKR_OK
}
