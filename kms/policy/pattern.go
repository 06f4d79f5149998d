package policy

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxLoosePiece is how long, in characters, what stands between two * may be if it has a ? in it. Such pieces are
// looked for one position after the other, and this bound is what keeps a match linear in the length of the text.
const maxLoosePiece = 16

// pattern is a compiled text with * (any number of characters) and ? (one character). A match goes through the text
// once: each piece between two * is taken where it is found first, and nothing is tried again.
type pattern struct {
	pieces []piece // what is between the *: at least one; the first and the last are anchored
}

type piece struct {
	text  string
	loose bool // has ?
	runes int
}

// compilePattern says what is wrong if a piece is too long.
func compilePattern(text string) (pattern, string) {
	parts := strings.Split(text, "*")
	p := pattern{make([]piece, 0, len(parts))}
	for i, part := range parts {
		if part == "" && i > 0 && i < len(parts)-1 {
			continue // ** is *
		}
		pc := piece{part, strings.Contains(part, "?"), utf8.RuneCountInString(part)}
		if pc.loose && pc.runes > maxLoosePiece && i > 0 && i < len(parts)-1 {
			return pattern{}, fmt.Sprintf("what stands between two * and has a ? in it may have %d characters at most", maxLoosePiece)
		}
		p.pieces = append(p.pieces, pc)
	}
	return p, ""
}

// stars is how many * there are; several in a row are one. The zero pattern has none.
func (p *pattern) stars() int { return max(0, len(p.pieces)-1) }

func (p *pattern) matches(s string) bool {
	n, ok := p.pieces[0].prefix(s)
	if !ok {
		return false
	}
	s = s[n:]
	last := len(p.pieces) - 1
	if last == 0 {
		return s == ""
	}
	for i := 1; i < last; i++ {
		end, ok := p.pieces[i].find(s)
		if !ok {
			return false
		}
		s = s[end:]
	}
	return p.pieces[last].suffix(s)
}

// prefix says whether s begins with the piece, and how many octets of s that are.
func (p *piece) prefix(s string) (int, bool) {
	if !p.loose {
		return len(p.text), strings.HasPrefix(s, p.text)
	}
	n := 0
	for i := range len(p.text) {
		if n >= len(s) {
			return 0, false
		}
		if p.text[i] == '?' {
			_, size := utf8.DecodeRuneInString(s[n:])
			n += size
		} else if s[n] == p.text[i] {
			n++
		} else {
			return 0, false
		}
	}
	return n, true
}

// suffix says whether s ends with the piece.
func (p *piece) suffix(s string) bool {
	if !p.loose {
		return strings.HasSuffix(s, p.text)
	}
	start := len(s)
	for range p.runes {
		if start == 0 {
			return false
		}
		_, size := utf8.DecodeLastRuneInString(s[:start])
		start -= size
	}
	n, ok := p.prefix(s[start:])
	return ok && start+n == len(s)
}

// find gives the end of the piece's first appearance in s.
func (p *piece) find(s string) (int, bool) {
	if !p.loose {
		i := strings.Index(s, p.text)
		return i + len(p.text), i >= 0
	}
	for start := 0; start < len(s); {
		if n, ok := p.prefix(s[start:]); ok {
			return start + n, true
		}
		_, size := utf8.DecodeRuneInString(s[start:])
		start += size
	}
	return 0, false
}
