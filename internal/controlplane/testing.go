package controlplane

import "context"

// TB is what StartForTest needs of *testing.T or *testing.B, so that the demo does not link package testing.
type TB interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// StartForTest is Start for the length of a test: it fails the test where Start fails, and stops the control plane
// when the test and its subtests are done. A package whose tests share one calls Start from TestMain instead.
func StartForTest(t TB, opts Options) *ControlPlane {
	t.Helper()
	cp, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := cp.Stop(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return cp
}
