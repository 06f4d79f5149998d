package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// The TOML library does not tell where a key stands, so a second, simple look at the text finds out. It only serves
// error messages: where it is fooled (say, by a key inside an inline table) the message has no line.

// place is where a key or table stands.
type place struct {
	plain string // member.module
	line  int    // from 1
}

// places maps member[1].module and the like to file:line.
type places map[string]string

// add notes where the keys of text stand and returns them in order. base is how many tables of a name came before this
// file.
func (ps places) add(file, text string, base map[string]int) []place {
	var found []place
	table, indexed := "", ""
	count := map[string]int{}
	closing := "" // of a multi-line string that is open
	for i, line := range strings.Split(text, "\n") {
		if closing != "" {
			if strings.Contains(line, closing) {
				closing = ""
			}
			continue
		}
		line = strings.TrimSpace(line)
		name := ""
		switch {
		case line == "" || line[0] == '#':
			continue
		case strings.HasPrefix(line, "[["):
			head, _, _ := strings.Cut(line[2:], "]")
			table = plainKey(head)
			n := base[table] + count[table]
			count[table]++
			indexed = fmt.Sprintf("%s[%d]", table, n)
		case line[0] == '[':
			head, _, _ := strings.Cut(line[1:], "]")
			name = plainKey(head)
			indexed = name
			if parent, rest, ok := strings.Cut(name, "."); ok && count[parent] > 0 {
				indexed = fmt.Sprintf("%s[%d].%s", parent, base[parent]+count[parent]-1, rest)
			}
			table = name
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok {
				continue
			}
			for _, q := range []string{`"""`, "'''"} {
				if strings.Count(value, q) == 1 {
					closing = q
				}
			}
			key = plainKey(key)
			found = append(found, place{join(table, key), i + 1})
			ps[join(indexed, key)] = fmt.Sprintf("%s:%d", file, i+1)
			continue
		}
		found = append(found, place{table, i + 1})
		ps[indexed] = fmt.Sprintf("%s:%d", file, i+1)
	}
	return found
}

// at finds where key stands, or the table that should have held it, or the main file.
func (ps places) at(c *Config, key string) string {
	for {
		if at, ok := ps[key]; ok {
			return at
		}
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			return c.Path
		}
		key = key[:i]
	}
}

func plainKey(s string) string {
	parts := strings.Split(s, ".")
	for i, p := range parts {
		parts[i] = strings.Trim(strings.TrimSpace(p), `"'`)
	}
	return strings.Join(parts, ".")
}

func join(table, key string) string {
	if table == "" {
		return key
	}
	return table + "." + key
}

// keysOf lists the keys that the schema has in a table, and whether there is such a table.
func keysOf(table toml.Key) ([]string, bool) {
	t := reflect.TypeFor[Config]()
	for _, name := range table {
		if t.Kind() != reflect.Struct {
			return nil, false
		}
		var next reflect.Type
		for f := range t.NumField() {
			if t.Field(f).Tag.Get("toml") == name {
				next = t.Field(f).Type
			}
		}
		if next == nil {
			return nil, false
		}
		if next.Kind() == reflect.Slice {
			next = next.Elem()
		}
		t = next
	}
	if t.Kind() != reflect.Struct {
		return nil, false
	}
	var names []string
	for f := range t.NumField() {
		if name := t.Field(f).Tag.Get("toml"); name != "-" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, true
}

// nearest is the known name that name was probably meant to be, if there is one.
func nearest(name string, known []string) string {
	best, at := "", max(1, min(3, len(name)/2))+1
	for _, k := range known {
		if d := distance(strings.ToLower(name), k); d < at {
			best, at = k, d
		}
	}
	return best
}

// distance is Levenshtein's: how many letters must be put in, left out or changed to make a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
