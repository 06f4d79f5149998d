// Package kmsapi is the API door: it serves kms.Service over HTTP the way the original service does. It decodes
// requests, gives them to the service, renders answers and names errors; it decides nothing else.
//
// There is one path, "/". A request is a GET or a POST; its parameters are in the query, in a form in the body, or
// both. The parameter Action, or else the header x-acs-action, says what to do; Actions lists what there is. Answers
// are JSON, also for every error; with Format=XML they are XML, but for batches.
//
// # Batches
//
// BatchEncrypt, BatchDecrypt, BatchSign and BatchVerify are a POST with the parameters in the query and the items in
// the body. Its Content-Type is one of:
//
//	application/json               {"Items":[...]}, at most 1,000 items and 16 MiB; answered by one object with Items
//	application/x-ndjson           an item a line; answered by a line for each item, in order
//	application/vnd.keyward.batch  for each item a length (u32, big endian) and as many octets; answered by a status
//	                               (u8, 0 or 1), a length and octets for each item, in order
//
// An item is a JSON object with the members of the single action that differ from item to item; a member that does
// not belong there, or is there twice, makes the item fail. In octets it is the plaintext, the blob or the digest; for
// BatchVerify the length of the digest (u16, big endian), the digest, and the signature. The octets of an answer are
// the blob, the plaintext or the signature, for BatchVerify one octet 0 or 1; with status 1 they are a JSON object with
// Code and Message. EncryptionContext in the query is for all items that have none of their own.
//
// An item that fails has Code and Message in its place and does not disturb the others. KeyId and KeyVersionId of a
// JSON batch are empty if not one item was well formed, for then the key was not looked at.
//
// The last two are streams, of any length and in both directions at once: items are answered as they arrive, and a
// sender that does not read its answers is not read from after a while. If the stream itself can't be understood any
// further (a length over 64 KiB, an end in the middle of an item), a last answer that belongs to no item says so, and
// nothing follows it. A line over 48 KiB is only an item that fails. What is wrong with the whole call (an unknown key,
// no permission, DryRun) is an ordinary error answer if it shows with the first items; later it is said for each item.
package kmsapi
