package main

import (
	"os"
	"testing"
	"time"
)

func TestProcess(t *testing.T) {
	self := process(os.Getpid())
	before, err := self.cpu()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Millisecond)
	for busy := true; busy; busy = time.Now().Before(deadline) {
	}
	after, err := self.cpu()
	if err != nil {
		t.Fatal(err)
	}
	if after <= before {
		t.Errorf("CPU time went from %s to %s over busy work", before, after)
	}
	m, err := self.memory()
	if err != nil {
		t.Fatal(err)
	}
	if m.anonymous < 1<<20 || m.private < m.anonymous || m.resident < m.private {
		t.Errorf("memory %+v: want a megabyte at least, anonymous within private within resident", m)
	}
}
