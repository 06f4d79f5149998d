package kmsapi

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/kms"
	"github.com/keyward/keyward/kms/kmswire"
)

// Limits of a request, in octets. The server's own limit of the request head applies before them: it must be well over
// maxQuery for the door to answer (net/http's default of 1 MiB is), and a head that is longer still is refused by
// net/http itself, with status 431 and no JSON.
const (
	maxQuery = 512 << 10
	maxForm  = 512 << 10
)

// Options are the settings of a Handler. The zero value works.
type Options struct {
	Log zerolog.Logger // gets faults inside keyward, and refused calls at debug level

	// BodyTimeout is how long a body that is read whole may take to arrive; 30 seconds if 0.
	BodyTimeout time.Duration
	// StreamIdle is how long a stream may wait for its sender, or for its reader; 5 minutes if 0.
	StreamIdle time.Duration

	// AccessKeys makes the handler one for a network: every request must be signed with one of these, and no actor is
	// taken from the context. There should be one such handler only, for it knows which nonces were used. The bodies of
	// streams have the limit of other batches then, because they must be whole to be compared with their hash. The server
	// needs a WriteTimeout, since these callers are strangers until they have been heard.
	AccessKeys AccessKeys
}

// Handler is the KMS API. It may serve many requests at the same time.
type Handler struct {
	svc     *kms.Service
	log     zerolog.Logger
	rows    map[string]*operation
	notDone map[string]bool

	bodyTimeout time.Duration
	streamIdle  time.Duration
	signatures  *signatures // nil if the context says who calls
}

// New gives the handler for a service.
func New(svc *kms.Service, opts Options) *Handler { return newHandler(svc, opts, operations) }

// newHandler takes the table, so that tests can have their own.
func newHandler(svc *kms.Service, opts Options, table []operation) *Handler {
	h := &Handler{svc: svc, log: opts.Log, rows: make(map[string]*operation, len(table)), notDone: make(map[string]bool, len(notDone)),
		bodyTimeout: opts.BodyTimeout, streamIdle: opts.StreamIdle}
	for i := range table {
		h.rows[table[i].action] = &table[i]
	}
	for _, action := range notDone {
		h.notDone[action] = true
	}
	if opts.AccessKeys != nil {
		h.signatures = newSignatures(opts.AccessKeys)
	}
	if h.bodyTimeout == 0 {
		h.bodyTimeout = 30 * time.Second
	}
	if h.streamIdle == 0 {
		h.streamIdle = 5 * time.Minute
	}
	return h
}

type actorKey struct{}

type strangerKey struct{}

// WithStranger gives a context whose caller is nobody that the daemon knows. why is for that caller: who it is to the
// daemon, and what can be done.
func WithStranger(ctx context.Context, why string) context.Context {
	return context.WithValue(ctx, strangerKey{}, why)
}

// WithActor gives a context in which actor is the caller. The daemon does this once for each connection; a request
// without an actor is refused.
func WithActor(ctx context.Context, actor *kms.Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// call is one request while it is served. Only the goroutine that serves it uses it.
type call struct {
	h      *Handler
	w      http.ResponseWriter
	r      *http.Request
	id     string // RequestId
	actor  *kms.Actor
	action string     // as the caller named it
	row    *operation // nil until there is one of that name
	values url.Values // query and form together; nil on the hot path
	body   *buffer    // of a request that was read whole to see who signed it; else nil

	xml     bool // answers are wanted as XML
	started bool // something was written, so an error can't be answered any more
}

func (c *call) timeout() time.Duration { return c.row.timeout }

// logName is the action for the log, which is no place for a name that the caller made up.
func (c *call) logName() string {
	if c.row == nil {
		return ""
	}
	return c.row.action
}

// ServeHTTP answers one request. In this order: recover from panics, refuse what a browser sent, path and method, the
// caller; then the hot path if the action has one; else query and body, action, version, format, and the action.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{h: h, w: w, r: r, id: newRequestID()}
	defer c.recover()
	if err := c.serve(); err != nil {
		c.fail(err)
	}
	if c.body != nil {
		c.body.release()
	}
}

// recover answers a panic of a handler. If the answer was begun, the connection is broken off instead, so that the
// caller can't take a half for a whole.
func (c *call) recover() {
	switch p := recover(); {
	case p == nil:
		return
	case p == http.ErrAbortHandler:
		panic(p)
	default:
		c.h.log.Error().Str("request_id", c.id).Str("action", c.logName()).Interface("panic", p).Bytes("stack", debug.Stack()).Msg("KMS API call panicked")
	}
	if c.started {
		panic(http.ErrAbortHandler)
	}
	c.fail(kms.Errorf(kms.Internal, "panic"))
}

func (c *call) serve() error {
	header := c.r.Header
	for _, name := range [...]string{"Origin", "Referer", "Sec-Fetch-Site"} {
		if _, ok := header[name]; ok {
			return errBrowser
		}
	}
	if c.r.URL.Path != "/" {
		return errPath
	}
	if c.r.Method != http.MethodPost && c.r.Method != http.MethodGet {
		return errMethod
	}
	if c.h.signatures != nil {
		if err := c.authenticate(); err != nil {
			return err
		}
	} else {
		c.actor, _ = c.r.Context().Value(actorKey{}).(*kms.Actor)
	}
	if c.actor == nil {
		if why, ok := c.r.Context().Value(strangerKey{}).(string); ok {
			return errNoActor.with("%s.", why)
		}
		return errNoActor
	}
	query := c.r.URL.RawQuery
	if len(query) > maxQuery {
		return errTooLarge.with("The query may have %d octets.", maxQuery)
	}
	if c.r.ContentLength == 0 {
		if done, err := c.serveHot(query); done {
			return err
		}
	}

	values, err := url.ParseQuery(query)
	if err != nil {
		return errParse.with("The query is malformed.")
	}
	c.values = values
	mediaType, err := c.mediaType()
	if err != nil {
		return err
	}
	if err := c.findAction(); err != nil {
		return err
	}
	// The items of a batch are read later, by the row. Any other body is parameters, and can name the action too.
	if c.action == "" || c.row != nil && c.row.batch == nil {
		if err := c.readForm(mediaType); err != nil {
			return err
		}
		if err := c.findAction(); err != nil {
			return err
		}
	}
	if err := c.checkCommon(); err != nil {
		return err
	}
	switch {
	case c.row.batch == nil:
		return c.row.run(c)
	case c.r.Method != http.MethodPost:
		return errMethod.with("A batch is a POST, with its items in the body.")
	case c.values.Has("Items"):
		return kms.Invalid("Items", "the items of a batch are in the body of the request, not among its parameters.")
	}
	return c.row.batch(c, mediaType)
}

// serveHot serves the call from the raw query if the action has a hot codec and nothing about the request is unusual.
func (c *call) serveHot(query string) (done bool, err error) {
	header := c.r.Header
	action := rawAction(query)
	if action == "" && len(header["X-Acs-Action"]) > 0 {
		action = header["X-Acs-Action"][0] // the SDKs of the header signatures name it only there
	}
	row := c.h.rows[action]
	if row == nil || row.hot == nil {
		return false, nil
	}
	if h, ok := header["X-Acs-Action"]; ok && (len(h) != 1 || h[0] != action) {
		return false, nil
	}
	if h, ok := header["X-Acs-Version"]; ok && (len(h) != 1 || h[0] != kmswire.APIVersion) {
		return false, nil
	}
	c.action, c.row = action, row
	return row.hot(c)
}

func (c *call) mediaType() (string, error) {
	text := c.r.Header.Get("Content-Type")
	if text == "" {
		return "", nil
	}
	mediaType, _, err := mime.ParseMediaType(text)
	if err != nil {
		if c.r.ContentLength == 0 {
			return "", nil // nobody will use it
		}
		return "", errMediaType.with("The header is malformed.")
	}
	return mediaType, nil
}

// value gives a parameter that every action has. Like all parameters it may be given twice only if both say the same.
func (c *call) value(name string) (string, error) {
	list := c.values[name]
	for _, other := range list {
		if other != list[0] {
			return "", kms.Invalid(name, "it is given twice, with different values.")
		}
	}
	if len(list) == 0 {
		return "", nil
	}
	return list[0], nil
}

// findAction sets action and row, if the action is named by what was read so far.
func (c *call) findAction() error {
	action, err := c.value("Action")
	if err != nil {
		return err
	}
	for _, h := range c.r.Header["X-Acs-Action"] {
		if action == "" {
			action = h
		}
		if h != action {
			return kms.Invalid("Action", "the header x-acs-action names another action.")
		}
	}
	c.action, c.row = action, c.h.rows[action]
	return nil
}

// checkCommon checks the parameters that every action has, when all parameters are known.
func (c *call) checkCommon() error {
	format, err := c.value("Format")
	switch {
	case err != nil:
		return err
	case format == "" || strings.EqualFold(format, "JSON"):
	case strings.EqualFold(format, "XML"):
		c.xml = true
	default:
		return kms.Invalid("Format", "it must be JSON or XML.")
	}
	version, err := c.value("Version")
	if err != nil {
		return err
	}
	for _, v := range append([]string{version}, c.r.Header["X-Acs-Version"]...) {
		if v != "" && v != kmswire.APIVersion {
			return errVersion
		}
	}
	switch {
	case c.action == "":
		return kms.Missing("Action")
	case c.h.notDone[c.action]:
		return kms.Errorf(kms.UnsupportedOperation, "keyward does not have this action.")
	case c.row == nil:
		return errAction
	}
	if c.xml && c.row.batch != nil {
		return kms.Errorf(kms.UnsupportedOperation, "a batch is not answered as XML.")
	}
	return nil
}

// decode sets req from the parameters.
func (c *call) decode(req any) error {
	err := kmswire.Decode(c.values, req)
	if err == nil {
		return nil
	}
	return paramError(err, c.dryRun())
}

// dryRun says whether the caller only asks what would happen.
func (c *call) dryRun() bool {
	dry, _ := c.value("DryRun")
	_, has := c.row.request.FieldByName("DryRun")
	return has && dry == "true"
}

// readForm reads the body, if there is one, and adds its parameters to those of the query.
func (c *call) readForm(mediaType string) error {
	if c.r.ContentLength == 0 {
		return nil
	}
	limit := int64(maxForm)
	if c.row != nil {
		limit = c.row.maxBody
	}
	buf := takeBuffer()
	defer buf.release()
	if err := c.readBody(buf, limit); err != nil {
		return err
	}
	if len(buf.b) == 0 {
		return nil
	}
	if mediaType != "application/x-www-form-urlencoded" {
		return errMediaType.with("It takes application/x-www-form-urlencoded, or everything in the query and no body.")
	}
	form, err := url.ParseQuery(string(buf.b))
	if err != nil {
		return errParse.with("The form in the body is malformed.")
	}
	for name, list := range form {
		c.values[name] = append(c.values[name], list...)
	}
	return nil
}

// readBody appends the whole body to buf, at most limit octets of it and no longer than bodyTimeout. Memory is taken
// as octets arrive, not as the sender announces them.
func (c *call) readBody(buf *buffer, limit int64) error {
	if c.r.ContentLength > limit {
		return errTooLarge.with("The body may have %d octets.", limit)
	}
	rc := http.NewResponseController(c.w)
	if err := rc.SetReadDeadline(time.Now().Add(c.h.bodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	body := bytes.NewBuffer(buf.b)
	_, err := body.ReadFrom(http.MaxBytesReader(c.w, c.r.Body, limit))
	buf.b = body.Bytes()
	if err == nil {
		// A deadline that stayed would end the server's watch for a caller that goes away.
		_ = rc.SetReadDeadline(time.Time{})
	}
	return readError(err, limit)
}

// readError turns a failure to read a body into an error for the caller.
func readError(err error, limit int64) error {
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &tooLarge):
		return errTooLarge.with("The body may have %d octets.", limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSlowBody
	}
	return errParse.with("The body ended early, or its transfer coding is malformed.")
}

// newRequestID makes a random UUID (RFC 9562, version 4). It names a call in answers, log and audit; it need not be
// hard to guess.
func newRequestID() string {
	var raw [16]byte
	a, b := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		raw[i], raw[8+i] = byte(a>>(8*i)), byte(b>>(8*i))
	}
	raw[6] = raw[6]&0x0F | 0x40
	raw[8] = raw[8]&0x3F | 0x80
	var text [36]byte
	hex.Encode(text[0:], raw[:4])
	hex.Encode(text[9:], raw[4:6])
	hex.Encode(text[14:], raw[6:8])
	hex.Encode(text[19:], raw[8:10])
	hex.Encode(text[24:], raw[10:])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text[:])
}
