// Package kms is the key management service itself, with no transport in it: it looks keys up, evaluates policy, checks
// state, has the cryptography done, and writes the audit event. All doors end in Service; none can skip a step, because
// the functions that reach key material take a grant, and only authorize makes one.
package kms
