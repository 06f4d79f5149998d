package p11rpc

import "io"

const (
	firstBuffer = 4 << 10  // octets: many requests, or the beginning of a long one
	keptBuffer  = 64 << 10 // what a connection that is idle keeps at most
)

// Frame is a request or an answer as it came: parts of the buffer of an Input, valid until its Done. Who gives a body to another goroutine
// copies it.
type Frame struct {
	Serial        uint32
	Options, Body []byte
	TooLong       bool // the body was over the limit: it is discarded, and so are the options
}

// Input takes frames out of a stream, with one read for as many as have come. It belongs to one goroutine. Its memory follows what has
// come, at most four times that, and not what a header announces; it is used again for the next frames, and what was in it is wiped:
// there are PINs, keys and plaintexts among the arguments.
type Input struct {
	Limit int // octets of a body; MaxBody if 0. Longer ones are discarded as they come

	buf  []byte // what was read; of that, buf[done:] is not done with
	done int
	size int // of the frame that Next gave, at buf[done:]
	need int // octets at buf[done:] that the next frame has, as far as is known

	discard int    // octets that are still to come of a frame that is too long
	serial  uint32 // its serial
}

// Fill reads once from r. It returns an error only if nothing came.
func (in *Input) Fill(r io.Reader) error {
	if in.done > 0 && cap(in.buf)-in.done < in.need {
		n := copy(in.buf, in.buf[in.done:])
		clear(in.buf[n:])
		in.buf, in.done = in.buf[:n], 0
	}
	if len(in.buf) == cap(in.buf) {
		grown := make([]byte, len(in.buf), max(firstBuffer, min(in.need, 4*cap(in.buf))))
		copy(grown, in.buf)
		clear(in.buf)
		in.buf = grown
	}
	n, err := r.Read(in.buf[len(in.buf):cap(in.buf)])
	in.buf = in.buf[:len(in.buf)+n]
	if n > 0 {
		return nil
	}
	return err
}

// Octet takes one octet, the offer or the answer to it, if it has come.
func (in *Input) Octet() (b byte, ok bool) {
	if in.done == len(in.buf) {
		return 0, false
	}
	b = in.buf[in.done]
	in.done++
	in.recycle()
	return b, true
}

// Next gives the next frame, if all of it has come; Done must be called before the one after it. After ErrFrame nothing more can be read.
func (in *Input) Next() (f Frame, ok bool, err error) {
	if in.discard > 0 {
		return in.skip()
	}
	have := in.buf[in.done:]
	in.need = HeaderSize
	if len(have) < HeaderSize {
		return Frame{}, false, nil
	}
	h, err := ParseHeader(have)
	if err != nil {
		return Frame{}, false, err
	}
	in.need += h.Options + h.Body
	if h.Body > in.limit() {
		in.discard, in.serial = in.need, h.Serial
		in.need = 0
		return in.skip()
	}
	if len(have) < in.need {
		return Frame{}, false, nil
	}
	in.size = in.need
	body := HeaderSize + h.Options
	return Frame{Serial: h.Serial, Options: have[HeaderSize:body:body], Body: have[body:in.size:in.size]}, true, nil
}

func (in *Input) limit() int {
	if in.Limit > 0 {
		return in.Limit
	}
	return MaxBody
}

// skip discards what has come of a frame that is too long. When that is all of it, it gives the frame.
func (in *Input) skip() (Frame, bool, error) {
	n := min(in.discard, len(in.buf)-in.done)
	clear(in.buf[in.done : in.done+n])
	in.done += n
	in.discard -= n
	in.recycle()
	if in.discard > 0 {
		return Frame{}, false, nil
	}
	return Frame{Serial: in.serial, TooLong: true}, true, nil
}

// Done ends the use of the frame that Next gave, and wipes it.
func (in *Input) Done() {
	clear(in.buf[in.done : in.done+in.size])
	in.done += in.size
	in.size = 0
	in.recycle()
}

// recycle begins again at the front of a buffer that is empty.
func (in *Input) recycle() {
	if in.done < len(in.buf) {
		return
	}
	in.buf, in.done = in.buf[:0], 0
	if cap(in.buf) > keptBuffer {
		in.buf = nil
	}
}

// Begun says whether something of a frame after the one that Next gave has come.
func (in *Input) Begun() bool { return in.discard > 0 || len(in.buf) > in.done+in.size }

// Buffered says whether Next will give a frame, or an error, after Done: answers can wait for its own then.
func (in *Input) Buffered() bool {
	have := in.buf[in.done+in.size:]
	if len(have) < HeaderSize {
		return false
	}
	h, err := ParseHeader(have)
	return err != nil || h.Body <= in.limit() && len(have) >= HeaderSize+h.Options+h.Body
}

// Rest gives a copy of what has come of a frame that is not whole, for Restore.
func (in *Input) Rest() []byte { return append([]byte(nil), in.buf[in.done+in.size:]...) }

// Discarding says whether a frame that is too long is still coming: Rest can't tell that.
func (in *Input) Discarding() bool { return in.discard > 0 }

// Restore begins with what Rest gave.
func (in *Input) Restore(rest []byte) { in.buf, in.done = append([]byte(nil), rest...), 0 }

// Wipe ends the use of the Input.
func (in *Input) Wipe() {
	clear(in.buf[:cap(in.buf)])
	*in = Input{Limit: in.Limit}
}
