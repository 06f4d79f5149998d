package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFile is the most octets a configuration file may have: far above any real one.
const maxFile = 1 << 20

// Load reads the file at path and conf.d/*.toml beside it, and checks them. The error lists everything that is wrong,
// one line each, as file:line: what; it is meant for people.
func Load(path string) (*Config, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	files, err := filesOf(abs)
	if err != nil {
		return nil, err
	}
	c := defaults()
	c.Path, c.Files = abs, files
	where := places{}
	var problems []error
	for _, file := range files {
		if err := c.read(file, where); err != nil {
			problems = append(problems, err)
		}
	}
	// What could not be read can't be checked either: a second list of errors that follow from the first only confuses.
	if len(problems) == 0 {
		c.fill(where)
		problems = c.check(where)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return c, nil
}

// fill gives the keys of tables in double brackets their defaults. One that the file sets to 0 stays 0, for check to refuse.
func (c *Config) fill(where places) {
	set := func(value *int, key string, preset int) {
		if _, written := where[key]; *value == 0 && !written {
			*value = preset
		}
	}
	for i := range c.Members {
		set(&c.Members[i].Workers, fmt.Sprintf("member[%d].workers", i), DefaultWorkers)
	}
	for i := range c.Instances {
		in := &c.Instances[i]
		set(&in.Keys, fmt.Sprintf("instance[%d].keys", i), DefaultKeys)
		set(&in.Access, fmt.Sprintf("instance[%d].access", i), DefaultAccess)
		if in.Account == "" && len(c.Accounts) > 0 {
			in.Account = c.Accounts[0]
		}
	}
	for i := range c.Shares {
		set(&c.Shares[i].Weight, fmt.Sprintf("share[%d].weight", i), DefaultWeight)
	}
	for i := range c.Listeners {
		l, row := &c.Listeners[i], fmt.Sprintf("listener[%d].", i)
		set(&l.MaxConnections, row+"max_connections", DefaultMaxConnections)
		if _, written := where[row+"serves"]; !written {
			l.Serves = KMS
		}
		most := DefaultMaxPerAddress
		if l.Serves == XKI {
			most = DefaultXKIPerAddress
		}
		set(&l.MaxPerAddress, row+"max_connections_per_address", most)
	}
}

// filesOf is the main file and what conf.d adds, in the order of reading.
func filesOf(path string) ([]string, error) {
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%s: there is no such configuration file; for a trial without one use: keywardd dev", path)
		}
		return nil, fmt.Errorf("config: %w", err)
	}
	drop, err := filepath.Glob(filepath.Join(filepath.Dir(path), "conf.d", "*.toml"))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return append([]string{path}, drop...), nil
}

// read reads one file over c.
func (c *Config) read(file string, where places) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if info.Size() > maxFile {
		return fmt.Errorf("%s: is larger than 1 MiB and surely no configuration file", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	// The decoder would replace the tables of earlier files, so they are set aside.
	members, shares, instances, peers, services, listeners := c.Members, c.Shares, c.Instances, c.Peers, c.Services, c.Listeners
	c.Members, c.Shares, c.Instances, c.Peers, c.Services, c.Listeners = nil, nil, nil, nil, nil, nil
	meta, err := toml.Decode(string(text), c)
	if err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			return fmt.Errorf("%s:%d: %s", file, syntax.Position.Line, oneLine(syntax.Message, err))
		}
		if m := wrongType.FindStringSubmatch(err.Error()); m != nil {
			return fmt.Errorf("%s:%s: %s is %s; it must be %s", file, m[1], m[2], typeName(m[3]), typeName(m[4]))
		}
		return fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "toml: "))
	}
	base := map[string]int{"member": len(members), "share": len(shares), "instance": len(instances), "peer": len(peers),
		"service": len(services), "listener": len(listeners)}
	found := where.add(file, string(text), base)
	c.Members, c.Shares = append(members, c.Members...), append(shares, c.Shares...)
	c.Instances, c.Peers = append(instances, c.Instances...), append(peers, c.Peers...)
	c.Services, c.Listeners = append(services, c.Services...), append(listeners, c.Listeners...)

	var unknown []error
	told := map[string]bool{}
	for _, key := range meta.Undecoded() {
		name := key.String()
		if told[name] {
			continue
		}
		told[name] = true
		unknown = append(unknown, unknownKey(file, key, found)...)
	}
	return errors.Join(unknown...)
}

// wrongType is what the library says of a value of another type than the key's: line, key, what it is, what it must be.
var wrongType = regexp.MustCompile(`^toml: line (\d+) \(last key "([^"]+)"\): incompatible types: TOML value has type (\w+); destination has type (\w+)`)

// typeName says a type's name of the library or of Go as a person would.
func typeName(t string) string {
	switch t {
	case "string":
		return "a text in quotes"
	case "bool", "boolean":
		return "true or false"
	case "slice":
		return "a list in brackets"
	case "float64":
		return "a number with a fraction"
	case "map", "struct":
		return "a table"
	}
	if strings.HasPrefix(t, "int") || strings.HasPrefix(t, "uint") {
		return "a whole number"
	}
	return t
}

func oneLine(message string, err error) string {
	if message == "" {
		message = err.Error()
	}
	return strings.ReplaceAll(message, "\n", " ")
}

// unknownKey words the error for key, once for each line where it stands.
func unknownKey(file string, key toml.Key, found []place) []error {
	// A table that is unknown as a whole is reported once, not again for each key in it.
	table := key[:len(key)-1]
	known, ok := keysOf(table)
	if !ok && len(table) > 0 {
		return nil
	}
	name := key[len(key)-1]
	advice := "known here are " + strings.Join(known, ", ")
	if near := nearest(name, known); near != "" {
		advice = fmt.Sprintf("did you mean %q?", near)
	}
	in := "in the main table"
	if len(table) > 0 {
		in = "in [" + table.String() + "]"
	}
	var errs []error
	for _, p := range found {
		if p.plain == strings.Join(key, ".") {
			errs = append(errs, fmt.Errorf("%s:%d: unknown key %q %s; %s", file, p.line, name, in, advice))
		}
	}
	if len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s: unknown key %q %s; %s", file, name, in, advice))
	}
	return errs
}
