package p11rpc

// Writer writes the body of a request or an answer.
type Writer struct{}

// Byte writes a "y".
func (w *Writer) Byte(b byte) {}

// Ulong writes a "u".
func (w *Writer) Ulong(n uint64) {}

// Version writes a "v".
func (w *Writer) Version(major, minor byte) {}

// Padded writes an "s": text, padded with blanks or cut to width octets at a character's end.
func (w *Writer) Padded(text string, width int) {}

// Result writes an "ay" for the room that the client has: the octets if they fit, else how many there are. It says whether they did:
// an operation whose result did not fit goes on.
func (w *Writer) Result(room Room, b []byte) (fits bool) { return true }

// Needed writes an "ay" that says how many octets there would be.
func (w *Writer) Needed(n int) {}

// Ulongs writes an "au" for the room that the client has.
func (w *Writer) Ulongs(room Room, n []uint64) (fits bool) { return true }

// Results writes the "aA" of C_GetAttributeValue, which answers wanted one by one, and gives the return value that goes with it.
func (w *Writer) Results(wanted []Wanted, results []Result) {}
