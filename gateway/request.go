package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Request says what a user's agent should be. What is left out stays as it is, and begins as the Gateway's default.
type Request struct {
	UserType lifecycle.UserType `json:"userType,omitempty"`

	// Image is the agent container's. The policy judges it.
	Image string `json:"image,omitempty"`

	// Env are the variables that were asked for, all of them: nil leaves them as they are, empty removes them.
	Env map[string]string `json:"env,omitempty"`
}

const (
	maxUser  = 1024 // bytes of a user's id
	maxImage = 512
	maxEnv   = 64
	// maxEnvBytes keeps what is remembered in an annotation far below what annotations may hold.
	maxEnvBytes = 32 << 10
)

func checkUser(user string) error {
	if user == "" || len(user) > maxUser {
		return fmt.Errorf("the user's id has %d bytes; accepted are 1 to %d", len(user), maxUser)
	}
	return nil
}

// check returns everything that is wrong with the request, as far as the policy does not judge it.
func (r *Request) check() error {
	var errs []error
	if r.UserType != "" {
		if _, err := lifecycle.ParseUserType(string(r.UserType)); err != nil {
			errs = append(errs, fmt.Errorf("userType: %w", err))
		}
	}
	if len(r.Image) > maxImage {
		errs = append(errs, fmt.Errorf("image: has %d characters; accepted are up to %d", len(r.Image), maxImage))
	}
	if len(r.Env) > maxEnv {
		errs = append(errs, fmt.Errorf("env: has %d variables; accepted are up to %d", len(r.Env), maxEnv))
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(r.Env)) {
		size += len(name) + len(r.Env[name])
		switch problems := validation.IsCIdentifier(name); {
		case len(problems) > 0:
			errs = append(errs, fmt.Errorf("env %q: is not accepted; a name is made of letters, digits and _ and begins with no digit", name))
		case reserved(name):
			errs = append(errs, fmt.Errorf("env %s: belongs to the lifecycle and is set by the user type", name))
		case !utf8.ValidString(r.Env[name]) || strings.ContainsRune(r.Env[name], 0):
			errs = append(errs, fmt.Errorf("env %s: must be UTF-8 without NUL", name))
		}
	}
	if size > maxEnvBytes {
		errs = append(errs, fmt.Errorf("env: has %d bytes; accepted are up to %d", size, maxEnvBytes))
	}
	return errors.Join(errs...)
}

// reserved says whether a variable is one by which the agent is told its idle settings.
func reserved(name string) bool {
	return slices.Contains([]string{
		lifecycle.EnvUserType, lifecycle.EnvIdleTimeoutMinutes, lifecycle.EnvIdleCheckIntervalSeconds, lifecycle.EnvIdleWarningSeconds,
		lifecycle.EnvIdleSnoozeMaxMinutes, lifecycle.EnvIdleGraceSeconds, lifecycle.EnvEnableIdleShutdown,
		lifecycle.EnvActivityKey, lifecycle.EnvActivityAudience,
	}, name)
}

// remembered is what an agent was asked to be, as lifecycle.AnnotationRequest keeps it.
type remembered struct {
	Image string            `json:"image,omitempty"`
	Env   map[string]string `json:"env,omitempty"`
}

// recall reads the annotation. One that cannot be read is as good as none: the gateway alone writes it.
func recall(annotations map[string]string) remembered {
	var m remembered
	if err := json.Unmarshal([]byte(annotations[lifecycle.AnnotationRequest]), &m); err != nil {
		return remembered{}
	}
	return m
}

// with returns what is remembered after the request.
func (m remembered) with(r *Request) remembered {
	if r.Image != "" {
		m.Image = r.Image
	}
	if r.Env != nil {
		m.Env = r.Env
	}
	return m
}

func (m remembered) annotation() string {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings and a map of strings always encode
	}
	return string(text)
}
