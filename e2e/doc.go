// Package e2e tries both programs from outside, as people use them: stories in testdata/script, and tests that kill the
// daemon, fill its disk and take its HSMs away. It has no code of its own.
package e2e
