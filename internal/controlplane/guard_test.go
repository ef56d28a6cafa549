package controlplane

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// killedVariable tells this test binary to be the program that is killed, and in which directory.
const killedVariable = "CONTROLPLANE_TEST_KILLED"

// A program that is killed outright cannot clean up: the guard does, its processes and its files.
func TestGuardCleansUpAfterAKilledProgram(t *testing.T) {
	if dir := os.Getenv(killedVariable); dir != "" {
		startSleepAndHang(t, dir)
		return
	}
	dir := filepath.Join(t.TempDir(), "it's here")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	killed := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	killed.Env = append(os.Environ(), killedVariable+"="+dir)
	// The sleeping process holds the other end: the end of file says that it is gone.
	output, sleeping, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	killed.Stdout, killed.Stderr = sleeping, sleeping
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	sleeping.Close()
	await(t, "the process id", func() bool {
		_, err := os.Stat(filepath.Join(dir, "sleep.pid"))
		return err == nil
	})

	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait()

	await(t, "the directory's removal", func() bool {
		_, err := os.Stat(dir)
		return os.IsNotExist(err)
	})
	if err := output.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := output.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
		t.Errorf("reading from the pipe gave %d bytes and %v, want its end: the process still runs", n, err)
	}
}

func startSleepAndHang(t *testing.T, dir string) {
	g, err := startGuard(dir)
	if err != nil {
		t.Fatal(err)
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := g.wrap(sleep)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "60")
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}
