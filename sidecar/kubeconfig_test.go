package sidecar

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKubeconfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("ca.crt", "a CA")
	const contexts = `"current-context": "here", "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}]`
	cluster := func(fields string) string { return `"clusters": [{"name": "c", "cluster": {` + fields + `}}]` }
	user := func(fields string) string { return `"users": [{"name": "u", "user": {` + fields + `}}]` }
	file := func(parts ...string) string { return "{" + strings.Join(parts, ", ") + "}" }

	got, err := Kubeconfig(write("good", file(contexts,
		cluster(`"server": "https://127.0.0.1:6443", "certificate-authority": "ca.crt"`), user(`"tokenFile": "token"`))))
	if err != nil {
		t.Fatal(err)
	}
	if got.URL != "https://127.0.0.1:6443" || string(got.CA) != "a CA" || got.TokenFile != filepath.Join(dir, "token") {
		t.Errorf("got %+v", got)
	}

	server := cluster(`"server": "https://127.0.0.1:6443"`)
	for name, tc := range map[string]struct{ content, want string }{
		"YAML":        {"current-context: here\n", "accepted is JSON, as kubectl config view --raw --flatten -o json prints it"},
		"no context":  {file(`"current-context": "there"`), `current-context "there": there is no such context`},
		"no server":   {file(contexts), `cluster "c" has no server`},
		"no user":     {file(contexts, server), `user "u" has neither a token nor a client certificate`},
		"bad data":    {file(contexts, server, user(`"token": "x", "client-certificate-data": "%"`)), "illegal base64"},
		"bad pair":    {file(contexts, server, user(`"client-certificate-data": "eA==", "client-key-data": "eA=="`)), `user "u": client certificate`},
		"no CA there": {file(contexts, cluster(`"server": "https://x", "certificate-authority": "no.crt"`), user(`"token": "x"`)), "no.crt"},
	} {
		path := write(strings.ReplaceAll(name, " ", "-"), tc.content)
		if _, err := Kubeconfig(path); err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want the path and %q in it", name, err, tc.want)
		}
	}
}
