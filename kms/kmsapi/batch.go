package kmsapi

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
	"github.com/keyward/keyward/kms/kmswire/flatjson"
)

// The media types of a batch's body.
const (
	typeJSON   = "application/json"
	typeLines  = "application/x-ndjson"
	typeOctets = "application/vnd.keyward.batch"
)

// items is what a batch action's items and results are made of, and how they look on the wire. There is one of these
// for each of the four actions, in items.go.
type items[Req, Resp, Item, Result any] struct {
	members []member[Item]                 // of an item in JSON, all required
	context func(*Item) *map[string]string // an item's own EncryptionContext; nil if such items have none

	// fromOctets sets an item from its octet form. The item refers to the octets, which stay until its answer is
	// written.
	fromOctets func(item *Item, octets []byte) error

	set     func(req *Req, items []Item)
	results func(resp *Resp) []Result
	head    func(dst []byte, resp *Resp) []byte // members between RequestId and Items, each with a comma before it
	failed  func(*Result) *kmswire.ItemError    // nil for an item that worked

	appendJSON   func(dst []byte, result *Result) []byte // the members of a result that worked, without braces
	appendOctets func(dst []byte, result *Result) []byte
	wipe         func(*Result) // plaintext, when the answer is rendered; nil if there is none
}

// member is a string of base64 in an item.
type member[Item any] struct {
	name  string
	field func(*Item) *[]byte
}

// batchOp is a row whose items are in the body.
func batchOp[Req, Resp, Item, Result any, P answer[Resp]](action string, serve service[Req, Resp], codec *items[Req, Resp, Item, Result]) operation {
	row := op[Req, Resp, P](action, serve)
	row.maxBody = kmswire.MaxBatchBody
	row.run = nil
	row.batch = func(c *call, mediaType string) error {
		b := &batch[Req, Resp, Item, Result]{call: c, codec: codec, serve: serve}
		if err := c.decode(&b.req); err != nil {
			return err
		}
		switch mediaType {
		case typeJSON:
			return b.serveJSON()
		case typeLines:
			return b.serveStream(mediaType, &lines{})
		case typeOctets:
			return b.serveStream(mediaType, octetFrames{})
		}
		return errMediaType.with("It takes %s, %s or %s.", typeJSON, typeLines, typeOctets)
	}
	return row
}

// batch is one batch call while it is served. It works on one chunk of items at a time: add them, perform, render.
type batch[Req, Resp, Item, Result any] struct {
	*call
	codec *items[Req, Resp, Item, Result]
	serve service[Req, Resp]
	req   Req // without items

	// The chunk. Each item that was added is at a place; it stands in items, or has an error in faults.
	items  []Item
	faults []error // one for each place; nil if the item is well formed
	arena  arena   // decoded octets of items that came as JSON

	resp      *Resp
	results   []Result // one for each of items; nil if the call as a whole failed or was not made
	err       error    // of the call as a whole
	abandoned bool     // the call ended by its deadline, or because the caller went away; work of it may still run
}

// reset forgets the chunk. Its octets are wiped, unless work that was given up may still read them: then their memory
// is left to the garbage collector.
func (b *batch[Req, Resp, Item, Result]) reset() {
	if b.abandoned {
		b.items, b.arena = nil, arena{}
	}
	clear(b.items)
	clear(b.faults)
	b.items, b.faults = b.items[:0], b.faults[:0]
	b.arena.reset()
	b.resp, b.results, b.err, b.abandoned = nil, nil, nil, false
}

// addJSON adds an item from its JSON text.
func (b *batch[Req, Resp, Item, Result]) addJSON(text []byte) {
	var item Item
	err := b.parse(text, &item)
	b.add(item, err)
}

// addOctets adds an item from its octet form.
func (b *batch[Req, Resp, Item, Result]) addOctets(octets []byte) {
	var item Item
	err := b.codec.fromOctets(&item, octets)
	b.add(item, err)
}

func (b *batch[Req, Resp, Item, Result]) add(item Item, err error) {
	if err == nil {
		b.items = append(b.items, item)
	}
	b.faults = append(b.faults, err)
}

// parse reads an item strictly: an object that has the members of this action, each once, and nothing else.
func (b *batch[Req, Resp, Item, Result]) parse(text []byte, item *Item) error {
	s := flatjson.NewScanner(text)
	if s.Peek() != '{' || s.Take('{') != nil {
		return kms.Invalid("Items", "an item must be a JSON object.")
	}
	malformed := func(err error) error { return kms.Invalid("Items", "an item is not well formed: %v.", err) }
	contextSeen := false
	for first := true; ; first = false {
		more, err := s.More('}', first)
		if err != nil {
			return malformed(err)
		}
		if !more {
			break
		}
		name, err := s.Text()
		if err != nil {
			return malformed(err)
		}
		if err := s.Take(':'); err != nil {
			return malformed(err)
		}
		if string(name) == "EncryptionContext" && b.codec.context != nil && !contextSeen {
			contextSeen = true
			value, err := s.Value()
			if err != nil {
				return malformed(err)
			}
			m, err := kmswire.ParseContext(value)
			if err != nil {
				return kms.Invalid("EncryptionContext", "it is refused because %v.", err)
			}
			*b.codec.context(item) = m
			continue
		}
		field := b.field(item, name)
		if field == nil {
			return kms.Invalid("Items", "an item of this action has no member %.40q.", name)
		}
		if *field != nil {
			return kms.Invalid("Items", "the member %q is there twice.", name)
		}
		if s.Peek() != '"' {
			return kms.Invalid(string(name), "it must be a string.")
		}
		value, err := s.Text()
		if err != nil {
			return malformed(err)
		}
		*field, err = b.arena.decode(value)
		if err != nil {
			return kms.Invalid(string(name), "it is refused because %v.", err)
		}
	}
	if err := s.End(); err != nil {
		return malformed(err)
	}
	for _, m := range b.codec.members {
		if len(*m.field(item)) == 0 {
			return kms.Missing(m.name)
		}
	}
	return nil
}

func (b *batch[Req, Resp, Item, Result]) field(item *Item, name []byte) *[]byte {
	for _, m := range b.codec.members {
		if m.name == string(name) {
			return m.field(item)
		}
	}
	return nil
}

// perform has the service do the chunk. A chunk without one well-formed item is not given to it. A dry run has no
// results, so an item that is not well formed is what the call fails of.
func (b *batch[Req, Resp, Item, Result]) perform() {
	if i := slices.IndexFunc(b.faults, func(err error) bool { return err != nil }); i >= 0 && b.dryRun() {
		b.err = kms.Errorf(kms.DryRunInvalid, "item %d: %v", i+1, b.faults[i])
		return
	}
	if len(b.items) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(kms.WithRequestID(b.r.Context(), b.id), b.timeout())
	defer cancel()
	req := b.req
	b.codec.set(&req, b.items)
	b.resp, b.err = b.serve(b.h.svc, ctx, b.actor, &req)
	if b.err == nil && b.resp == nil {
		b.err = errors.New("the service gave neither an answer nor an error")
	}
	if b.err == nil {
		b.results = b.codec.results(b.resp)
		if len(b.results) != len(b.items) {
			b.err = fmt.Errorf("the service gave %d results for %d items", len(b.results), len(b.items))
		}
	}
	b.abandoned = ctx.Err() != nil
}

// each goes over the places of the chunk: a result, or an error.
func (b *batch[Req, Resp, Item, Result]) each(do func(place int, result *Result, failed *kmswire.ItemError)) {
	var whole *kmswire.ItemError
	if b.err != nil {
		whole = b.itemError(b.err)
	}
	done := 0
	for place, fault := range b.faults {
		if fault != nil {
			do(place, nil, b.itemError(fault))
			continue
		}
		if whole != nil {
			do(place, nil, whole)
			continue
		}
		result := &b.results[done]
		done++
		if failed := b.codec.failed(result); failed != nil {
			if failed.Err != nil {
				failed = b.itemError(failed.Err)
			}
			do(place, nil, failed)
		} else {
			do(place, result, nil)
		}
		if b.codec.wipe != nil {
			b.codec.wipe(result)
		}
	}
}

// appendItemJSON renders one place as a JSON object.
func (b *batch[Req, Resp, Item, Result]) appendItemJSON(dst []byte, result *Result, failed *kmswire.ItemError) []byte {
	if failed != nil {
		return appendItemError(dst, failed)
	}
	return append(b.codec.appendJSON(append(dst, '{'), result), '}')
}

func appendItemError(dst []byte, failed *kmswire.ItemError) []byte {
	dst = appendString(append(dst, `{"Code":`...), failed.Code)
	dst = appendString(append(dst, `,"Message":`...), failed.Message)
	return append(dst, '}')
}

// serveJSON serves a batch whose body is one JSON text. It is one call of the service.
func (b *batch[Req, Resp, Item, Result]) serveJSON() error {
	body := takeBuffer()
	defer body.release() // items are decoded into the arena, and don't refer to it
	defer b.reset()
	if err := b.readBody(body, b.row.maxBody); err != nil {
		return err
	}
	if err := b.addAll(body.b); err != nil {
		return err
	}
	if b.perform(); b.err != nil {
		return b.err
	}
	out := takeBuffer()
	defer out.release()
	out.b = appendString(append(out.b, `{"RequestId":`...), b.id)
	resp := b.resp
	if resp == nil {
		resp = new(Resp)
	}
	out.b = append(b.codec.head(out.b, resp), `,"Items":[`...)
	b.each(func(place int, result *Result, failed *kmswire.ItemError) {
		if place > 0 {
			out.b = append(out.b, ',')
		}
		out.b = b.appendItemJSON(out.b, result, failed)
	})
	out.b = append(out.b, "]}\n"...)
	b.write(200, out.b)
	return nil
}

// addAll adds the items of {"Items":[...]}.
func (b *batch[Req, Resp, Item, Result]) addAll(body []byte) error {
	s := flatjson.NewScanner(body)
	malformed := func(err error) error { return errParse.with("The body is not {\"Items\":[...]}: %v.", err) }
	if err := s.Take('{'); err != nil {
		return malformed(err)
	}
	name, err := s.Text()
	if err != nil {
		return malformed(err)
	}
	if string(name) != "Items" {
		return malformed(errors.New("it has another member"))
	}
	if err := s.Take(':'); err != nil {
		return malformed(err)
	}
	if err := s.Take('['); err != nil {
		return malformed(err)
	}
	for first := true; ; first = false {
		more, err := s.More(']', first)
		if err != nil {
			return malformed(err)
		}
		if !more {
			break
		}
		if len(b.faults) == kmswire.MaxBatchItems {
			return kms.Invalid("Items", "there may be %d items in one JSON batch; a stream has no such limit.", kmswire.MaxBatchItems)
		}
		text, err := s.Value()
		if err != nil {
			return malformed(err)
		}
		b.addJSON(text)
	}
	if err := s.Take('}'); err != nil {
		return malformed(err)
	}
	if err := s.End(); err != nil {
		return malformed(err)
	}
	if len(b.faults) == 0 {
		return kms.Missing("Items")
	}
	return nil
}

// arena is memory for the decoded octets of a chunk's items. It grows by pieces that never move, because items refer to
// them. The chunk of a stream fits in one.
type arena struct {
	pieces []*[]byte
}

// arenaPiece is how many octets a piece of an arena has, if no item needs more.
const arenaPiece = window

var arenaPieces = sync.Pool{New: func() any { b := make([]byte, 0, arenaPiece); return &b }}

// decode decodes base64 into the arena. The octets are valid until reset; they are never nil.
func (a *arena) decode(text []byte) ([]byte, error) {
	need := base64.StdEncoding.DecodedLen(len(text))
	var piece *[]byte
	if n := len(a.pieces); n > 0 {
		piece = a.pieces[n-1]
	}
	if piece == nil || cap(*piece)-len(*piece) < need {
		if need <= arenaPiece {
			piece = arenaPieces.Get().(*[]byte)
		} else {
			large := make([]byte, 0, need)
			piece = &large
		}
		a.pieces = append(a.pieces, piece)
	}
	start := len(*piece)
	grown, err := kmswire.DecodeBase64(*piece, text)
	if err != nil {
		return nil, err
	}
	*piece = grown
	return grown[start:len(grown):len(grown)], nil
}

// reset wipes the arena and gives its memory back.
func (a *arena) reset() {
	for _, piece := range a.pieces {
		clear(*piece)
		if *piece = (*piece)[:0]; cap(*piece) == arenaPiece {
			arenaPieces.Put(piece)
		}
	}
	a.pieces = a.pieces[:0]
}
