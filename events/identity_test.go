package events

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/dexorder/agent-lifecycle/internal/natsserver"
)

// authority signs certificates of tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.sign(template)
	return a
}

// sign signs with the authority's key, or with the new one while there is none.
func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) serverConfig() *tls.Config {
	a.t.Helper()
	cert, key := a.sign(&x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		ClientCAs:    pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	}
}

func (a *authority) caFile() string {
	return write(a.t, "ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})))
}

func (a *authority) clientFiles() (certFile, keyFile string) {
	a.t.Helper()
	cert, key := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return write(a.t, "tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))),
		write(a.t, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// waitsBecause expects that the Publisher does not get through, and says why.
func (f *fixture) waitsBecause(why string) {
	f.t.Helper()
	f.pace.flush = 20 * time.Millisecond
	f.start()
	f.Publish(event(0))
	eventually(f.t, why, func() bool { return len(f.log.lines(why)) > 0 })
	f.stop()
	if got := f.dropped(droppedShutdown); got != 1 {
		f.t.Errorf("%v waited to the end, want 1", got)
	}
}

func (f *fixture) getsThrough() {
	f.t.Helper()
	f.start()
	f.Publish(event(0))
	f.published(1)
}

func TestTLS(t *testing.T) {
	a := newAuthority(t)
	s := natsserver.StartForTest(t, natsserver.Options{Configure: func(o *server.Options) {
		o.TLS, o.TLSVerify, o.TLSConfig, o.TLSTimeout = true, true, a.serverConfig(), 5
	}})
	url := "tls" + strings.TrimPrefix(s.URL(), "nats")
	certFile, keyFile := a.clientFiles()
	foreign := newAuthority(t)

	t.Run("with a client certificate", func(t *testing.T) {
		newFixture(t, url, func(o *Options) {
			o.Config.CAFile, o.Config.CertFile, o.Config.KeyFile = a.caFile(), certFile, keyFile
		}).getsThrough()
	})
	t.Run("without one", func(t *testing.T) {
		newFixture(t, url, func(o *Options) { o.Config.CAFile = a.caFile() }).waitsBecause(troubleAway)
	})
	t.Run("server of another CA", func(t *testing.T) {
		newFixture(t, url, func(o *Options) {
			o.Config.CAFile, o.Config.CertFile, o.Config.KeyFile = foreign.caFile(), certFile, keyFile
		}).waitsBecause("certificate signed by unknown authority")
	})
	t.Run("file that comes later", func(t *testing.T) {
		late := certFile + ".late"
		f := newFixture(t, url, func(o *Options) {
			o.Config.CAFile, o.Config.CertFile, o.Config.KeyFile = a.caFile(), late, keyFile
		}).start()
		f.Publish(event(0))
		eventually(t, "trouble", func() bool { return len(f.log.lines(late)) > 0 })
		if err := os.Link(certFile, late); err != nil {
			t.Fatal(err)
		}
		f.published(1)
	})
	t.Run("server without TLS", func(t *testing.T) {
		plain := natsserver.StartForTest(t, natsserver.Options{})
		newFixture(t, plain.URL(), func(o *Options) { o.Config.CAFile = a.caFile() }).waitsBecause("secure connection not available")
	})
}

func TestUsernameAndPassword(t *testing.T) {
	s := natsserver.StartForTest(t, natsserver.Options{Configure: func(o *server.Options) { o.Username, o.Password = "us", "secret" }})
	username, password := write(t, "username", "us\n"), write(t, "password", "wrong\n")
	f := newFixture(t, s.URL(), func(o *Options) { o.Config.UsernameFile, o.Config.PasswordFile = username, password }).start()
	f.Publish(event(0))
	eventually(t, troubleDenied, func() bool { return len(f.log.lines(troubleDenied)) > 0 })
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.published(1)
	if got := f.log.lines("secret"); len(got) > 0 {
		t.Errorf("the log shows the password: %s", got)
	}
}

func TestNkey(t *testing.T) {
	public, seed := newNkey(t, nkeys.CreateUser)
	s := natsserver.StartForTest(t, natsserver.Options{Configure: func(o *server.Options) {
		o.Nkeys = []*server.NkeyUser{{Nkey: public}}
	}})
	newFixture(t, s.URL(), func(o *Options) { o.Config.NkeyFile = write(t, "nkey", string(seed)+"\n") }).getsThrough()
	_, other := newNkey(t, nkeys.CreateUser)
	newFixture(t, s.URL(), func(o *Options) { o.Config.NkeyFile = write(t, "nkey", string(other)) }).waitsBecause(troubleDenied)
}

func newNkey(t *testing.T, create func() (nkeys.KeyPair, error)) (public string, seed []byte) {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = pair.PublicKey(); err != nil {
		t.Fatal(err)
	}
	if seed, err = pair.Seed(); err != nil {
		t.Fatal(err)
	}
	return public, bytes.Clone(seed)
}

func TestCredentials(t *testing.T) {
	pair := func(seed []byte) nkeys.KeyPair {
		p, err := nkeys.FromSeed(seed)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	encode := func(token string, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	operator, operatorSeed := newNkey(t, nkeys.CreateOperator)
	account, accountSeed := newNkey(t, nkeys.CreateAccount)
	system, _ := newNkey(t, nkeys.CreateAccount)
	user, userSeed := newNkey(t, nkeys.CreateUser)

	claims := jwt.NewAccountClaims(account)
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	resolver := &server.MemAccResolver{}
	for name, token := range map[string]string{
		account: encode(claims.Encode(pair(operatorSeed))),
		system:  encode(jwt.NewAccountClaims(system).Encode(pair(operatorSeed))),
	} {
		if err := resolver.Store(name, token); err != nil {
			t.Fatal(err)
		}
	}
	s := natsserver.StartForTest(t, natsserver.Options{Configure: func(o *server.Options) {
		o.TrustedKeys, o.AccountResolver, o.SystemAccount = []string{operator}, resolver, system
	}})
	creds, err := jwt.FormatUserConfig(encode(jwt.NewUserClaims(user).Encode(pair(accountSeed))), userSeed)
	if err != nil {
		t.Fatal(err)
	}
	newFixture(t, s.URL(), func(o *Options) { o.Config.CredentialsFile = write(t, "us.creds", string(creds)) }).getsThrough()
	newFixture(t, s.URL(), nil).waitsBecause(troubleDenied)
}
