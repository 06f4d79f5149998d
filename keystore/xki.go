package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// XKIPrefix is a logical key store that keyward serves to another key management service (package xki): which keys, to whom.
// Values handed out by DB are the caller's own.
type XKIPrefix struct {
	Name        string            // unique
	Account     string            // whose keys it serves
	Principal   string            // as whom the keys are used: ARN
	Dialect     string            // by its name in package xki
	Path        string            // of URLs, before the dialect's own: empty, or /x
	Region      string            `json:",omitempty"` // that signatures must be for; empty: any
	PerSecond   int               `json:",omitempty"` // requests; 0: no limit
	Keys        map[string]string // key IDs by External Key ID
	Credentials []XKICredential   `json:",omitempty"`
	Rules       []XKIRule         `json:",omitempty"`
	Created     time.Time
	record      recordState
}

// XKICredential is an access key of a prefix.
type XKICredential struct {
	ID      string
	Sealed  []byte // the secret, by DB.SealSecret under XKISecretName
	Created time.Time
}

// XKIRule is a rule of secondary authorization, as package xki has it.
type XKIRule struct {
	Name       string
	Operations []string            `json:",omitempty"`
	Keys       []string            `json:",omitempty"` // External Key IDs
	Unless     map[string][]string `json:",omitempty"`
}

// XKISecretName is what the secret of a prefix's credential is sealed under.
func XKISecretName(prefix, id string) string { return "XKI credential " + prefix + " " + id }

// XKIConnection is the way to the key manager behind an external instance. Values handed out by DB are the caller's own.
type XKIConnection struct {
	Instance    string
	Endpoint    string // https://host[:port]
	Path        string // as XKIPrefix.Path
	Dialect     string
	Region      string
	AccessKeyID string
	Sealed      []byte            // the secret of the access key, by DB.SealSecret under XKIConnectionName
	Roots       string            `json:",omitempty"` // PEM; empty: the machine's own
	Pins        []string          `json:",omitempty"` // fingerprints of certificates, one of which the proxy's chain must have
	Certificate string            `json:",omitempty"` // PEM: the client's
	SealedKey   []byte            `json:",omitempty"` // PKCS #8 of Certificate, by DB.SealSecret under XKIConnectionName + " key"
	Names       map[string]string `json:",omitempty"` // of members, where the proxy has others than the dialect
	Budget      time.Duration     `json:",omitempty"`
	Changed     time.Time
	record      recordState
}

// XKIConnectionName is what the secrets of a connection are sealed under.
func XKIConnectionName(instance string) string { return "XKI connection " + instance }

var (
	xkiPrefixes    = list{head: "list/xki-prefixes", rows: prefixXKIPrefix}
	xkiConnections = list{head: "list/xki-connections", rows: prefixXKIConnection}
)

// PutXKIPrefix replaces old, which DB handed out, by now: of the same name. nil in place of old makes it, nil in place of now removes it.
func (c *Change) PutXKIPrefix(old, now *XKIPrefix) *Change {
	if now == nil {
		was := *old
		return c.note(func(p *plan) error { return p.removeRow(xkiPrefixes, was.Name, was.record) })
	}
	next := *now
	if old == nil {
		return c.note(func(p *plan) error { return p.createRow(xkiPrefixes, "prefix", next.Name, next) })
	}
	was := *old
	return c.note(func(p *plan) error { return p.updateRow(xkiPrefixes, was.Name, next.Name, was.record, next) })
}

// PutXKIConnection is PutXKIPrefix for connections, which are named by their instances.
func (c *Change) PutXKIConnection(old, now *XKIConnection) *Change {
	if now == nil {
		was := *old
		return c.note(func(p *plan) error { return p.removeRow(xkiConnections, was.Instance, was.record) })
	}
	next := *now
	if old == nil {
		return c.note(func(p *plan) error { return p.createRow(xkiConnections, "instance", next.Instance, next) })
	}
	was := *old
	return c.note(func(p *plan) error {
		return p.updateRow(xkiConnections, was.Instance, next.Instance, was.record, next)
	})
}

func (p *plan) createRow(l list, what, name string, v any) error {
	if err := checkPart(what, name); err != nil {
		return err
	}
	if err := p.create(l.rows+name, v); err != nil {
		return err
	}
	return p.count(l, name)
}

func (p *plan) updateRow(l list, was, name string, old recordState, v any) error {
	if name != was {
		return fmt.Errorf("keystore: the name %q cannot change", was)
	}
	if err := p.expect(l.rows+name, old); err != nil {
		return err
	}
	return p.put(l.rows+name, v)
}

func (p *plan) removeRow(l list, name string, old recordState) error {
	if err := p.expect(l.rows+name, old); err != nil {
		return err
	}
	if err := p.uncount(l, name); err != nil {
		return err
	}
	return p.remove(l.rows + name)
}

// XKIPrefix returns a prefix by its name, or ErrNotFound.
func (db *DB) XKIPrefix(ctx context.Context, name string) (*XKIPrefix, error) {
	v := &XKIPrefix{}
	return v, db.rowNamed(ctx, xkiPrefixes, name, v, &v.record)
}

// XKIConnection returns the connection of an instance, or ErrNotFound.
func (db *DB) XKIConnection(ctx context.Context, instance string) (*XKIConnection, error) {
	v := &XKIConnection{}
	return v, db.rowNamed(ctx, xkiConnections, instance, v, &v.record)
}

func (db *DB) rowNamed(ctx context.Context, l list, name string, v any, state *recordState) error {
	if db.closed.Load() {
		return ErrClosed
	}
	if checkPart("name", name) != nil {
		return ErrNotFound
	}
	st, err := db.lookUp(ctx, l.rows+name)
	if err != nil {
		return err
	}
	*state = st.state()
	return db.decodeRecord(st, v)
}

// XKIPrefixes lists all prefixes, by name. With an error it is those that are not damaged.
func (db *DB) XKIPrefixes(ctx context.Context) (all []*XKIPrefix, err error) {
	err = db.eachRow(ctx, xkiPrefixes, func(st stored) error {
		v := &XKIPrefix{record: st.state()}
		if err := db.decodeRecord(st, v); err != nil {
			return err
		}
		all = append(all, v)
		return nil
	})
	return all, err
}

// XKIConnections lists all connections, by instance. With an error it is those that are not damaged.
func (db *DB) XKIConnections(ctx context.Context) (all []*XKIConnection, err error) {
	err = db.eachRow(ctx, xkiConnections, func(st stored) error {
		v := &XKIConnection{record: st.state()}
		if err := db.decodeRecord(st, v); err != nil {
			return err
		}
		all = append(all, v)
		return nil
	})
	return all, err
}

// eachRow does each for all rows of a list that has no more than a bucket's. A row that is damaged does not hide the others: the errors are joined.
func (db *DB) eachRow(ctx context.Context, l list, each func(stored) error) error {
	rows, _, err := db.page(ctx, l, 0, bucketRows)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range rows {
		st, err := db.checked(r)
		if err == nil {
			err = each(st)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
