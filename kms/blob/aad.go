package blob

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"unicode/utf8"
)

// ErrContext says that a string of an EncryptionContext is not valid UTF-8.
var ErrContext = errors.New("blob: the encryption context is not valid UTF-8")

// AppendAAD appends the additional authenticated data of a blob to dst: its header, then the EncryptionContext in the one
// form that equal contexts share.
//
//	aad = length 4 | header | number of pairs 4 | pairs, by key octets
//	pair = length 4 | key | length 4 | value
//
// All numbers are big-endian. Every part has its length in front, so no two contexts, and no header and context, run
// into the same octets. nil and an empty context are the same. Strings are taken as they are: Unicode forms that look
// alike differ. ErrContext, and dst as it was, when a string is not valid UTF-8.
func AppendAAD(dst, header []byte, context map[string]string) ([]byte, error) {
	var few [8]string // enough for most contexts without an allocation
	keys := few[:0]
	size := 4 + len(header) + 4
	for k, v := range context {
		if !utf8.ValidString(k) || !utf8.ValidString(v) || tooLong(len(k)) || tooLong(len(v)) {
			return dst, ErrContext
		}
		keys = append(keys, k)
		size += 4 + len(k) + 4 + len(v)
	}
	slices.Sort(keys) // compares octets
	dst = slices.Grow(dst, size)
	dst = appendPart(dst, header)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(keys)))
	for _, k := range keys {
		dst = appendPart(dst, k)
		dst = appendPart(dst, context[k])
	}
	return dst, nil
}

// tooLong says whether a length does not fit its field. The API's limit is far below.
func tooLong(n int) bool { return int64(n) > math.MaxUint32 }

func appendPart[T string | []byte](dst []byte, s T) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(s))), s...)
}
