package xki

import "sync/atomic"

// tally counts requests by what came of them: by operation, and by code, of which 0 is a good answer. Its zero value is ready.
type tally [numOperations][numCodes]atomic.Uint64

func (t *tally) add(op Operation, err error) {
	code := Code(0)
	if err != nil {
		code = AsError(err).Code
	}
	t[op][code].Add(1)
}

// Count is how many requests of an operation had one result.
type Count struct {
	Operation string // "none" for requests of which it is not known
	Result    string // "ok", or a Code in words
	N         uint64
}

// counts gives those that are not zero.
func (t *tally) counts() (all []Count) {
	for op := range t {
		for code := range t[op] {
			n := t[op][code].Load()
			if n == 0 {
				continue
			}
			c := Count{Operation(op).String(), "ok", n}
			if op == 0 {
				c.Operation = "none"
			}
			if code != 0 {
				c.Result = Code(code).String()
			}
			all = append(all, c)
		}
	}
	return all
}
