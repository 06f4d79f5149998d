package kms

import (
	encodingasn1 "encoding/asn1"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyward/keyward/kms/kmswire"
)

// attribute is one name of a subject, in a set of its own.
type attribute struct {
	oid   encodingasn1.ObjectIdentifier
	tag   asn1.Tag
	value string
}

func (a attribute) add(b *cryptobyte.Builder) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(a.oid)
		b.AddASN1(a.tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.value)) })
	})
}

// subjectRow is what there is to know of one part of a subject.
type subjectRow struct {
	param string
	oid   encodingasn1.ObjectIdentifier
	max   int // characters: the upper bound of RFC 5280 appendix A
	of    func(*kmswire.GenerateCsrRequest) string
	check func(param, value string) error // beyond what holds for all text; may be nil
	tag   asn1.Tag                        // 0: PrintableString if the value allows it, else UTF8String
}

// subjectRows are the parts of a subject, in the order in which they stand in it: from the country down to the name.
var subjectRows = []subjectRow{
	{"Country", encodingasn1.ObjectIdentifier{2, 5, 4, 6}, 2,
		func(r *kmswire.GenerateCsrRequest) string { return r.Country }, checkCountry, asn1.PrintableString},
	{"Province", encodingasn1.ObjectIdentifier{2, 5, 4, 8}, 128,
		func(r *kmswire.GenerateCsrRequest) string { return r.Province }, nil, 0},
	{"Locality", encodingasn1.ObjectIdentifier{2, 5, 4, 7}, 128,
		func(r *kmswire.GenerateCsrRequest) string { return r.Locality }, nil, 0},
	{"OrganizationName", encodingasn1.ObjectIdentifier{2, 5, 4, 10}, 64,
		func(r *kmswire.GenerateCsrRequest) string { return r.OrganizationName }, nil, 0},
	{"OrganizationalUnit", encodingasn1.ObjectIdentifier{2, 5, 4, 11}, 64,
		func(r *kmswire.GenerateCsrRequest) string { return r.OrganizationalUnit }, nil, 0},
	{"CommonName", encodingasn1.ObjectIdentifier{2, 5, 4, 3}, 64,
		func(r *kmswire.GenerateCsrRequest) string { return r.CommonName }, nil, 0},
	{"EmailAddress", encodingasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, maxEmail,
		func(r *kmswire.GenerateCsrRequest) string { return r.EmailAddress }, checkEmail, asn1.IA5String},
}

// parseSubject checks the parts of a subject. What is not given is left out; nothing is changed.
func parseSubject(req *kmswire.GenerateCsrRequest) ([]attribute, error) {
	if req.CommonName == "" {
		return nil, Missing("CommonName")
	}
	var subject []attribute
	for _, row := range subjectRows {
		value := row.of(req)
		if value == "" {
			continue
		}
		if err := checkNameText(row.param, value, row.max); err != nil {
			return nil, err
		}
		if row.check != nil {
			if err := row.check(row.param, value); err != nil {
				return nil, err
			}
		}
		a := attribute{row.oid, row.tag, value}
		if a.tag == 0 {
			a.tag = stringTag(value)
		}
		subject = append(subject, a)
	}
	return subject, nil
}

// checkNameText refuses text that a person at a certification authority could not see as it is.
func checkNameText(param, value string, limit int) error {
	if !utf8.ValidString(value) {
		return Invalid(param, "it is not UTF-8")
	}
	if n := utf8.RuneCountInString(value); n > limit {
		return Invalid(param, "%d characters, it may have %d", n, limit)
	}
	for _, r := range value {
		if unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control) || r == utf8.RuneError {
			return Invalid(param, "%U is a character that nobody sees or that hides others", r)
		}
	}
	if strings.TrimSpace(value) != value {
		return Invalid(param, "%q begins or ends with a space", value)
	}
	return nil
}

// stringTag chooses the type of a DirectoryString as RFC 5280 section 4.1.2.4 wants it.
func stringTag(value string) asn1.Tag {
	for _, r := range value {
		if !isAlphanumeric(r) && !strings.ContainsRune(" '()+,-./:=?", r) {
			return asn1.UTF8String
		}
	}
	return asn1.PrintableString
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

func checkCountry(param, value string) error {
	if countries[value] {
		return nil
	}
	if upper := strings.ToUpper(value); countries[upper] {
		return Invalid(param, "%q is written %q", value, upper)
	}
	return Invalid(param, "%q is no code of two letters that ISO 3166-1 has assigned", value)
}

// Bounds of alternative names.
const (
	maxAlternativeNames = 100
	maxDNSName          = 253  // octets
	maxDNSLabel         = 63   // octets
	maxEmail            = 255  // octets, of RFC 5280's ub-emailaddress-length
	maxEmailLocal       = 64   // octets before the @, of RFC 5321
	maxURI              = 2048 // octets
)

// alternativeName is a GeneralName in its encoded form.
type alternativeName struct {
	tag   asn1.Tag
	value []byte
}

// nameKinds are the kinds of alternative names, by the prefix that is written before them.
var nameKinds = []struct {
	prefix string
	tag    uint8
	encode func(param, value string) ([]byte, error)
}{
	{"DNS:", 2, encodeDNSName},
	{"IP:", 7, encodeIP},
	{"URI:", 6, encodeURI},
	{"email:", 1, encodeEmail},
}

// parseAlternativeNames reads a list such as "DNS:example.org, IP:192.0.2.1". Prefixes may be in any case. Names are encoded as they
// are given: nothing is folded, converted or left out.
func parseAlternativeNames(list string) ([]alternativeName, error) {
	const param = "SubjectAlternativeNames"
	if list == "" {
		return nil, nil
	}
	if n := strings.Count(list, ",") + 1; n > maxAlternativeNames {
		return nil, Invalid(param, "%d names, there may be %d", n, maxAlternativeNames)
	}
	var names []alternativeName
	for part := range strings.SplitSeq(list, ",") {
		part = strings.Trim(part, " ")
		name, err := parseAlternativeName(param, part)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

func parseAlternativeName(param, part string) (alternativeName, error) {
	for _, k := range nameKinds {
		if len(part) < len(k.prefix) || !strings.EqualFold(part[:len(k.prefix)], k.prefix) {
			continue
		}
		value, err := k.encode(param, part[len(k.prefix):])
		return alternativeName{asn1.Tag(k.tag).ContextSpecific(), value}, err
	}
	return alternativeName{}, Invalid(param, "%q does not begin with DNS:, IP:, URI: or email:; a comma inside a URI is written %%2C", cut(part, maxDNSName))
}

func encodeDNSName(param, value string) ([]byte, error) {
	if err := checkHost(param, strings.TrimPrefix(value, "*.")); err != nil {
		return nil, err
	}
	return []byte(value), nil
}

// checkHost holds a host name against RFC 1123, without a dot at the end.
func checkHost(param, name string) error {
	if len(name) > maxDNSName {
		return Invalid(param, "a DNS name has at most %d characters, one has %d", maxDNSName, len(name))
	}
	for _, r := range name {
		if r >= utf8.RuneSelf {
			return Invalid(param, "%q is not ASCII: write the A-labels (xn--...) of an international name", name)
		}
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return Invalid(param, "%q is no DNS name: a label is empty", name)
		case len(label) > maxDNSLabel:
			return Invalid(param, "%q is no DNS name: a label has at most %d characters", name, maxDNSLabel)
		case label[0] == '-' || label[len(label)-1] == '-':
			return Invalid(param, "%q is no DNS name: %q begins or ends with a hyphen", name, label)
		}
		for _, r := range label {
			if !isAlphanumeric(r) && r != '-' {
				return Invalid(param, "%q is no DNS name: it may have letters, digits, hyphens and dots, and * as its first label", name)
			}
		}
	}
	// No top-level domain is a number, and what ends in one is read as an address by many.
	if last := name[strings.LastIndexByte(name, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return Invalid(param, "%q ends in a number: an address is written IP:", name)
	}
	return nil
}

func encodeIP(param, value string) ([]byte, error) {
	ip, err := netip.ParseAddr(value)
	switch {
	case err != nil:
		return nil, Invalid(param, "%q is neither an IPv4 nor an IPv6 address", cut(value, maxDNSName))
	case ip.Zone() != "":
		return nil, Invalid(param, "%q has a zone, which means something on one machine only", cut(value, maxDNSName))
	case ip.Is4In6():
		return nil, Invalid(param, "%q is written IP:%s", value, ip.Unmap())
	}
	return ip.AsSlice(), nil
}

// encodeURI takes an absolute URI in its normal form, so that who reads it in a certificate reads what was asked for.
func encodeURI(param, value string) ([]byte, error) {
	if len(value) > maxURI {
		return nil, Invalid(param, "a URI has at most %d characters, one has %d", maxURI, len(value))
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, Invalid(param, "%q has characters that a URI writes as %%xx", value)
	}
	u, err := url.Parse(value)
	if err != nil {
		return nil, Invalid(param, "%q is no URI", value)
	}
	switch {
	case u.Scheme == "" || u.Host == "" && u.Opaque == "" && u.Path == "":
		return nil, Invalid(param, "%q is no absolute URI, such as https://example.org/ or urn:uuid:...", value)
	case u.User != nil:
		return nil, Invalid(param, "a URI in a certificate has no user and no password")
	case u.String() != value:
		return nil, Invalid(param, "%q is written %q", value, u)
	}
	if u.Host != "" {
		if ip, err := netip.ParseAddr(u.Hostname()); err != nil || ip.Zone() != "" {
			if err := checkHost(param, u.Hostname()); err != nil {
				return nil, err
			}
		}
	}
	return []byte(value), nil
}

func encodeEmail(param, value string) ([]byte, error) {
	return []byte(value), checkEmail(param, value)
}

// checkEmail holds a mailbox against RFC 5321, without the quoted form.
func checkEmail(param, value string) error {
	if len(value) > maxEmail {
		return Invalid(param, "an e-mail address has at most %d characters, one has %d", maxEmail, len(value))
	}
	at := strings.LastIndexByte(value, '@')
	if at < 1 || at > maxEmailLocal {
		return Invalid(param, "%q is no e-mail address: 1 to %d characters stand before the @", value, maxEmailLocal)
	}
	atoms := strings.Split(value[:at], ".")
	if slices.Contains(atoms, "") || strings.ContainsFunc(value[:at], func(r rune) bool {
		return !isAlphanumeric(r) && !strings.ContainsRune(".!#$%&'*+-/=?^_`{|}~", r)
	}) {
		return Invalid(param, "%q is no e-mail address of ASCII letters, digits and plain signs before the @", value)
	}
	return checkHost(param, value[at+1:])
}
