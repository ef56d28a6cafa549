package sidecar

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// Health returns nil if the sidecar runs that this process was started beside, as by kubectl exec. It reads the process
// table and nothing else: asking the sidecar itself would wake it.
func Health(procDir string) error {
	table, err := newProcessTable(procDir)
	if err != nil {
		return err
	}
	self, err := os.ReadFile(filepath.Join(procDir, "self", "comm"))
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(procDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err != nil || pid == os.Getpid() {
			continue
		}
		s, err := table.stat(e.Name())
		if err != nil || s.zombie {
			continue
		}
		comm, err := os.ReadFile(filepath.Join(procDir, e.Name(), "comm"))
		if err != nil || string(comm) != string(self) {
			continue
		}
		if cgroup, err := table.cgroup(e.Name()); err == nil && cgroup == table.own {
			return nil
		}
	}
	return errors.New("the sidecar does not run")
}
