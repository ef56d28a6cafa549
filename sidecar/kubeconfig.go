package sidecar

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// kubeconfig is what is read of the current context of a kubeconfig file.
type kubeconfig struct {
	CurrentContext string `json:"current-context"`
	Contexts       []struct {
		Name    string `json:"name"`
		Context struct {
			Cluster string `json:"cluster"`
			User    string `json:"user"`
		} `json:"context"`
	} `json:"contexts"`
	Clusters []struct {
		Name    string `json:"name"`
		Cluster struct {
			Server string `json:"server"`
			CAFile string `json:"certificate-authority"`
			CAData string `json:"certificate-authority-data"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		Name string `json:"name"`
		User struct {
			Token     string `json:"token"`
			TokenFile string `json:"tokenFile"`
			CertFile  string `json:"client-certificate"`
			CertData  string `json:"client-certificate-data"`
			KeyFile   string `json:"client-key"`
			KeyData   string `json:"client-key-data"`
		} `json:"user"`
	} `json:"users"`
}

// Kubeconfig is the API server of a file's current context, with a token or a client certificate; programs that hand out
// credentials are not run. The file is JSON, as "kubectl config view --raw --flatten -o json" prints it: a YAML parser would
// cost every Pod half a megabyte for what is done by hand. The error says what is missing.
func Kubeconfig(path string) (Server, error) {
	s, err := readKubeconfig(path)
	if err != nil {
		return Server{}, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return s, nil
}

func readKubeconfig(path string) (Server, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Server{}, err
	}
	var file kubeconfig
	if err := json.Unmarshal(data, &file); err != nil {
		return Server{}, fmt.Errorf("%w; accepted is JSON, as kubectl config view --raw --flatten -o json prints it", err)
	}
	var s Server
	cluster, user := "", ""
	for _, c := range file.Contexts {
		if c.Name == file.CurrentContext {
			cluster, user = c.Context.Cluster, c.Context.User
		}
	}
	if cluster == "" {
		return s, fmt.Errorf("current-context %q: there is no such context", file.CurrentContext)
	}
	load := loader{dir: filepath.Dir(path)}
	for _, c := range file.Clusters {
		if c.Name == cluster {
			s.URL = c.Cluster.Server
			s.CA = load.bytes(c.Cluster.CAData, c.Cluster.CAFile)
		}
	}
	if s.URL == "" {
		return s, fmt.Errorf("cluster %q has no server", cluster)
	}
	for _, u := range file.Users {
		if u.Name != user {
			continue
		}
		s.Token, s.TokenFile = []byte(u.User.Token), load.path(u.User.TokenFile)
		cert, key := load.bytes(u.User.CertData, u.User.CertFile), load.bytes(u.User.KeyData, u.User.KeyFile)
		if len(cert) > 0 && load.err == nil {
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				return s, fmt.Errorf("user %q: client certificate: %w", user, err)
			}
			s.Certificate = &pair
		}
	}
	if len(s.Token) == 0 && s.TokenFile == "" && s.Certificate == nil {
		return s, errors.Join(fmt.Errorf("user %q has neither a token nor a client certificate", user), load.err)
	}
	return s, load.err
}

// loader reads what stands in the file or in another one beside it.
type loader struct {
	dir string
	err error
}

func (l *loader) path(file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(l.dir, file)
}

func (l *loader) bytes(data, file string) []byte {
	var out []byte
	var err error
	switch {
	case data != "":
		out, err = base64.StdEncoding.DecodeString(data)
	case file != "":
		out, err = os.ReadFile(l.path(file))
	}
	l.err = errors.Join(l.err, err)
	return out
}
