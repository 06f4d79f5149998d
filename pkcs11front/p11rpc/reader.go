package p11rpc

// Reader reads the arguments of a request, or the results of an answer, straight down: after the first thing that is wrong it gives zeros, and
// Err says so. What it gives out are parts of the frame.
type Reader struct{}

// Byte reads a "y".
func (r *Reader) Byte() byte { return 0 }

// Ulong reads a "u".
func (r *Reader) Ulong() uint64 { return 0 }

// Octets reads an "ay". null: the client passed a NULL pointer, which not every dialect tells from no octets.
func (r *Reader) Octets() (b []byte, null bool) { return nil, true }

// Text reads a "z" or an "s".
func (r *Reader) Text() string { return "" }

// Room reads an "fy" or "fu".
func (r *Reader) Room() Room { return Room{} }

// Template reads an "aA".
func (r *Reader) Template() []Attribute { return nil }

// Wanted reads an "fA".
func (r *Reader) Wanted() []Wanted { return nil }

// Mechanism reads an "M".
func (r *Reader) Mechanism() Mechanism { return Mechanism{} }

// End says whether all was read and nothing was wrong.
func (r *Reader) End() error { return nil }
