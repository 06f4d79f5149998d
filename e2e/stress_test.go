package e2e

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
)

// stressed builds keyward's module and the program that uses it from many threads with a sanitizer, and gives their paths.
func stressed(t *testing.T, dir, sanitizer string) (module, program string) {
	t.Helper()
	sources, err := filepath.Glob("../pkcs11front/module/*.c")
	if err != nil {
		t.Fatal(err)
	}
	module, program = filepath.Join(dir, "module-"+sanitizer+".so"), filepath.Join(dir, "stress-"+sanitizer)
	common := []string{"-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-pthread", "-fno-omit-frame-pointer", "-fsanitize=" + sanitizer}
	for _, args := range [][]string{
		append([]string{"-shared", "-fPIC", "-fvisibility=hidden", "-Wl,--version-script=../pkcs11front/module/module.map", "-o", module}, sources...),
		{"-o", program, "../pkcs11front/module/test/stress.c", "-ldl"},
	} {
		if out, err := exec.Command("gcc", append(common, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s", err, out)
		}
	}
	return module, program
}

// TestStress has sixteen threads of a C program use the real daemon at once, with keys of their own and one of an HSM, and verify every signature; some
// while processes are forked. The sanitizers find nothing, nor does any thread get what is another's.
func TestStress(t *testing.T) {
	s := startShared(t, "")
	s.sh(`keywardctl key create --alias stress --instance kst-hardware --spec EC_P256`)
	run := func(program, module, mode string) {
		t.Helper()
		cmd := s.command(fmt.Sprintf("exec %s %s 16 2 %s stress", program, module, mode))
		cmd.Env = append(cmd.Env, "ASAN_OPTIONS=detect_leaks=1", "UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1", "TSAN_OPTIONS=halt_on_error=1")
		out, err := cmd.CombinedOutput()
		var rounds int
		if _, scanErr := fmt.Sscan(string(bytes.TrimSpace(out)), &rounds); err != nil || scanErr != nil || rounds < 100 {
			t.Errorf("%s with %s, %s: %v, %v\n%s\n%s", program, module, mode, err, scanErr, out, s.log)
		}
	}
	for _, sanitizer := range []string{"address,undefined", "thread"} {
		module, program := stressed(t, s.dir, sanitizer)
		run(program, module, "none")
		run(program, module, "fork")
	}
	_, program := stressed(t, s.dir, "undefined")
	s.through(p11kitClient(t))
	run(program, p11kitClient(t), "none")
}
