// Package policy reads, compiles, evaluates and explains policy documents: the key policy of a key, and the identity
// policies of a principal. It is pure: it knows no store, no clock and no transport, and imports the standard library
// only.
//
// ParseKey and ParseIdentity make a Document, which is immutable and safe for use by many goroutines. Decide says
// whether a Request is allowed and allocates nothing; Explain says the same with reasons.
//
// What is compared how:
//
//   - Actions are compared without regard to case, as RAM does. A Deny of kms:decrypt that did nothing because of its
//     spelling would be the worse surprise. A * stands at the end only.
//   - Principals, accounts, resources, condition keys and operators are compared exactly.
//   - Several values of a condition key: one that fits is enough; for a negated operator (StringNotEquals,
//     NotIpAddress, ...) none may be equal. Several keys or operators: all must hold.
//   - A condition key that the request does not have: a negated operator holds, all others don't. So a Deny with
//     NotIpAddress denies callers of a Unix socket, which have no address; and an Allow with it lets them in.
package policy
