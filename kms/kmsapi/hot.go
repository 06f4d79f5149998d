package kmsapi

import (
	"encoding/base64"
	"net/url"
	"strings"
	"sync"

	"github.com/keyward/keyward/kms/kmswire"
)

// The hot codec decodes the requests that programs send by the thousand straight from the raw query: no map of values,
// no copy of text that needs no unescaping. Each decoder gives true only if kmswire.Decode would accept the same query
// and give the same request; a fuzz test holds it to that. Whatever is out of the ordinary (a parameter twice, an
// escaped name, a malformed value, very many parameters) it leaves to the ordinary way, so that errors are found and
// worded in one place.

// maxHotPairs is how many parameters a query may have on the hot path. net/url refuses queries with very many.
const maxHotPairs = 64

// rawAction gives the value of Action in a raw query, "" if there is none that is plain to see.
func rawAction(query string) string {
	const name = "Action="
	at := 0
	if !strings.HasPrefix(query, name) {
		i := strings.Index(query, "&"+name)
		if i < 0 {
			return ""
		}
		at = i + 1
	}
	action, _, _ := strings.Cut(query[at+len(name):], "&")
	return action
}

// hotQuery goes over the pairs of a raw query.
type hotQuery struct {
	rest   string
	action string
	pairs  int
	seen   uint
	ok     bool // nothing unusual so far
}

func newHotQuery(query, action string) hotQuery {
	return hotQuery{rest: query, action: action, ok: strings.IndexByte(query, ';') < 0}
}

// next gives the next pair that is not one that every action has. Names and values are not unescaped, but names have
// no escapes in them.
func (q *hotQuery) next() (name, value string, more bool) {
	for q.ok && q.rest != "" {
		var pair string
		pair, q.rest, _ = strings.Cut(q.rest, "&")
		q.pairs++
		if q.pairs > maxHotPairs {
			q.ok = false
		}
		name, value, _ = strings.Cut(pair, "=")
		switch name {
		case "Action":
			if value != q.action {
				q.ok = false
			}
			continue
		case "Version":
			if value != kmswire.APIVersion {
				q.ok = false
			}
			continue
		case "Format":
			if value != "JSON" && value != "json" {
				q.ok = false
			}
			continue
		}
		if strings.IndexByte(name, '%') >= 0 || strings.IndexByte(name, '+') >= 0 {
			q.ok = false
		}
		return name, value, true
	}
	return "", "", false
}

// once says whether parameter number n is met for the first time.
func (q *hotQuery) once(n uint) bool {
	first := q.seen&(1<<n) == 0
	q.seen |= 1 << n
	q.ok = q.ok && first
	return first
}

// text unescapes a value.
func (q *hotQuery) text(n uint, raw string) string {
	if !q.once(n) {
		return ""
	}
	if strings.IndexByte(raw, '%') >= 0 || strings.IndexByte(raw, '+') >= 0 {
		s, err := url.QueryUnescape(raw)
		if err != nil {
			q.ok = false
		}
		raw = s
	}
	if kmswire.CheckText(raw) != nil {
		q.ok = false
	}
	return raw
}

// other checks a value that nobody will use: it may be anything that can be unescaped.
func (q *hotQuery) other(raw string) {
	if strings.IndexByte(raw, '%') >= 0 {
		if _, err := url.QueryUnescape(raw); err != nil {
			q.ok = false
		}
	}
}

func (q *hotQuery) bool(n uint, raw string) bool {
	text := q.text(n, raw)
	if text == "" {
		return false
	}
	v, err := kmswire.ParseBool(text)
	q.ok = q.ok && err == nil
	return v
}

func (q *hotQuery) int(n uint, raw string) *int {
	text := q.text(n, raw)
	if text == "" {
		return nil
	}
	v, err := kmswire.ParseInt(text)
	q.ok = q.ok && err == nil
	return &v
}

func (q *hotQuery) context(n uint, raw string) map[string]string {
	if !q.once(n) || raw == "" {
		return nil
	}
	text, err := url.QueryUnescape(raw)
	if err != nil {
		q.ok = false
		return nil
	}
	m, err := kmswire.ParseContext([]byte(text))
	q.ok = q.ok && err == nil
	return m
}

// scratch holds unescaped base64 while it is decoded. It is wiped before it is reused.
var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 16<<10); return &b }}

// octets unescapes and decodes base64.
func (q *hotQuery) octets(n uint, raw string) []byte {
	// A plus sign here is a space: unusual, and most often a mistake.
	if !q.once(n) || raw == "" || strings.IndexByte(raw, '+') >= 0 {
		q.ok = q.ok && raw == ""
		return nil
	}
	pooled := scratch.Get().(*[]byte)
	text := (*pooled)[:0]
	for {
		at := strings.IndexByte(raw, '%')
		if at < 0 {
			text = append(text, raw...)
			break
		}
		text = append(text, raw[:at]...)
		if len(raw) < at+3 {
			q.ok = false
			break
		}
		hi, lo := unhex[raw[at+1]], unhex[raw[at+2]]
		if hi|lo > 15 {
			q.ok = false
			break
		}
		text = append(text, hi<<4|lo)
		raw = raw[at+3:]
	}
	var out []byte
	if q.ok {
		out = make([]byte, base64.StdEncoding.DecodedLen(len(text)))
		size, err := strictBase64.Decode(out, text)
		if err != nil {
			q.ok = false
			clear(out)
			size = 0
		}
		out = out[:size]
	}
	clear(text)
	if cap(text) <= maxPooled {
		*pooled = text[:0]
		scratch.Put(pooled)
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

var strictBase64 = base64.StdEncoding.Strict()

// unhex gives the value of a hexadecimal digit, and 0xFF for everything else.
var unhex = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xFF
	}
	for i := range byte(10) {
		t['0'+i] = i
	}
	for i := range byte(6) {
		t['a'+i], t['A'+i] = 10+i, 10+i
	}
	return t
}()

func decodeEncrypt(query string, req *kmswire.EncryptRequest) bool {
	q := newHotQuery(query, "Encrypt")
	for name, raw, more := q.next(); more; name, raw, more = q.next() {
		switch name {
		case "KeyId":
			req.KeyID = q.text(0, raw)
		case "Plaintext":
			req.Plaintext = q.octets(1, raw)
		case "EncryptionContext":
			req.EncryptionContext = q.context(2, raw)
		case "DryRun":
			req.DryRun = q.bool(3, raw)
		default:
			q.other(raw)
		}
	}
	return q.ok && req.KeyID != "" && len(req.Plaintext) > 0
}

func decodeDecrypt(query string, req *kmswire.DecryptRequest) bool {
	q := newHotQuery(query, "Decrypt")
	for name, raw, more := q.next(); more; name, raw, more = q.next() {
		switch name {
		case "CiphertextBlob":
			req.CiphertextBlob = q.octets(0, raw)
		case "EncryptionContext":
			req.EncryptionContext = q.context(1, raw)
		case "Recipient":
			req.Recipient = q.text(2, raw)
		case "DryRun":
			req.DryRun = q.bool(3, raw)
		default:
			q.other(raw)
		}
	}
	return q.ok && len(req.CiphertextBlob) > 0
}

func decodeGenerateDataKey(query string, req *kmswire.GenerateDataKeyRequest) bool {
	q := newHotQuery(query, "GenerateDataKey")
	for name, raw, more := q.next(); more; name, raw, more = q.next() {
		switch name {
		case "KeyId":
			req.KeyID = q.text(0, raw)
		case "KeySpec":
			req.KeySpec = q.text(1, raw)
		case "NumberOfBytes":
			req.NumberOfBytes = q.int(2, raw)
		case "EncryptionContext":
			req.EncryptionContext = q.context(3, raw)
		case "Recipient":
			req.Recipient = q.text(4, raw)
		case "DryRun":
			req.DryRun = q.bool(5, raw)
		default:
			q.other(raw)
		}
	}
	return q.ok && req.KeyID != ""
}

func decodeAsymmetricSign(query string, req *kmswire.AsymmetricSignRequest) bool {
	q := newHotQuery(query, "AsymmetricSign")
	for name, raw, more := q.next(); more; name, raw, more = q.next() {
		switch name {
		case "KeyId":
			req.KeyID = q.text(0, raw)
		case "KeyVersionId":
			req.KeyVersionID = q.text(1, raw)
		case "Algorithm":
			req.Algorithm = kmswire.Algorithm(q.text(2, raw))
		case "Digest":
			req.Digest = q.octets(3, raw)
		case "DryRun":
			req.DryRun = q.bool(4, raw)
		default:
			q.other(raw)
		}
	}
	return q.ok && req.KeyID != "" && req.KeyVersionID != "" && req.Algorithm != "" && len(req.Digest) > 0
}

func decodeAsymmetricVerify(query string, req *kmswire.AsymmetricVerifyRequest) bool {
	q := newHotQuery(query, "AsymmetricVerify")
	for name, raw, more := q.next(); more; name, raw, more = q.next() {
		switch name {
		case "KeyId":
			req.KeyID = q.text(0, raw)
		case "KeyVersionId":
			req.KeyVersionID = q.text(1, raw)
		case "Algorithm":
			req.Algorithm = kmswire.Algorithm(q.text(2, raw))
		case "Digest":
			req.Digest = q.octets(3, raw)
		case "Value":
			req.Value = q.octets(4, raw)
		case "DryRun":
			req.DryRun = q.bool(5, raw)
		default:
			q.other(raw)
		}
	}
	return q.ok && req.KeyID != "" && req.KeyVersionID != "" && req.Algorithm != "" && len(req.Digest) > 0 && len(req.Value) > 0
}
