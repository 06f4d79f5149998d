package ctl

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sys/unix"
)

// bufferSize is how much is read and written at once: enough that system calls cost nothing next to the cryptography.
const bufferSize = 1 << 20

// stdio is the name that stands for stdin or stdout.
const stdio = "-"

// input is a file or stdin.
type input struct {
	io.Reader
	name string // as it was given; "-" for stdin; see String
	size int64  // octets, or -1 when it is not known
	file *os.File
}

// interruptible gives a reader of src that also ends when ctx does: a read from a terminal or a pipe may else wait for
// ever. The goroutine that reads ends with src, or with the program.
func interruptible(ctx context.Context, src io.Reader) io.Reader {
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })
	go func() {
		// The wrappers hide WriteTo and ReadFrom, which would bring a smaller buffer of their own.
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{src}, make([]byte, bufferSize))
		w.CloseWithError(err)
	}()
	return r
}

// openInput opens what a command reads. The caller closes it.
func (c *cli) openInput(ctx context.Context, name string) (*input, error) {
	if name == "" || name == stdio {
		if f, ok := c.stdin.(*os.File); ok {
			growPipe(f)
		}
		return &input{Reader: interruptible(ctx, c.stdin), name: stdio, size: -1}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	in := &input{Reader: f, name: name, size: -1, file: f}
	info, err := f.Stat()
	switch {
	case err != nil:
		f.Close()
		return nil, err
	case info.IsDir():
		f.Close()
		return nil, fmt.Errorf("%s is a directory; make an archive of it first, such as: tar c %s | keywardctl encrypt ... -", name, name)
	case info.Mode().IsRegular():
		in.size = info.Size()
	default:
		in.Reader = interruptible(ctx, f)
	}
	return in, nil
}

// String is the name in messages.
func (in *input) String() string { return shown(in.name, "stdin") }

func (in *input) close() {
	if in.file != nil {
		in.file.Close() // it was only read: there is nothing to lose
	}
}

// growPipe asks the kernel for a larger buffer, if f is a pipe. It only makes things faster, so its failure is no error.
func growPipe(f *os.File) {
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, bufferSize)
}

// output is a file that appears under its name when it is whole, or stdout.
type output struct {
	w     io.Writer
	name  string   // as it was given; "-" for stdout
	file  *os.File // the temporary file; nil for stdout and devices
	temp  string
	force bool
	other *os.File // a device or pipe that is written directly
}

// writeError says that the output could not be written, by the name that the user knows it by.
type writeError struct {
	name string
	err  error
}

func (e *writeError) Error() string { return e.name + ": " + reason(e.err).Error() }
func (e *writeError) Unwrap() error { return e.err }

// reason takes off the operation and the file name that package os puts before an error.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// Write writes to the file or stdout.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil {
		err = &writeError{shown(o.name, "stdout"), err}
	}
	return n, err
}

// shown is a file's name in messages: "-" has another one there.
func shown(name, stream string) string {
	if name == stdio {
		return stream
	}
	return name
}

// createOutput prepares what a command writes. A regular file is written beside its place under another name, and
// commit moves it there; until then, and whatever happens, nothing is under the name. force allows to replace a file
// that is there. mode is that of a new file, before the umask. The caller calls discard, also after commit.
func (c *cli) createOutput(name string, mode fs.FileMode, force, binary bool) (*output, error) {
	if name == stdio {
		if binary && isTerminal(c.stdout) {
			return nil, usagef("binary would go to the terminal; name a file with --out or redirect stdout")
		}
		if f, ok := c.stdout.(*os.File); ok {
			growPipe(f)
		}
		return &output{w: c.stdout, name: stdio}, nil
	}
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return nil, usagef("%s is a directory; name a file with --out", name)
	case err == nil && !info.Mode().IsRegular():
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		return &output{w: f, name: name, other: f}, nil
	case err == nil && !force:
		return nil, existsError(name)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if force {
		// A link is followed, so that what it points at is replaced and not the link.
		if target, err := filepath.EvalSymlinks(name); err == nil {
			name = target
		}
	}
	// The name does not grow with the file's own, which may be as long as a name can be.
	temp := filepath.Join(filepath.Dir(name), ".keywardctl-"+rand.Text()[:12]+".partial")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, fmt.Errorf("%s can't be written: %w", name, reason(err))
	}
	return &output{w: f, name: name, file: f, temp: temp, force: force}, nil
}

func existsError(name string) error {
	return &codedError{code: exitFailure, err: fmt.Errorf("%s is already there; nothing was written", name), next: "--force replaces it, --out names another file"}
}

// commit makes the output durable and gives it its name.
func (o *output) commit() error {
	if o.other != nil {
		err := o.other.Close()
		o.other = nil
		return err
	}
	if o.file == nil {
		return nil
	}
	if err := errors.Join(o.file.Sync(), o.file.Close()); err != nil {
		return &writeError{o.name, err}
	}
	o.file = nil
	if err := publish(o.temp, o.name, o.force); err != nil {
		return err
	}
	o.temp = ""
	return nil
}

// publish moves temp to name. Without force it never replaces a file, not even one that came a moment ago.
func publish(temp, name string, force bool) error {
	if force {
		return os.Rename(temp, name)
	}
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// The file system has no such rename. A link does not replace either.
		if err = os.Link(temp, name); err == nil {
			return os.Remove(temp)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return existsError(name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// discard takes away what was not committed.
func (o *output) discard() {
	if o.other != nil {
		o.other.Close()
	}
	if o.file != nil {
		o.file.Close()
	}
	if o.temp != "" {
		os.Remove(o.temp)
	}
}

// stream copies src to dst through one buffer, with a progress bar, until it ends or ctx does.
func (c *cli) stream(ctx context.Context, dst io.Writer, src io.Reader, size int64, doing string) (int64, error) {
	bar := c.progress(size, doing)
	defer bar.done()
	buf := make([]byte, bufferSize)
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return total, err
			}
			total += int64(n)
			bar.add(n)
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// barDelay is how long work runs before it gets a bar: what is shorter needs none, and its first rate would be nonsense.
const barDelay = 500 * time.Millisecond

// bar is a progress bar, or nothing when it is nil.
type bar struct {
	b       *progressbar.ProgressBar
	begun   time.Time
	waiting int64 // octets that are done and not yet shown
}

// progress shows a bar on stderr when a person is there to see it. size is -1 when it is not known.
func (c *cli) progress(size int64, doing string) *bar {
	if c.quiet || c.noProgress || !isTerminal(c.stderr) {
		return nil
	}
	return newBar(c.stderr, size, doing)
}

func newBar(w io.Writer, size int64, doing string) *bar {
	b := progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(doing),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetWidth(30),
		// Without a size there is a spinner, which would have a goroutine that goes on drawing after done.
		progressbar.OptionSetSpinnerChangeInterval(0),
	)
	b.StartWithoutRender() // the rate counts from here
	return &bar{b: b, begun: time.Now()}
}

func (b *bar) add(n int) {
	if b == nil {
		return
	}
	b.waiting += int64(n)
	if time.Since(b.begun) < barDelay {
		return
	}
	_ = b.b.Add64(b.waiting) // a bar that can't be drawn is no reason to stop
	b.waiting = 0
}

func (b *bar) done() {
	if b != nil {
		_ = b.b.Clear()
	}
}

// readSmall reads a whole small input, and refuses one of more than limit octets.
func readSmall(in *input, limit int) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(bufio.NewReader(in), int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%s has more than %d octets", in, limit)
	}
	return data, nil
}
