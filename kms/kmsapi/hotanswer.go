package kmsapi

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/keyward/keyward/kms/kmswire"
)

// The answers of the hot actions, appended as encoding/json would write them.

// appendString appends s as a JSON string, quotes included.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7E || c == '"' || c == '\\' {
			buf := buffer{dst}
			enc := json.NewEncoder(&buf)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(s); err != nil { // a string always renders
				panic(err)
			}
			return buf.b[:len(buf.b)-1] // without the line end
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// appendOctets appends b as a JSON string of base64, quotes included.
func appendOctets(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}

// appendHead begins an answer with the members that all these answers have.
func appendHead(dst []byte, requestID, keyID, keyVersionID string) []byte {
	dst = appendString(append(dst, `{"RequestId":`...), requestID)
	dst = appendString(append(dst, `,"KeyId":`...), keyID)
	return appendString(append(dst, `,"KeyVersionId":`...), keyVersionID)
}

func appendEncrypt(dst []byte, resp *kmswire.EncryptResponse) []byte {
	dst = appendHead(dst, resp.RequestID, resp.KeyID, resp.KeyVersionID)
	dst = appendOctets(append(dst, `,"CiphertextBlob":`...), resp.CiphertextBlob)
	return append(dst, "}\n"...)
}

func appendDecrypt(dst []byte, resp *kmswire.DecryptResponse) []byte {
	dst = appendHead(dst, resp.RequestID, resp.KeyID, resp.KeyVersionID)
	dst = appendOctets(append(dst, `,"Plaintext":`...), resp.Plaintext)
	return append(dst, "}\n"...)
}

func appendGenerateDataKey(dst []byte, resp *kmswire.GenerateDataKeyResponse) []byte {
	dst = appendHead(dst, resp.RequestID, resp.KeyID, resp.KeyVersionID)
	dst = appendOctets(append(dst, `,"Plaintext":`...), resp.Plaintext)
	dst = appendOctets(append(dst, `,"CiphertextBlob":`...), resp.CiphertextBlob)
	return append(dst, "}\n"...)
}

func appendBatchGenerateDataKey(dst []byte, resp *kmswire.BatchGenerateDataKeyResponse) []byte {
	size := 256
	for i := range resp.Items {
		size += 64 + base64.StdEncoding.EncodedLen(len(resp.Items[i].Plaintext)) + base64.StdEncoding.EncodedLen(len(resp.Items[i].CiphertextBlob))
	}
	dst = slices.Grow(dst, size) // growing later would leave plaintext behind
	dst = appendHead(dst, resp.RequestID, resp.KeyID, resp.KeyVersionID)
	dst = append(dst, `,"Items":[`...)
	for i := range resp.Items {
		if i > 0 {
			dst = append(dst, ',')
		}
		item := &resp.Items[i]
		switch {
		case item.ItemError != nil:
			dst = appendItemError(dst, item.ItemError)
		case len(item.Plaintext) > 0:
			dst = appendOctets(append(dst, `{"Plaintext":`...), item.Plaintext)
			dst = append(appendOctets(append(dst, `,"CiphertextBlob":`...), item.CiphertextBlob), '}')
		default:
			dst = append(appendOctets(append(dst, `{"CiphertextBlob":`...), item.CiphertextBlob), '}')
		}
	}
	return append(dst, "]}\n"...)
}

func appendAsymmetricSign(dst []byte, resp *kmswire.AsymmetricSignResponse) []byte {
	dst = appendHead(dst, resp.RequestID, resp.KeyID, resp.KeyVersionID)
	dst = appendOctets(append(dst, `,"Value":`...), resp.Value)
	return append(dst, "}\n"...)
}

func appendAsymmetricVerify(dst []byte, resp *kmswire.AsymmetricVerifyResponse) []byte {
	dst = appendHead(dst, resp.RequestID, resp.KeyID, resp.KeyVersionID)
	dst = strconv.AppendBool(append(dst, `,"Value":`...), resp.Value)
	return append(dst, "}\n"...)
}
