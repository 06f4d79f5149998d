// Package pkcs11front is the door for programs that know PKCS #11. It speaks p11-kit's RPC protocol, to p11-kit's own client and to
// libkeyward-pkcs11.so, keyward's module, and shows each instance as a token and the keys that the caller may describe as its objects.
//
// A connection belongs to an application: one process's use of the library. A client of p11-kit has one connection, keyward's module
// several that are joined by a cookie. Sessions, logins and session objects belong to the application and end with it; the calls of one
// session are done one after the other, those of different sessions at the same time.
//
// Locks, in the order in which they are taken: session.mu (held while a call of the session is answered), application.mu, Front.mu; the last two
// for moments, and never two of one kind. conn.mu and conn.writing stand alone.
//
// Goroutines: one for each connection, which reads and mostly answers too; one for each session of a p11-kit client that has calls which may
// take long (a lane); and those of timers that end applications. Front.Shutdown returns when all have ended.
//
// Nothing here decides who may do what: every use of a key is a call of kms.Service with the actor behind the connection.
package pkcs11front
