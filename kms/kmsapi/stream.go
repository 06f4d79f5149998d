package kmsapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
)

// Limits of a stream.
const (
	maxChunk = 128       // items that the service gets at a time
	maxFrame = 64 << 10  // octets of one item in octet form; the service has closer limits
	maxLine  = 48 << 10  // octets of one NDJSON line: base64 of the largest plaintext, and a context in any spelling
	window   = 128 << 10 // octets that are read ahead; more than either
)

// framing finds items in what was read.
type framing interface {
	// next looks for one item at the front of b; end says that nothing will follow b. It gives how many octets it
	// used: 0 means that it needs more, or that b is empty. item is nil if what it used has no item in it. fault is why
	// an item has no meaning of its own. A *doorError as err means that no further item can be found.
	next(b []byte, end bool) (used int, item []byte, fault, err error)
	// begin and end stand around an answer, which is everything that was appended between them. start is the length
	// that dst had before begin.
	begin(dst []byte, ok bool) []byte
	end(dst []byte, start int) []byte
	json() bool // items and results are JSON texts
}

// lines is the framing of NDJSON. Empty lines are no items.
type lines struct {
	skipping bool // in the rest of a line that was too long, and answered
}

func (l *lines) json() bool { return true }

func (l *lines) next(b []byte, end bool) (used int, item []byte, fault, err error) {
	at := bytes.IndexByte(b, '\n')
	used = at + 1
	if at < 0 && (end || l.skipping || len(b) > maxLine) {
		at, used = len(b), len(b)
	}
	switch {
	case used == 0:
		return 0, nil, nil, nil
	case l.skipping:
		l.skipping = b[used-1] != '\n'
		return used, nil, nil, nil
	case at > maxLine:
		l.skipping = b[used-1] != '\n'
		return used, nil, kms.Invalid("Items", "an item's line may have %d octets.", maxLine), nil
	}
	item = bytes.TrimSpace(b[:at])
	if len(item) == 0 {
		item = nil
	}
	return used, item, nil, nil
}

func (l *lines) begin(dst []byte, _ bool) []byte { return dst }

func (l *lines) end(dst []byte, _ int) []byte { return append(dst, '\n') }

// octetFrames is the framing of application/vnd.keyward.batch.
type octetFrames struct{}

func (octetFrames) json() bool { return false }

func (octetFrames) next(b []byte, end bool) (used int, item []byte, fault, err error) {
	if len(b) >= 4 {
		size := binary.BigEndian.Uint32(b)
		if size > maxFrame {
			return 0, nil, nil, errParse.with("An item announces %d octets; it may have %d. The stream ends here.", size, maxFrame)
		}
		if used = 4 + int(size); len(b) >= used {
			return used, b[4:used:used], nil, nil
		}
	}
	if end && len(b) > 0 {
		return 0, nil, nil, errParse.with("The stream ended inside an item.")
	}
	return 0, nil, nil, nil
}

func (octetFrames) begin(dst []byte, ok bool) []byte {
	if ok {
		return append(dst, 0, 0, 0, 0, 0)
	}
	return append(dst, 1, 0, 0, 0, 0)
}

func (octetFrames) end(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-5))
	return dst
}

// reader reads ahead of the items. Octets of b[from:to] were read and not used yet.
type reader struct {
	src      io.Reader
	b        []byte
	from, to int
	err      error // from src; io.EOF at the end
}

var windows = sync.Pool{New: func() any { b := make([]byte, window); return &b }}

// fill reads what is there, waiting if nothing is. Items that were found before are not valid any more.
func (r *reader) fill() {
	if r.from > 0 {
		r.to = copy(r.b, r.b[r.from:r.to])
		r.from = 0
	}
	var n int
	for n == 0 && r.err == nil {
		n, r.err = r.src.Read(r.b[r.to:])
	}
	r.to += n
}

// renew takes other memory, because somebody may still use the old.
func (r *reader) renew() {
	fresh := make([]byte, window)
	r.to = copy(fresh, r.b[r.from:r.to])
	r.b, r.from = fresh, 0
}

// serveStream answers items as they come. The sender may read answers while it sends, and must if it sends much: this
// side never keeps more than one chunk. A chunk is what has arrived, so a lone item is answered at once.
//
// An error of the first chunk as a whole is the answer of the call, with its status. Later there is no way to say such
// a thing but to every item of the chunk. When the framing is lost, or the body breaks off, a last answer that belongs
// to no item says so, and the stream ends.
func (b *batch[Req, Resp, Item, Result]) serveStream(mediaType string, frames framing) error {
	rc := http.NewResponseController(b.w)
	if err := rc.EnableFullDuplex(); err != nil {
		return err
	}
	memory := windows.Get().(*[]byte)
	in := &reader{src: b.r.Body, b: *memory}
	out := takeBuffer()
	defer func() {
		// The server drains what the sender still sends, to be able to use the connection again; not for long.
		_ = rc.SetReadDeadline(time.Now().Add(drainTimeout))
		b.unlimitWriting(rc)
		out.release()
		if &in.b[0] == &(*memory)[0] && !b.abandoned {
			clear(in.b)
			windows.Put(memory)
		}
		b.reset()
	}()

	for {
		broken := b.take(in, frames)
		if len(b.faults) == 0 && broken == nil {
			if in.err != nil {
				if broken = readError(in.err, 0); broken == nil {
					break // the end, and nothing left over
				}
			} else {
				if err := rc.SetReadDeadline(time.Now().Add(b.h.streamIdle)); err != nil {
					return b.interrupted(err)
				}
				in.fill()
				continue
			}
		}
		b.perform()
		if b.err != nil && !b.started {
			return b.err
		}
		out.b = b.render(out.b[:0], frames)
		if broken != nil {
			failed := b.itemError(broken)
			start := len(out.b)
			out.b = frames.end(appendItemError(frames.begin(out.b, false), failed), start)
		}
		if err := b.send(rc, mediaType, out.b); err != nil {
			return b.interrupted(err)
		}
		clear(out.b)
		if broken != nil {
			return nil
		}
		if b.abandoned {
			in.renew() // items in octet form are parts of it
		}
		b.reset()
	}
	if !b.started {
		return b.interrupted(b.send(rc, mediaType, nil)) // an empty stream has an empty answer
	}
	return nil
}

// take fills the chunk with the items that were read. The error, if there is one, ends the stream after them.
func (b *batch[Req, Resp, Item, Result]) take(in *reader, frames framing) error {
	for len(b.faults) < maxChunk {
		used, item, fault, err := frames.next(in.b[in.from:in.to], in.err == io.EOF)
		if err != nil {
			return err
		}
		if used == 0 {
			return nil
		}
		in.from += used
		switch {
		case fault != nil:
			b.faults = append(b.faults, fault)
		case item == nil:
		case frames.json():
			b.addJSON(item)
		default:
			b.addOctets(item)
		}
	}
	return nil
}

// render appends the answers of the chunk.
func (b *batch[Req, Resp, Item, Result]) render(dst []byte, frames framing) []byte {
	b.each(func(_ int, result *Result, failed *kmswire.ItemError) {
		start := len(dst)
		dst = frames.begin(dst, failed == nil)
		if failed != nil || frames.json() {
			dst = b.appendItemJSON(dst, result, failed)
		} else {
			dst = b.codec.appendOctets(dst, result)
		}
		dst = frames.end(dst, start)
	})
	return dst
}

// send writes answers and sees that they leave.
func (b *batch[Req, Resp, Item, Result]) send(rc *http.ResponseController, mediaType string, answers []byte) error {
	if !b.started {
		header := b.w.Header()
		header["Content-Type"] = []string{mediaType}
		header["Cache-Control"] = noStore
		header["X-Acs-Request-Id"] = []string{b.id}
		b.started = true
		b.w.WriteHeader(http.StatusOK)
	}
	if err := rc.SetWriteDeadline(time.Now().Add(b.h.streamIdle)); err != nil {
		return err
	}
	if _, err := b.w.Write(answers); err != nil {
		return err
	}
	return rc.Flush()
}

// interrupted deals with a connection that can't be used any more. Before the first answer the error is the call's;
// after it the stream is broken off, so that it does not look complete.
func (b *batch[Req, Resp, Item, Result]) interrupted(err error) error {
	if err == nil || !b.started {
		return err
	}
	b.h.log.Debug().Str("request_id", b.id).Str("action", b.logName()).Err(err).Msg("stream interrupted")
	if errors.Is(err, http.ErrNotSupported) {
		b.h.log.Error().Str("request_id", b.id).Err(err).Msg("the server can't do deadlines")
	}
	panic(http.ErrAbortHandler)
}
