package keystore

import "context"

// For tests in package keystore_test.
var (
	Decode     = decode
	OpenScan   = open // with a chosen bound for the scan in the foreground
	NameKey    = nameKey
	NameAlias  = nameAlias
	BucketRows = bucketRows
)

// Scan waits for a full scan.
func (db *DB) Scan(ctx context.Context) error { return db.scanAll(ctx) }
