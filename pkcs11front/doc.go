// Package pkcs11front is the door for programs that know PKCS #11. It speaks p11-kit's RPC protocol, to p11-kit's own client and to
// libkeyward-pkcs11.so, keyward's module, and shows each instance as a token and the keys that the caller may describe as its objects.
//
// A connection belongs to an application: one process's use of the library. A client of p11-kit has one connection, keyward's module
// several that are joined by a cookie. Sessions, logins and session objects belong to the application and end with it; the calls of one
// session are done one after the other, those of different sessions at the same time.
//
// Nothing here decides who may do what: every use of a key is a call of kms.Service with the actor behind the connection.
package pkcs11front
