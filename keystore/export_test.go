package keystore

import "context"

// For tests in package keystore_test.
var (
	Decode    = decode
	OpenScan  = open // with a chosen bound for the scan in the foreground
	NameKey   = nameKey
	NameAlias = nameAlias
)

// Scan waits for a full scan.
func (db *DB) Scan(ctx context.Context) error { return db.scanAll(ctx) }

var Encode = encode

// RecordKinds makes one of each kind of record.
var RecordKinds = []func() any{
	func() any { return new(Key) }, func() any { return new(Version) }, func() any { return new(Alias) },
	func() any { return new(Intent) }, func() any { return new(Tombstone) }, func() any { return new(callCount) },
	func() any { return new(listHead) }, func() any { return new(listRow) }, func() any { return new(aliasRow) },
	func() any { return new(rootRecord) }, func() any { return new(bootstrap) },
	func() any { return new(roleRow) }, func() any { return new(dueRow) }, func() any { return new(InstanceUse) },
	func() any { return new(Principal) }, func() any { return new(AccessKey) }, func() any { return new(Usage) },
	func() any { return new(TokenNames) }, func() any { return new(TokenObject) }, func() any { return new(objectCount) },
	func() any { return new(AssociationCheck) }, func() any { return new(ClientToken) }, func() any { return new(Clock) },
}

// Forget evicts a record.
func (db *DB) Forget(name string) { db.evict(name) }

// Lose forgets all that is in memory, as when the watch has lost events.
func (db *DB) Lose() { db.purge(false) }
