package kmsapi

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keyward/keyward/kms/kmswire"
)

// buffer holds an answer while it is rendered. Answers can carry plaintext, so a buffer is wiped before it is reused.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, 16<<10)} }}

// maxPooled is the largest buffer that is kept for the next answer, in octets.
const maxPooled = 256 << 10

func takeBuffer() *buffer { return buffers.Get().(*buffer) }

// release wipes the buffer and gives it back. Nobody may hold a part of it.
func (buf *buffer) release() {
	clear(buf.b)
	if cap(buf.b) <= maxPooled {
		buf.b = buf.b[:0]
		buffers.Put(buf)
	}
}

// Write appends p.
func (buf *buffer) Write(p []byte) (int, error) {
	buf.b = append(buf.b, p...)
	return len(p), nil
}

// Header values that never change. Handlers share them; net/http only reads them.
var (
	jsonType = []string{"application/json;charset=utf-8"}
	noStore  = []string{"no-store"}
)

// write sends a whole answer, which is JSON, in the form that was asked for.
func (c *call) write(status int, body []byte) {
	header := c.w.Header()
	header["Content-Type"] = jsonType
	if c.xml {
		root := "Error"
		if status == http.StatusOK {
			root = c.action + "Response"
		}
		buf := takeBuffer()
		defer buf.release()
		text, err := appendXML(buf.b, root, body)
		if err != nil { // what was rendered as JSON can be read as JSON
			panic(err)
		}
		buf.b, body = text, text
		header["Content-Type"] = xmlType
	}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	header["Cache-Control"] = noStore
	header["X-Acs-Request-Id"] = []string{c.id}
	c.started = true
	if len(body) > maxPooled || c.h.signatures != nil { // more than the socket takes at once, or to a stranger
		rc := http.NewResponseController(c.w)
		if err := rc.SetWriteDeadline(time.Now().Add(c.h.bodyTimeout)); err == nil {
			defer c.unlimitWriting(rc)
		}
	}
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return
	}
	if _, err := c.w.Write(body); err != nil {
		c.h.log.Debug().Str("request_id", c.id).Err(err).Msg("the caller did not wait for the answer")
	}
}

// unlimitWriting takes the deadline of writing away, where the server has none of its own that the next request begins with.
// The end of an answer is written after the handler.
func (c *call) unlimitWriting(rc *http.ResponseController) {
	if c.h.signatures == nil {
		_ = rc.SetWriteDeadline(time.Time{})
	}
}

// appendAnswer renders an answer with encoding/json, and a line end after it.
func appendAnswer[Resp any](dst []byte, resp *Resp) []byte {
	fillLists(reflect.ValueOf(resp).Elem())
	buf := buffer{dst}
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(resp); err != nil { // answers are plain structs; a new one that isn't is found by the table test
		panic(err)
	}
	return buf.b
}

// fillLists gives every nil slice within v an empty one, because clients want [] and "" where encoding/json writes
// null. Fields that are left out when empty stay as they are.
func fillLists(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		t := v.Type()
		for i := range v.NumField() {
			field := v.Field(i)
			if kind := field.Kind(); kind != reflect.Slice && kind != reflect.Struct || !t.Field(i).IsExported() {
				continue
			}
			if field.Kind() == reflect.Slice && field.IsNil() {
				if !strings.Contains(t.Field(i).Tag.Get("json"), ",omitempty") {
					field.Set(reflect.MakeSlice(field.Type(), 0, 0))
				}
				continue
			}
			fillLists(field)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct {
			for i := range v.Len() {
				fillLists(v.Index(i))
			}
		}
	}
}

// nameItemErrors gives failed items of an ordinary answer their code and message.
func (c *call) nameItemErrors(resp any) {
	keys, ok := resp.(*kmswire.BatchGenerateDataKeyResponse)
	if !ok {
		return
	}
	for i := range keys.Items {
		if failed := keys.Items[i].ItemError; failed != nil && failed.Err != nil {
			keys.Items[i].ItemError = c.itemError(failed.Err)
		}
	}
}

// wipeAnswer overwrites the plaintext in an answer that was rendered. The service made the answer for this call and
// keeps no part of it.
func wipeAnswer(resp any) {
	switch resp := resp.(type) {
	case *kmswire.DecryptResponse: // AsymmetricDecrypt's too
		clear(resp.Plaintext)
	case *kmswire.GenerateDataKeyResponse:
		clear(resp.Plaintext)
	case *kmswire.BatchGenerateDataKeyResponse:
		for i := range resp.Items {
			clear(resp.Items[i].Plaintext)
		}
	}
}
