package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Programs of other people, as Debian has them, with keys of a daemon that serves several Unix users.

// shared is a daemon that everybody on the machine may connect to.
type shared struct {
	*process
	t      *testing.T
	dir    string // 0755
	module string
	env    []string
}

// startShared starts one. peers are [[peer]] tables.
func startShared(t *testing.T, peers string) *shared {
	t.Helper()
	programs, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	startDev(t, programs.keywardd, dir).stop()
	k := filepath.Join(dir, "k")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(k, 0o755)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(k, "keyward.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(string(text), "private = true", "private = false", 1) + peers
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &shared{t: t, dir: dir, module: filepath.Join(dir, "libkeyward-pkcs11.so"), process: start(t, filepath.Join(k, "admin.sock"), programs.keywardd, "run", "--config", path)}
	// Where any user may read it.
	module, err := os.ReadFile(filepath.Join(filepath.Dir(programs.keywardd), "libkeyward-pkcs11.so"))
	if err == nil {
		err = os.WriteFile(s.module, module, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.env = append(os.Environ(), "PATH="+filepath.Dir(programs.keywardctl)+":"+os.Getenv("PATH"), "KEYWARD_SOCKET="+s.socket,
		"KEYWARD_PKCS11_SOCKET="+filepath.Join(k, "pkcs11.sock"), "MODULE="+s.module, "OPENSSL_CONF="+filepath.Join(dir, "openssl.cnf"))
	s.write("openssl.cnf", opensslEngine)
	return s
}

const opensslEngine = `openssl_conf = init
[init]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
MODULE_PATH = $ENV::MODULE
init = 0
[req]
distinguished_name = dn
[dn]
`

// write writes a file that everybody may read, and gives its path.
func (s *shared) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// command makes a command of a shell script in the daemon's directory.
func (s *shared) command(script string) *exec.Cmd {
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = s.dir, s.env
	return cmd
}

// sh runs a script that must end well, and gives what it printed.
func (s *shared) sh(script string) string {
	s.t.Helper()
	out, err := s.command(script).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s\n%v\n%s\n%s", script, err, out, s.log)
	}
	return string(out)
}

// freePort gives a TCP port of loopback that nobody listens at, another one each time. It is below those that the kernel gives to connections and to listeners without
// a port: one of these could be somebody else's by the time that a server listens at it.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 20000 + mathrand.IntN(10000)
		if _, given := givenPorts.LoadOrStore(port, true); given {
			continue
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port of 127.0.0.1 is free")
	return 0
}

var givenPorts sync.Map // of int

// background runs a program until the end of the test, and sees that it ends when it is asked to.
func (s *shared) background(stop syscall.Signal, name string, args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = s.dir, s.env
	out := &text{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(stop)
		_ = cmd.Wait() // how a server says that it was asked to end differs
		if s.t.Failed() {
			s.t.Logf("%s: %s", name, out)
		}
	})
	return cmd
}

// dial waits until somebody listens at a port.
func dial(t *testing.T, port int) net.Conn {
	t.Helper()
	deadline := time.Now().Add(startTimeout)
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
}

// through has the programs use another module than keyward's.
func (s *shared) through(module string) {
	s.env = append(s.env, "MODULE="+module, "P11_KIT_SERVER_ADDRESS=unix:path="+filepath.Join(s.dir, "k", "pkcs11.sock"))
}

// TestNginx has nginx serve TLS with a key of an HSM, its workers running as a user that policies let sign with that key and nothing else. Its
// configuration is reloaded while clients connect, none of which may notice. curl shows a key of its own. Then the policy is taken
// back, and handshakes fail.
func TestNginx(t *testing.T) {
	t.Run("module", func(t *testing.T) { testNginx(t, "") })
	t.Run("p11-kit", func(t *testing.T) { testNginx(t, p11kitClient(t)) })
}

func testNginx(t *testing.T, module string) {
	s := startShared(t, `
[[peer]]
user = "www-data"
principal = "acs:ram::1000000000000001:user/www"
`)
	if module != "" {
		s.through(module)
	}
	s.sh(`keywardctl principal create user/www
		keywardctl key create --alias web --instance kst-hardware --spec RSA_2048 --signers user/www --exclusive
		keywardctl key create --alias me --instance kst-software --spec EC_P256
		openssl req -new -x509 -days 30 -engine pkcs11 -keyform engine -key 'pkcs11:token=kst-hardware;object=web;type=private' -subj /CN=localhost -addext subjectAltName=DNS:localhost -out web.crt
		openssl req -new -x509 -days 30 -engine pkcs11 -keyform engine -key 'pkcs11:token=kst-software;object=me;type=private' -subj /CN=me -out me.crt`)
	port := freePort(t)
	conf := s.write("nginx.conf", fmt.Sprintf(`daemon off;
env MODULE; env P11_KIT_SERVER_ADDRESS; env KEYWARD_PKCS11_SOCKET; env OPENSSL_CONF;
user www-data;
worker_processes 2;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log;
ssl_engine pkcs11;
events {}
http {
  access_log off;
  server {
    listen 127.0.0.1:%[2]d ssl;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off; ssl_session_tickets off;
    ssl_certificate %[1]s/web.crt;
    ssl_certificate_key "engine:pkcs11:pkcs11:token=kst-hardware;object=web;type=private";
    ssl_verify_client optional_no_ca;
    location / { return 200 "hello $ssl_client_s_dn\n"; }
  }
}
`, s.dir, port))
	nginx := s.background(syscall.SIGQUIT, "/usr/sbin/nginx", "-c", conf)
	dial(t, port).Close()

	cert, err := os.ReadFile(filepath.Join(s.dir, "web.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(cert) {
		t.Fatal("no certificate")
	}
	get := func(version uint16) error {
		c := &http.Client{Timeout: startTimeout, Transport: &http.Transport{DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: version, MaxVersion: version}}}
		resp, err := c.Get(fmt.Sprintf("https://127.0.0.1:%d/", port))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && !strings.HasPrefix(string(body), "hello") {
			err = fmt.Errorf("the answer is %q", body)
		}
		return err
	}
	var done atomic.Bool
	var served, failed atomic.Int64
	var load sync.WaitGroup
	for i := range 4 {
		load.Go(func() {
			for !done.Load() {
				if err := get([]uint16{tls.VersionTLS12, tls.VersionTLS13}[i%2]); err != nil {
					failed.Add(1)
					t.Errorf("a client: %v", err)
					return
				}
				served.Add(1)
			}
		})
	}
	for range 3 {
		before := served.Load()
		if err := nginx.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(startTimeout); served.Load() < before+30 && failed.Load() == 0 && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond) // between two looks
		}
	}
	done.Store(true)
	load.Wait()
	if served.Load() < 90 {
		t.Errorf("only %d requests were served", served.Load())
	}
	out := s.sh(fmt.Sprintf(`curl --silent --show-error --cacert web.crt --engine pkcs11 --key-type ENG --key 'pkcs11:token=kst-software;object=me;type=private' --cert me.crt https://localhost:%d/`, port))
	if !strings.Contains(out, "CN=me") {
		t.Errorf("curl got %q", out)
	}
	usage := s.sh(`sleep 0; keywardctl api StartKeyAssociationCheck --KeyId alias/web >/dev/null; keywardctl key usage alias/web`)
	if !strings.Contains(usage, "user/www") {
		t.Errorf("who used the key: %s", usage)
	}

	s.sh(`keywardctl policy set alias/web --exclusive --users user/nobody --yes || keywardctl policy set alias/web --exclusive --users user/nobody`)
	if err := get(tls.VersionTLS13); err == nil {
		t.Error("nginx signs with a key that it may not use any more")
	}
}

// TestSSH logs in with a key of keyward, by the configuration that the documentation gives.
func TestSSH(t *testing.T) {
	s := startShared(t, "")
	page, err := os.ReadFile("../docs/pkcs11.md")
	if err != nil {
		t.Fatal(err)
	}
	_, config, found := strings.Cut(string(page), "<!-- ssh")
	_, config, _ = strings.Cut(config, "```\n")
	config, _, _ = strings.Cut(config, "```")
	if !found || !strings.Contains(config, "PKCS11Provider /usr") {
		t.Fatalf("the documentation has no configuration for ssh: %q", config)
	}
	provider := strings.Fields(config[strings.Index(config, "PKCS11Provider"):])[1]
	port := freePort(t)
	s.through(s.module)
	options := fmt.Sprintf(`
    HostName 127.0.0.1
    Port %d
    User root
    IdentityFile none
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    BatchMode yes
`, port)
	s.sh(`keywardctl key create --alias ec --instance kst-hardware --spec EC_P256
		keywardctl key create --alias rsa --instance kst-software --spec RSA_2048
		ssh-keygen -q -t ed25519 -N '' -f host
		ssh-keygen -D $MODULE > keys`)
	keys, err := os.ReadFile(filepath.Join(s.dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // which sshd wants
		t.Fatal(err)
	}
	for _, kind := range []string{"ecdsa-sha2-nistp256", "ssh-rsa"} {
		i := bytes.Index(keys, []byte(kind))
		if i < 0 {
			t.Fatalf("there is no %s key:\n%s", kind, keys)
		}
		line, _, _ := strings.Cut(string(keys[i:]), "\n")
		// sshd wants a file of root's in directories that nobody else may write.
		s.write("authorized", line+"\n")
		sshd := s.write("sshd_config", fmt.Sprintf(`ListenAddress 127.0.0.1:%d
HostKey %[2]s/host
AuthorizedKeysFile %[2]s/authorized
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
UsePAM no
PidFile none
StrictModes no
`, port, s.dir))
		t.Run(kind, func(t *testing.T) {
			server := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", sshd)
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = server.Process.Signal(syscall.SIGTERM)
				_ = server.Wait()
			}()
			dial(t, port).Close()
			for _, module := range []string{s.module, p11kitClient(t)} {
				s.write("ssh_config", strings.Replace(config, provider, module, 1)+options)
				if out := s.sh(`ssh -F ssh_config appliance echo logged in`); !strings.Contains(out, "logged in") {
					t.Errorf("ssh through %s: %s", module, out)
				}
			}
		})
	}
}

// TestJava runs a program of several threads with keys of both kinds of instance, of which keytool made the pairs.
func TestJava(t *testing.T) {
	source, err := filepath.Abs("testdata/java/Keys.java")
	if err != nil {
		t.Fatal(err)
	}
	s := startShared(t, "")
	for _, instance := range []string{"kst-software", "kst-hardware"} {
		slot := map[string]int{"kst-software": 0, "kst-hardware": 1}[instance]
		s.write("java.cfg", fmt.Sprintf("name = keyward\nlibrary = %s\nslotListIndex = %d\n", s.module, slot))
		s.write("compatible.cfg", fmt.Sprintf("name = compatible\nlibrary = %s\nslotListIndex = %d\nattributes = compatibility\n", s.module, slot))
		s.sh(fmt.Sprintf(`keywardctl key create --alias aes-%[1]s --instance %[1]s
			tool() { keytool "$@" -keystore NONE -storetype PKCS11 -addprovider SunPKCS11 -providerarg $PWD/java.cfg -storepass none; }
			tool -genkeypair -alias rsa -keyalg RSA -keysize 2048 -dname CN=rsa
			tool -genkeypair -alias ec -keyalg EC -groupname secp256r1 -dname CN=ec
			tool -list
			tool -certreq -alias ec -file ec.csr
			openssl req -in ec.csr -noout -verify`, instance))
		out := s.sh(fmt.Sprintf(`java %s $PWD/java.cfg rsa ec aes-%s $PWD/compatible.cfg`, source, instance))
		if !strings.Contains(out, "good: ") {
			t.Errorf("%s: %s", instance, out)
		}
	}
}

// certify writes a certificate for localhost and a public key, signed by a key that nobody keeps.
func (s *shared) certify(public, name string) {
	s.t.Helper()
	block, _ := pem.Decode([]byte(public))
	if block == nil {
		s.t.Fatalf("no public key: %s", public)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, ca)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(name, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// TestTLSServers has OpenSSL serve TLS 1.2 and 1.3 with keys of both kinds, and GnuTLS the RSA key exchange of TLS 1.2 with its PKCS #1 v1.5
// decryption: OpenSSL 3.0 can't do that with a key of any engine.
func TestTLSServers(t *testing.T) {
	s := startShared(t, "")
	for _, row := range []struct {
		name, create, flags string
		version             uint16
		suites              []uint16
	}{
		{"rsa13", "--spec RSA_2048", "-tls1_3", tls.VersionTLS13, nil},
		{"rsa12", "--spec RSA_2048", "-tls1_2", tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}},
		{"ec13", "--spec EC_P256", "-tls1_3", tls.VersionTLS13, nil},
		{"ec12", "--spec EC_P256", "-tls1_2", tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}},
		{"exchange", "--spec RSA_2048 --usage ENCRYPT/DECRYPT", "", tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}},
	} {
		for _, instance := range []string{"kst-software", "kst-hardware"} {
			t.Run(row.name+"/"+instance, func(t *testing.T) {
				port := freePort(t)
				key := fmt.Sprintf("pkcs11:token=%s;object=%s;type=private", instance, row.name+instance)
				s.sh(fmt.Sprintf(`keywardctl key create --alias %[1]s%[2]s --instance %[2]s %[3]s`, row.name, instance, row.create))
				if strings.Contains(row.create, "DECRYPT") { // it can't sign its certificate itself
					s.certify(s.sh(`keywardctl key public-key alias/`+row.name+instance), row.name+".crt")
				} else {
					s.sh(fmt.Sprintf(`openssl req -new -x509 -days 30 -engine pkcs11 -keyform engine -key '%[2]s' -subj /CN=localhost -addext subjectAltName=DNS:localhost -out %[1]s.crt`, row.name, key))
				}
				text, err := os.ReadFile(filepath.Join(s.dir, row.name+".crt"))
				if err != nil {
					t.Fatal(err)
				}
				block, _ := pem.Decode(text)
				cert, err := x509.ParseCertificate(block.Bytes)
				if err != nil {
					t.Fatal(err)
				}
				roots := x509.NewCertPool()
				roots.AddCert(cert)
				serve := fmt.Sprintf("exec gnutls-serv --quiet --http --priority NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+RSA --port %d --provider $MODULE --x509keyfile '%s' --x509certfile %s.crt", port, key, row.name)
				if row.flags != "" {
					serve = fmt.Sprintf("exec openssl s_server -quiet -www -accept 127.0.0.1:%d -engine pkcs11 -keyform engine -key '%s' -cert %s.crt %s", port, key, row.name, row.flags)
				}
				for _, module := range []string{s.module, p11kitClient(t)} {
					s.through(module)
					server := s.command(serve)
					if err := server.Start(); err != nil {
						t.Fatal(err)
					}
					dial(t, port).Close()
					for range 3 {
						c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: row.version, MaxVersion: row.version, CipherSuites: row.suites})
						if err != nil {
							t.Errorf("through %s: %v", module, err)
							break
						}
						c.Close()
					}
					_ = server.Process.Kill()
					_ = server.Wait()
				}
				s.through(s.module)
			})
		}
	}
}

// TestP11KitFiles has p11-kit find keyward by each module file of packaging, which the documentation shows, as the configuration of an unprivileged user.
func TestP11KitFiles(t *testing.T) {
	const uid = 4242
	s := startShared(t, fmt.Sprintf("\n[[peer]]\nuid = %d\nprincipal = \"acs:ram::1000000000000001:user/p11\"\n", uid))
	s.sh(`keywardctl key create --alias seen --instance kst-software --spec EC_P256 --signers user/p11 --exclusive
		keywardctl key create --alias unseen --instance kst-software --spec EC_P256 --signers user/other --exclusive`)
	page, err := os.ReadFile("../docs/pkcs11.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../packaging/p11-kit/*.module")
	if err != nil || len(files) != 3 {
		t.Fatalf("the module files are %v, %v", files, err)
	}
	for _, path := range files {
		name := filepath.Base(path)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file := string(text)
		if !strings.Contains(string(page), "<!-- file: "+name+" -->\n```\n"+file+"```\n") {
			t.Errorf("the documentation does not show %s", name)
		}
		t.Run(name, func(t *testing.T) {
			home := filepath.Join(s.dir, name)
			modules := filepath.Join(home, "pkcs11", "modules")
			if err := os.MkdirAll(modules, 0o755); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(s.dir, "k", "pkcs11.sock")
			file := strings.NewReplacer("libkeyward-pkcs11.so", s.module, "/run/keyward/pkcs11.sock", socket).Replace(file)
			if err := os.WriteFile(filepath.Join(modules, "keyward.module"), []byte(file), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := s.command(`p11tool --list-all-privkeys 'pkcs11:token=kst-software'`)
			cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+home)
			if strings.Contains(file, "server-address") { // which Debian 12's p11-kit passes over
				cmd.Env = append(cmd.Env, "P11_KIT_SERVER_ADDRESS=unix:path="+socket)
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "object=seen;") || strings.Contains(string(out), "unseen") {
				t.Errorf("%v\n%s\n%s", err, out, s.log)
			}
		})
	}
}
