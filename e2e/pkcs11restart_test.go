package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyward/keyward/kms/kmswire"
)

// restartPrograms are the arguments of what runs while the daemon restarts: see bench.c. Slot 0 is kst-software, slot 1 kst-hardware.
var restartPrograms = [][]string{
	{"-n", "4", "../bin/libkeyward-pkcs11.so", "random"},
	{"-n", "4", "-k", "sign-kst-software", "../bin/libkeyward-pkcs11.so", "find"},
	{"-n", "4", "-k", "sign-kst-software", "../bin/libkeyward-pkcs11.so", "p256"},
	{"-n", "4", "-k", "sign-kst-hardware", "-s", "1", "../bin/libkeyward-pkcs11.so", "p256"},
	{"-n", "4", "-k", "encrypt-kst-software", "../bin/libkeyward-pkcs11.so", "gcm"},
	{"-n", "4", "-k", "encrypt-kst-hardware", "-s", "1", "../bin/libkeyward-pkcs11.so", "gcm"},
}

// TestRestart ends the daemon and starts it again, twice as it would wish and once with -9, while programs use its keys through the PKCS #11 module from many
// threads. None of their calls may fail.
func TestRestart(t *testing.T) {
	programs, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	bench := filepath.Join(dir, "bench")
	if out, err := exec.Command("gcc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-pthread", "-o", bench, "../pkcs11front/module/test/bench.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := startDev(t, programs.keywardd, dir)
	for _, instance := range []string{"kst-software", "kst-hardware"} {
		for name, req := range map[string]kmswire.CreateKeyRequest{
			"sign":    {DKMSInstanceID: instance, KeySpec: kmswire.ECP256, KeyUsage: kmswire.SignVerify},
			"encrypt": {DKMSInstanceID: instance},
		} {
			key := createKey(t, p, req)
			call[kmswire.Answer](t, p, "CreateAlias", &kmswire.CreateAliasRequest{KeyID: key, AliasName: "alias/" + name + "-" + instance})
		}
	}
	var all []*exec.Cmd
	var said []*text
	for _, args := range restartPrograms {
		cmd := exec.Command(bench, append([]string{"-v", "-t", "6"}, args...)...)
		cmd.Env = append(os.Environ(), "KEYWARD_PKCS11_SOCKET="+filepath.Join(dir, "k", "pkcs11.sock"), "KEYWARD_PKCS11_TIMEOUT=60")
		out := &text{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		all, said = append(all, cmd), append(said, out)
	}
	for _, end := range []func(*process){(*process).stop, (*process).kill, (*process).stop} {
		time.Sleep(time.Second) // the programs are at work meanwhile
		end(p)
		p = startDev(t, programs.keywardd, dir)
	}
	for i, cmd := range all {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v\n%s", restartPrograms[i], err, said[i])
		}
		t.Logf("%s", said[i])
	}
}
