package certs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// volume is a directory that changes as the kubelet changes a mounted Secret: the files are links into ..data, which is
// itself a link, replaced in one rename when everything new is in place.
type volume struct {
	dir      string
	versions int
}

func newVolume(t *testing.T) *volume {
	t.Helper()
	return &volume{dir: t.TempDir()}
}

func (v *volume) path(name string) string { return filepath.Join(v.dir, name) }

func (v *volume) write(files map[string][]byte) error {
	v.versions++
	current := fmt.Sprintf("..%d", v.versions)
	if err := os.Mkdir(v.path(current), 0o755); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(v.dir, current, name), content, 0o600); err != nil {
			return err
		}
	}
	if err := os.Symlink(current, v.path("..data_tmp")); err != nil {
		return err
	}
	old, err := os.Readlink(v.path("..data"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(v.path("..data_tmp"), v.path("..data")); err != nil {
		return err
	}
	for name := range files {
		err := os.Symlink(filepath.Join("..data", name), v.path(name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(v.path(old))
}
