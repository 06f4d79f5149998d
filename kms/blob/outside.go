package blob

// Sizes in octets of what another key manager answers.
const (
	outsideTag         = 16
	maxOutsideMetadata = 20
	maxExternalID      = 128
)

// Outside is what another key manager made of a plaintext: the body of an External blob.
type Outside struct {
	IV         []byte // 12 or 16 octets
	Metadata   []byte // the key manager's own, at most 20 octets
	Tag        []byte // 16 octets
	Ciphertext []byte
}

// AppendOutside appends a body to dst. ErrMalformed, and dst as it was, when a part has not the size that it must have.
func AppendOutside(dst []byte, o Outside) ([]byte, error) {
	if len(o.IV) != 12 && len(o.IV) != 16 || len(o.Tag) != outsideTag || len(o.Metadata) > maxOutsideMetadata {
		return dst, ErrMalformed
	}
	dst = append(dst, byte(len(o.IV)))
	dst = append(dst, o.IV...)
	dst = append(dst, byte(len(o.Metadata)))
	dst = append(dst, o.Metadata...)
	dst = append(dst, o.Tag...)
	return append(dst, o.Ciphertext...), nil
}

// ParseOutside undoes AppendOutside; the parts lie in body. Every failure is ErrMalformed.
func ParseOutside(body []byte) (o Outside, err error) {
	part := func(size int) []byte {
		if err != nil || len(body) < size {
			err = ErrMalformed
			return nil
		}
		p := body[:size:size]
		body = body[size:]
		return p
	}
	length := func() int {
		if b := part(1); b != nil {
			return int(b[0])
		}
		return 0
	}
	o.IV = part(length())
	o.Metadata = part(length())
	o.Tag = part(outsideTag)
	o.Ciphertext = body
	if err != nil || len(o.IV) != 12 && len(o.IV) != 16 || len(o.Metadata) > maxOutsideMetadata {
		return Outside{}, ErrMalformed
	}
	return o, nil
}

func validExternalID(id string) bool {
	if id == "" || len(id) > maxExternalID {
		return false
	}
	for i := range len(id) {
		if c := id[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return true
}
