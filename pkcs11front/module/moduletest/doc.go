// Package moduletest has the tests of libkeyward-pkcs11.so: programs in C that use the library, under sanitizers and valgrind, against a daemon
// that does what no real one would.
package moduletest
