package pkcs11front

import (
	"context"
	"runtime/debug"
	"strconv"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/pkcs11front/ck"
	"github.com/keyward/keyward/pkcs11front/p11rpc"
)

// request is a call that is being answered. It belongs to one goroutine, and so do the octets that its Reader gives out: they are wiped
// when it is answered, so what is kept is copied.
type request struct {
	ctx     context.Context // ends with the connection, or after a minute or two
	front   *Front
	conn    *conn
	app     *application // nil only in C_Initialize
	session *session     // of calls that name one, with its mu held. The session's number is read already
	dialect p11rpc.Dialect
	in      *p11rpc.Reader
	out     *p11rpc.Writer

	who       *kms.Actor
	call      uint64 // of the connection, counted
	serial    uint32
	number    int      // of the call, 0 for none that there is
	row       *callRow // nil: there is none
	sessionID uint64
	early     ck.RV // what is wrong with the frame

	raw    []byte // the body that came
	reader p11rpc.Reader
	writer p11rpc.Writer

	// Of a request in a lane.
	next  *request // after it; guarded by conn.mu
	body  []byte   // its own
	frame []byte   // of its answer
}

// recycle gives a request of a lane back.
func (q *request) recycle() {
	clear(q.body)
	clear(q.frame)
	if cap(q.body) > keptBuffer {
		q.body = nil
	}
	if cap(q.frame) > keptBuffer {
		q.frame = nil
	}
	*q = request{body: q.body[:0], frame: q.frame[:0], reader: q.reader, writer: q.writer}
	requests.Put(q)
}

// actor is who is behind the request; nil only in calls that have no session.
func (q *request) actor() *kms.Actor { return q.who }

// name is the call's.
func (q *request) name() string { return nameOfCall(q.number) }

// numCalls is one more than the last number of a call.
const numCalls = 90

// callTable has calls and p11rpc.Calls by number.
var callTable = func() (table [numCalls]struct {
	row      callRow
	request  string
	response [p11rpc.Keyward + 1]string // by dialect
}) {
	for _, call := range p11rpc.Calls {
		at := &table[call.ID]
		at.row, at.request = calls[call.ID], call.Request
		for d := range at.response {
			at.response[d] = p11rpc.Response(p11rpc.Dialect(d), call)
		}
	}
	return table
}()

// parse reads the beginning of a body: the call, its signature, the session. What is wrong is kept for the answer: a frame that came as a whole
// never costs a client its connection.
func (q *request) parse(body []byte) {
	q.in, q.out = &q.reader, &q.writer
	call, signature, arguments, ok := p11rpc.ParseBody(body)
	switch {
	case !ok:
		q.early = ck.CKR_ARGUMENTS_BAD
		return
	case call == p11rpc.ErrorReply || call >= numCalls:
		q.early = ck.CKR_FUNCTION_NOT_SUPPORTED
		return
	}
	at := &callTable[call]
	q.number, q.row = int(call), &at.row
	if string(signature) != at.request {
		q.early = ck.CKR_ARGUMENTS_BAD
		return
	}
	q.reader.Reset(q.dialect, arguments)
	if at.row.session {
		q.sessionID = q.in.Ulong()
	}
}

// answer does the call and appends the frame of its answer to out.
func (q *request) answer(out []byte) []byte {
	begin := len(out)
	q.writer.Reset(q.dialect, p11rpc.AppendAnswer(out, q.serial, p11rpc.CallID(q.number), callTable[q.number].response[q.dialect]))
	rv := q.do()
	q.front.counters.calls[q.number].count(rv)
	written := q.writer.Bytes()
	if rv == ck.CKR_OK && len(written)-begin > p11rpc.HeaderSize+p11rpc.MaxBody {
		rv = ck.CKR_DEVICE_MEMORY
	}
	if rv != ck.CKR_OK {
		clear(written[begin:])
		written = p11rpc.AppendError(written[:begin], q.serial, rv)
	}
	p11rpc.FinishFrame(written[begin:])
	return written
}

// do does the call. A panic is an error like others to the client; the operations of the session, of which nobody knows what state they are in,
// are gone then.
func (q *request) do() (rv ck.RV) {
	defer func() {
		if p := recover(); p != nil {
			q.front.cfg.Log.Error().Str("call", q.name()).Interface("panic", p).Bytes("stack", debug.Stack()).Msg("a PKCS #11 call panicked")
			if q.session != nil {
				q.session.abandon()
			}
			rv = ck.CKR_GENERAL_ERROR
		}
	}()
	switch {
	case q.early != ck.CKR_OK:
		return q.early
	case q.conn.refused:
		return ck.CKR_HOST_MEMORY
	}
	var why string
	if q.who, why = q.conn.peer.Identify(); q.who == nil {
		q.front.stranger(q.conn.peer.UID, why)
	}
	if !untraced[q.number] {
		q.ctx = kms.WithRequestID(q.ctx, q.conn.name+strconv.FormatUint(q.call, 10))
	}
	if q.number != int(p11rpc.C_Initialize) {
		if q.app == nil {
			return ck.CKR_CRYPTOKI_NOT_INITIALIZED
		}
		if q.session, rv = q.app.admit(q.who, q.row.session, q.sessionID); rv != ck.CKR_OK {
			return rv
		}
		if s := q.session; s != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.closed {
				return ck.CKR_SESSION_HANDLE_INVALID
			}
		}
	}
	return q.row.handle(q)
}

// untraced are calls that ask the service for nothing that has an audit event: they have no request ID, which costs as much as some of them do.
var untraced = func() (all [numCalls]bool) {
	for _, call := range []p11rpc.CallID{
		p11rpc.C_Initialize, p11rpc.C_Finalize, p11rpc.C_GetInfo, p11rpc.C_GetSlotList, p11rpc.C_GetSlotInfo, p11rpc.C_GetTokenInfo, p11rpc.C_GetMechanismList, p11rpc.C_GetMechanismInfo, p11rpc.C_CloseSession, p11rpc.C_GetSessionInfo,
		p11rpc.C_GetObjectSize, p11rpc.C_GetAttributeValue, p11rpc.C_FindObjectsInit, p11rpc.C_FindObjects, p11rpc.C_FindObjectsFinal,
		p11rpc.C_DigestInit, p11rpc.C_Digest, p11rpc.C_DigestUpdate, p11rpc.C_DigestFinal, p11rpc.C_SeedRandom, p11rpc.C_GenerateRandom, p11rpc.C_SessionCancel,
	} {
		all[call] = true
	}
	return all
}()
