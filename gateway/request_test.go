package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func TestRequestCheck(t *testing.T) {
	many := map[string]string{}
	for i := range maxEnv + 1 {
		many[fmt.Sprintf("V%d", i)] = ""
	}
	for _, tt := range []struct {
		request Request
		want    string
	}{
		{Request{}, ""},
		{Request{UserType: lifecycle.Paid, Image: "ghcr.io/dexorder/agent:v1", Env: map[string]string{"A_1": "any thing\n$(X)"}}, ""},
		{Request{UserType: "gold"}, `userType: user type "gold" is not one of`},
		{Request{Image: strings.Repeat("x", maxImage+1)}, "image: has 513 characters; accepted are up to 512"},
		{Request{Env: many}, "env: has 65 variables; accepted are up to 64"},
		{Request{Env: map[string]string{"1A": ""}}, `env "1A": is not accepted`},
		{Request{Env: map[string]string{lifecycle.EnvEnableIdleShutdown: "false"}}, "env ENABLE_IDLE_SHUTDOWN: belongs to the lifecycle"},
		{Request{Env: map[string]string{"A": "\xff"}}, "env A: must be UTF-8"},
		{Request{Env: map[string]string{"A": strings.Repeat("x", maxEnvBytes)}}, "env: has 32769 bytes"},
	} {
		err := tt.request.check()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%.60v: %v, want %q", tt.request, err, tt.want)
		}
	}
}

func TestRemembered(t *testing.T) {
	m := remembered{Image: "one", Env: map[string]string{"A": "1"}}
	m = m.with(&Request{})
	if m.Image != "one" || m.Env["A"] != "1" {
		t.Errorf("nothing was asked for: %v", m)
	}
	m = m.with(&Request{Env: map[string]string{}})
	if m.Image != "one" || len(m.Env) != 0 {
		t.Errorf("no variables were asked for: %v", m)
	}
	again := recall(map[string]string{lifecycle.AnnotationRequest: m.annotation()})
	if again.Image != "one" || len(again.Env) != 0 {
		t.Errorf("recalled %v", again)
	}
	if bad := recall(map[string]string{lifecycle.AnnotationRequest: "{"}); bad.Image != "" {
		t.Errorf("recalled %v", bad)
	}
}
