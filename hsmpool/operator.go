package hsmpool

import "context"

// Drain keeps new jobs from a member, so that it can be taken away, and waits until those that it has are done or ctx ends. It
// lasts until Undrain, or until the pool is closed. A drained member stays logged in.
func (p *Pool) Drain(ctx context.Context, name string) error { return errNotYet }

// Undrain ends Drain.
func (p *Pool) Undrain(name string) error { return errNotYet }

// Enroll puts the group's master keys on a member whose token has none, from the recovery data of the ceremony and at least
// threshold of its shares, which the caller wipes, while the others go on. It gives the group. The member serves soon after.
func (p *Pool) Enroll(ctx context.Context, name string, recovery []byte, shares [][]byte) (string, error) {
	return "", errNotYet
}

// Update takes over another configuration while jobs go on: new members are opened, those that are no longer there finish
// what they have and are closed, and one that is configured otherwise is replaced as soon as the new one serves. A member
// that is down because its PIN was refused is tried again: Update is an operator's act. Group, Probe and Worker stay as they
// were. An error means that nothing was changed.
func (p *Pool) Update(c Config) error { return errNotYet }

// Totals reports the figures of the pool as a whole.
func (p *Pool) Totals() Totals { return Totals{} }

// WorkerMain is a worker process: it serves one member over the stream socket that it has as file 3, and returns the exit
// code when that closes.
func WorkerMain() int { return 1 }

var errNotYet = errorf(KindInternal, fateData, "not yet")
