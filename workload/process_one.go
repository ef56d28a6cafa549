package workload

import (
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// NeedsProcessOne says by what a container is recognized whose first program only works as process 1 of its PID
// namespace. In a Pod that shares one, that is the pause process. The answer is empty where nothing is recognized:
// what an image starts by itself shows at most in the image's name.
//
// tini, dumb-init, catatonit and supervisord work as any process and are no such program.
func NeedsProcessOne(c *corev1.Container) string {
	if program := firstProgram(c); program != "" {
		if kind := initSystem(program); kind != "" {
			return fmt.Sprintf("%s (%s)", program, kind)
		}
		return ""
	}
	if kind := initSystemOfImage(c.Image); kind != "" {
		return fmt.Sprintf("image %s (%s)", c.Image, kind)
	}
	return ""
}

// firstProgram is what the container's command starts, past a shell and the lifecycle manager. It is empty where the
// image decides.
func firstProgram(c *corev1.Container) string {
	if len(c.Command) == 0 {
		return ""
	}
	argv := append(append([]string{}, c.Command...), c.Args...)
	for len(argv) > 0 {
		switch path.Base(argv[0]) {
		case "lifecycle-manager":
			rest := argv[1:]
			for len(rest) > 0 && rest[0] != "--" {
				rest = rest[1:]
			}
			if len(rest) < 2 {
				return argv[0]
			}
			argv = rest[1:]
		case "sh", "bash", "ash", "dash":
			if len(argv) < 3 || !strings.HasPrefix(argv[1], "-") || !strings.HasSuffix(argv[1], "c") {
				return argv[0]
			}
			script := strings.Fields(argv[2])
			if len(script) > 1 && script[0] == "exec" {
				script = script[1:]
			}
			if len(script) == 0 {
				return argv[0]
			}
			return script[0]
		default:
			return argv[0]
		}
	}
	return ""
}

// initSystem names the init system that a program is; empty if it is none.
func initSystem(program string) string {
	if program == "/init" {
		return "s6-overlay"
	}
	switch path.Base(program) {
	case "s6-overlay-suexec", "preinit":
		return "s6-overlay"
	case "s6-linux-init":
		return "s6-linux-init"
	case "systemd":
		return "systemd"
	case "runit", "runit-init":
		return "runit"
	case "openrc-init":
		return "OpenRC"
	}
	switch program {
	case "/sbin/init", "/usr/sbin/init", "/bin/init", "/lib/systemd/systemd":
		return "the system's init"
	}
	if strings.HasPrefix(program, "/package/admin/s6-overlay") {
		return "s6-overlay"
	}
	return ""
}

// initSystemOfImage names the init system that an image is known to start by itself.
func initSystemOfImage(image string) string {
	repository, _, _ := strings.Cut(image, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		repository = repository[:i]
	}
	parts := strings.Split(repository, "/")
	name := parts[len(parts)-1]
	owner := ""
	if len(parts) > 1 {
		owner = parts[len(parts)-2]
	}
	switch {
	case owner == "linuxserver", owner == "home-assistant", strings.Contains(name, "s6-overlay"):
		return "s6-overlay"
	case strings.Contains(name, "systemd"), strings.HasPrefix(name, "ubi") && strings.HasSuffix(name, "-init"):
		return "systemd"
	}
	return ""
}
