package kmsclient

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"

	"github.com/keyward/keyward/kms/kmswire"
)

// Format is how the items of a streamed batch travel. Its value is the Content-Type.
type Format string

// The formats that stream. Both directions run at the same time, and either side slows the other down.
const (
	// NDJSON has one item's JSON on a line, and one result's JSON on a line for it.
	NDJSON Format = "application/x-ndjson"
	// Octets has, for an item, a big-endian uint32 length and the octets; for a result, a status octet (0 good, 1
	// failed), a length and the octets, which are the error's JSON when it failed.
	Octets Format = "application/vnd.keyward.batch"
)

// MaxItem is the longest item or result of an octet batch, in octets, that this package sends or takes. No action has a
// longer one; the limit bounds what a broken peer can make us allocate.
const MaxItem = 1 << 20

// Stream does a batch action over items that are already in format: it sends what body gives, until io.EOF, and returns
// the results as they come, one for each item and in order. Both directions run at the same time, so the caller must
// read the results while body is still giving items, or both stop. The caller closes the results.
//
// body is read by another goroutine, which may still be inside Read when Stream or Close has returned.
func (c *Client) Stream(ctx context.Context, action string, req any, format Format, body io.Reader) (io.ReadCloser, error) {
	d, err := c.open(ctx, action, req, format)
	if err != nil {
		return nil, err
	}
	go func() {
		_, err := io.Copy(d.pipe, body)
		d.pipe.CloseWithError(err) // which is its end if err is nil
	}()
	if <-d.opened; d.err != nil {
		d.cancel()
		return nil, d.err
	}
	return streamResults{d}, nil
}

// streamResults are the results of Stream.
type streamResults struct{ *duplex }

func (s streamResults) Read(p []byte) (int, error) { return s.resp.Body.Read(p) }

func (s streamResults) Close() error { return s.close() }

// duplex is one streamed batch: an upper half that one goroutine writes and a lower half that one goroutine reads.
type duplex struct {
	ctx    context.Context // of the whole exchange
	action string
	pipe   *io.PipeWriter
	w      *bufio.Writer // owned by the sender
	cancel context.CancelFunc

	opened chan struct{} // closed when resp and err are set
	resp   *http.Response
	err    error

	r *bufio.Reader // owned by the receiver; nil before the first receive
}

// streamBody is the body of a streamed batch. A transport that gives up, as its context or the connection has ended, first waits until its
// read of the body returns; but a caller that waits for an answer gives no items. So such a read ends by itself.
type streamBody struct {
	*io.PipeReader

	mu   sync.Mutex // guards what follows
	conn *watchedConn
	read bool // some of the body went to conn: it can't go to another one
}

// Read reads from the pipe, unless the connection has ended: the transport may then try another one.
func (b *streamBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	conn := b.conn
	b.read = true
	b.mu.Unlock()
	select {
	case <-conn.closed:
		return 0, io.ErrClosedPipe
	default:
		return b.PipeReader.Read(p)
	}
}

// use says which connection the body is going to.
func (b *streamBody) use(conn *watchedConn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn = conn
}

// connClosed ends the body if some of it was lost with the connection.
func (b *streamBody) connClosed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read {
		b.PipeReader.Close()
	}
}

// open starts the exchange. The goroutine that waits for the answer's head ends by close at the latest.
func (c *Client) open(ctx context.Context, action string, req any, format Format) (*duplex, error) {
	params, err := encode(req)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	opened := make(chan struct{})
	body := &streamBody{PipeReader: pr}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		conn := info.Conn.(*watchedConn)
		body.use(conn)
		go func() { // ends with opened at the latest
			select {
			case <-conn.closed:
				body.connClosed()
			case <-ctx.Done():
				pr.Close()
			case <-opened:
			}
		}()
	}})
	hreq, err := c.newRequest(ctx, action, params, string(format), body)
	if err != nil {
		cancel()
		return nil, err
	}
	d := &duplex{ctx: ctx, action: action, pipe: pw, w: bufio.NewWriterSize(pw, 64<<10), cancel: cancel, opened: opened}
	go func() {
		defer close(opened)
		d.resp, d.err = c.send(hreq, action)
		if errors.Is(d.err, io.ErrClosedPipe) { // we ended the body, and the transport noticed that before it noticed why
			d.err = d.recvErr(io.ErrUnexpectedEOF)
		}
		if d.err != nil {
			// A sender that waits for room must hear of it.
			pr.CloseWithError(d.err)
		}
	}()
	return d, nil
}

func (d *duplex) sendErr(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.ErrClosedPipe) {
		// The transport dropped the body, which it does when the exchange ends early. Its reason says more.
		if <-d.opened; d.err != nil {
			return d.err
		}
	}
	if err == d.errNow() {
		return err
	}
	return fmt.Errorf("kmsclient: %s: sending: %w", d.action, err)
}

// errNow is why the exchange failed, if that is known by now.
func (d *duplex) errNow() error {
	select {
	case <-d.opened:
		return d.err
	default:
		return nil
	}
}

func (d *duplex) flush() error { return d.sendErr(d.w.Flush()) }

func (d *duplex) closeSend() error {
	if err := d.flush(); err != nil {
		d.pipe.CloseWithError(err)
		return err
	}
	return d.pipe.Close()
}

// recvErr says why nothing more is received. Whatever the transport says when the context has ended, that is why.
func (d *duplex) recvErr(err error) error {
	if why := d.ctx.Err(); why != nil {
		err = why
	}
	return fmt.Errorf("kmsclient: %s: receiving: %w", d.action, err)
}

// reader waits for the head of the answer.
func (d *duplex) reader() (*bufio.Reader, error) {
	if d.r != nil {
		return d.r, nil
	}
	<-d.opened
	if d.err != nil {
		return nil, d.err
	}
	d.r = bufio.NewReaderSize(d.resp.Body, 64<<10)
	return d.r, nil
}

func (d *duplex) close() error {
	d.cancel()
	d.pipe.CloseWithError(context.Canceled)
	<-d.opened
	if d.err != nil {
		return nil // the sender or receiver was told
	}
	return d.resp.Body.Close()
}

// OctetBatch is a batch action in the Octets format. One goroutine may send while another receives.
type OctetBatch struct {
	d    *duplex
	item []byte // the last result, reused
}

// OpenOctets begins a batch action; req carries its parameters, its Items are not looked at. The caller calls Close.
func (c *Client) OpenOctets(ctx context.Context, action string, req any) (*OctetBatch, error) {
	d, err := c.open(ctx, action, req, Octets)
	if err != nil {
		return nil, err
	}
	return &OctetBatch{d: d}, nil
}

// Send gives one item: a plaintext, a blob or a digest. It may be kept back until Flush or CloseSend.
func (b *OctetBatch) Send(item []byte) error {
	if len(item) > MaxItem {
		return fmt.Errorf("kmsclient: %s: an item of %d octets is over the limit of %d", b.d.action, len(item), MaxItem)
	}
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(item)))
	if _, err := b.d.w.Write(head[:]); err != nil {
		return b.d.sendErr(err)
	}
	_, err := b.d.w.Write(item)
	return b.d.sendErr(err)
}

// Flush sends what was kept back.
func (b *OctetBatch) Flush() error { return b.d.flush() }

// CloseSend says that no item will follow.
func (b *OctetBatch) CloseSend() error { return b.d.closeSend() }

// Recv returns the next result, or the error of that item alone as itemErr. The octets may be read until the next Recv.
// err is io.EOF after the last result; any other err ends the batch.
func (b *OctetBatch) Recv() (result []byte, itemErr *Error, err error) {
	r, err := b.d.reader()
	if err != nil {
		return nil, nil, err
	}
	status, octets, err := ReadOctetResult(r, b.item)
	b.item = octets
	switch {
	case err == io.EOF:
		return nil, nil, io.EOF
	case err != nil:
		return nil, nil, b.d.recvErr(err)
	case status == 0:
		return octets, nil, nil
	}
	itemErr, err = octetError(octets)
	return nil, itemErr, err
}

// Close ends the batch and frees what it holds, whether it came to its end or not.
func (b *OctetBatch) Close() error { return b.d.close() }

// ReadOctetResult reads one result of the Octets format. It uses buf when that is large enough. io.EOF means that there
// is none; a result that is cut gives io.ErrUnexpectedEOF.
func ReadOctetResult(r io.Reader, buf []byte) (status byte, octets []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, buf, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if head[0] > 1 {
		return 0, buf, fmt.Errorf("unknown status %d", head[0])
	}
	if n > MaxItem {
		return 0, buf, fmt.Errorf("a result of %d octets is over the limit of %d", n, MaxItem)
	}
	if uint32(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, buf, err
	}
	return head[0], buf, nil
}

// WriteOctetResult writes one result of the Octets format.
func WriteOctetResult(w io.Writer, status byte, octets []byte) error {
	head := [5]byte{status}
	binary.BigEndian.PutUint32(head[1:], uint32(len(octets)))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(octets)
	return err
}

func octetError(octets []byte) (*Error, error) {
	var item kmswire.ItemError
	if err := json.Unmarshal(octets, &item); err != nil || item.Code == "" {
		return nil, errors.New("kmsclient: a failed item carries no error that can be read")
	}
	return &Error{Code: item.Code, Message: item.Message}, nil
}

// LineBatch is a batch action in the NDJSON format. One goroutine may send while another receives.
type LineBatch struct {
	d   *duplex
	enc *json.Encoder
	dec *json.Decoder
}

// OpenLines begins a batch action; req carries its parameters, its Items are not looked at. The caller calls Close.
func (c *Client) OpenLines(ctx context.Context, action string, req any) (*LineBatch, error) {
	d, err := c.open(ctx, action, req, NDJSON)
	if err != nil {
		return nil, err
	}
	return &LineBatch{d: d, enc: json.NewEncoder(d.w)}, nil
}

// Send gives one item, such as a *kmswire.BatchEncryptItem. It may be kept back until Flush or CloseSend.
func (b *LineBatch) Send(item any) error { return b.d.sendErr(b.enc.Encode(item)) }

// Flush sends what was kept back.
func (b *LineBatch) Flush() error { return b.d.flush() }

// CloseSend says that no item will follow.
func (b *LineBatch) CloseSend() error { return b.d.closeSend() }

// Recv reads the next result into result, such as a *kmswire.BatchEncryptResult, whose ItemError says if the item
// failed. io.EOF comes after the last result; any other error ends the batch.
func (b *LineBatch) Recv(result any) error {
	if b.dec == nil {
		r, err := b.d.reader()
		if err != nil {
			return err
		}
		b.dec = json.NewDecoder(r)
	}
	err := b.dec.Decode(result)
	if err != nil && err != io.EOF {
		return b.d.recvErr(err)
	}
	return err
}

// Close ends the batch and frees what it holds, whether it came to its end or not.
func (b *LineBatch) Close() error { return b.d.close() }
