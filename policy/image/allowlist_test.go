package image

import (
	"strings"
	"testing"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func TestAllows(t *testing.T) {
	tests := []struct {
		entry   string
		allowed []string
		denied  []string
	}{
		{
			entry: "ghcr.io/dexorder/*",
			allowed: []string{
				"ghcr.io/dexorder/agent", "ghcr.io/dexorder/agent:v1", "ghcr.io/dexorder/team/agent:v1",
				"ghcr.io/dexorder/agent@" + digestA, "ghcr.io/dexorder/agent:v1@" + digestA,
			},
			denied: []string{
				"ghcr.io/dexorder", "ghcr.io/dexorder:v1", "ghcr.io/dexorder-evil/agent", "ghcr.io/dexorderx/agent",
				"ghcr.io/x/dexorder/agent", "evil.example/ghcr.io/dexorder/agent", "ghcr.io.evil.example/dexorder/agent",
				"ghcr.io:443/dexorder/agent", "GHCR.io/dexorder/agent", "dexorder/agent", "agent",
				"docker.io/dexorder/agent", "xghcr.io/dexorder/agent",
			},
		},
		{
			entry:   "ghcr.io/dexorder/agent",
			allowed: []string{"ghcr.io/dexorder/agent", "ghcr.io/dexorder/agent:v1", "ghcr.io/dexorder/agent@" + digestA},
			denied: []string{
				"ghcr.io/dexorder/agent/x", "ghcr.io/dexorder/agents", "ghcr.io/dexorder/agen", "ghcr.io/dexorder",
			},
		},
		{
			entry:   "ghcr.io/dexorder/agent:v1",
			allowed: []string{"ghcr.io/dexorder/agent:v1"},
			denied: []string{
				"ghcr.io/dexorder/agent", "ghcr.io/dexorder/agent:v10", "ghcr.io/dexorder/agent:V1",
				// Runtimes pull by the digest, whatever the tag says.
				"ghcr.io/dexorder/agent:v1@" + digestA,
			},
		},
		{
			entry:   "ghcr.io/dexorder/agent:latest",
			allowed: []string{"ghcr.io/dexorder/agent:latest", "ghcr.io/dexorder/agent"},
			denied:  []string{"ghcr.io/dexorder/agent@" + digestA},
		},
		{
			entry:   "ghcr.io/dexorder/agent@" + digestA,
			allowed: []string{"ghcr.io/dexorder/agent@" + digestA, "ghcr.io/dexorder/agent:v1@" + digestA},
			denied:  []string{"ghcr.io/dexorder/agent", "ghcr.io/dexorder/agent:v1", "ghcr.io/dexorder/agent@" + digestB},
		},
		{
			entry:   "ghcr.io/dexorder/agent:v1@" + digestA,
			allowed: []string{"ghcr.io/dexorder/agent@" + digestA, "ghcr.io/dexorder/agent:v2@" + digestA},
			denied:  []string{"ghcr.io/dexorder/agent:v1", "ghcr.io/dexorder/agent:v1@" + digestB},
		},
		{
			entry:   "registry.example.com:5000/*",
			allowed: []string{"registry.example.com:5000/agent", "registry.example.com:5000/a/b/c:1"},
			denied:  []string{"registry.example.com/agent", "registry.example.com:5001/agent"},
		},
		{
			entry:   "docker.io/*",
			allowed: []string{"nginx", "docker.io/nginx", "dexorder/agent", "index.docker.io/library/nginx"},
			denied:  []string{"ghcr.io/nginx/nginx", "localhost/nginx", "docker.io.evil.example/nginx"},
		},
		{
			entry:   "docker.io/library/*",
			allowed: []string{"nginx", "nginx:1.29", "library/nginx", "docker.io/nginx", "index.docker.io/nginx"},
			denied:  []string{"dexorder/nginx", "docker.io/dexorder/nginx", "ghcr.io/library/nginx"},
		},
		{
			entry:   "nginx",
			allowed: []string{"nginx", "docker.io/library/nginx:1.29"},
			denied:  []string{"nginx/nginx", "ghcr.io/library/nginx"},
		},
		{
			entry:   "dexorder/*",
			allowed: []string{"dexorder/agent", "docker.io/dexorder/agent"},
			denied:  []string{"dexorder", "dexorder.example/agent", "dexorder:5000/agent"},
		},
	}
	for _, tt := range tests {
		list, err := ParseList([]string{tt.entry})
		if err != nil {
			t.Errorf("ParseList(%q): %v", tt.entry, err)
			continue
		}
		for _, image := range tt.allowed {
			if err := list.Allows(image); err != nil {
				t.Errorf("%s, %s: %v", tt.entry, image, err)
			}
		}
		for _, image := range tt.denied {
			if list.Allows(image) == nil {
				t.Errorf("%s allows %s", tt.entry, image)
			}
		}
	}
}

func TestAllowsNothingThatIsNoReference(t *testing.T) {
	list, err := ParseList([]string{"docker.io/*", "ghcr.io/*"})
	if err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{
		"", " ", "nginx ", " nginx", "nginx:", "nginx@", "nginx:1:2", "Nginx", "ghcr.io/Dexorder/agent", "ghcr.io//agent",
		"ghcr.io/", "/nginx", "../nginx", "ghcr.io/../agent", "https://ghcr.io/dexorder/agent", "ghcr.io/dexorder/agent/",
		"nginx\n", "nginx\x00", "*", "ghcr.io/*", "nginx@sha256:short", "nginx@md5:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		digestA, strings.TrimPrefix(digestA, "sha256:"), "sha256:aaaa", "sha512:aaaa", digestA + "@" + digestA,
		"ghcr.io/" + strings.Repeat("a", 300),
	} {
		if list.Allows(image) == nil {
			t.Errorf("%q is allowed", image)
		}
	}
}

func TestAllowsMessage(t *testing.T) {
	list, err := ParseList([]string{"ghcr.io/dexorder/*", "docker.io/*", "nginx:1.29"})
	if err != nil {
		t.Fatal(err)
	}
	many, err := ParseList(strings.Fields("a b c d e f g h i j k l"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		list  Allowlist
		image string
		want  string
	}{
		{list, "evil.example/agent:1", `image "evil.example/agent:1" is not allowed; ` +
			`allowed are ghcr.io/dexorder/*, docker.io/*, docker.io/library/nginx:1.29`},
		{list, "ghcr.io/Dexorder/agent", `image "ghcr.io/Dexorder/agent" is not a valid reference`},
		{list, "sha256:abc", `image "sha256:abc" is an ID, not a reference to a repository`},
		{Allowlist{}, "nginx", `image "nginx" is not allowed; allowed are none`},
		{many, "z", `image "z" is not allowed; allowed are docker.io/library/a, docker.io/library/b, docker.io/library/c, ` +
			`docker.io/library/d, docker.io/library/e, docker.io/library/f, docker.io/library/g, docker.io/library/h, ` +
			`docker.io/library/i, docker.io/library/j and 2 more`},
		{list, strings.Repeat("x", 1000), `image "` + strings.Repeat("x", 512) + `" (1000 bytes) is not a valid reference`},
	}
	for _, tt := range tests {
		if err := tt.list.Allows(tt.image); err == nil || err.Error() != tt.want {
			t.Errorf("Allows(%.40q) =\n%v, want\n%s", tt.image, err, tt.want)
		}
	}
}

func TestParseEntry(t *testing.T) {
	const (
		everything = "allows every image; name at least a registry, as registry.example.com/*"
		misplaced  = `"*" stands for whole components and only at the end, as in host/path/*`
		form       = "must be host/path/*, host/path/repo, host/path/repo:tag or host/path/repo@sha256:…"
		lowerCase  = "the host must be in lower case"
	)
	tests := []struct{ entry, want, err string }{
		{entry: "ghcr.io/dexorder/*", want: "ghcr.io/dexorder/*"},
		{entry: "ghcr.io/*", want: "ghcr.io/*"},
		{entry: "docker.io/*", want: "docker.io/*"},
		{entry: "index.docker.io/*", want: "docker.io/*"},
		{entry: "library/*", want: "docker.io/library/*"},
		{entry: "nginx", want: "docker.io/library/nginx"},
		{entry: "docker.io/nginx:1", want: "docker.io/library/nginx:1"},
		{entry: "localhost:5000/a/b:c@" + digestA, want: "localhost:5000/a/b:c@" + digestA},

		{entry: "*", err: everything},
		{entry: "/*", err: everything},
		{entry: "*/*", err: misplaced},
		{entry: "ghcr.io/*/agent", err: misplaced},
		{entry: "ghcr.io/dex*", err: misplaced},
		{entry: "ghcr.io/dexorder/*:v1", err: misplaced},
		{entry: "ghcr.io/**", err: misplaced},
		{entry: "", err: form},
		{entry: "ghcr.io/dexorder/", err: form},
		{entry: "ghcr.io//*", err: form},
		{entry: "ghcr.io/dexorder/agent:v1/*", err: form},
		{entry: "ghcr.io/Dexorder/*", err: form},
		{entry: "https://ghcr.io/dexorder/*", err: form},
		{entry: digestA, err: form},
		{entry: "GHCR.io/dexorder/*", err: lowerCase},
	}
	for _, tt := range tests {
		e, err := ParseEntry(tt.entry)
		switch {
		case tt.err == "" && err != nil:
			t.Errorf("ParseEntry(%q): %v", tt.entry, err)
		case tt.err == "" && e.String() != tt.want:
			t.Errorf("ParseEntry(%q) = %s, want %s", tt.entry, e, tt.want)
		case tt.err != "" && (err == nil || err.Error() != tt.err):
			t.Errorf("ParseEntry(%q): %v, want %s", tt.entry, err, tt.err)
		}
	}
}

func TestParseListNamesEveryEntryThatIsWrong(t *testing.T) {
	_, err := ParseList([]string{"ghcr.io/*", "*", "GHCR.io/*"})
	want := `allowlist entry "*": allows every image; name at least a registry, as registry.example.com/*` + "\n" +
		`allowlist entry "GHCR.io/*": the host must be in lower case`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v, want\n%s", err, want)
	}
}

// FuzzImage holds what is allowed to the meaning of the entry, said in strings once more.
func FuzzImage(f *testing.F) {
	for _, entry := range []string{"ghcr.io/dexorder/*", "ghcr.io/*", "docker.io/*", "nginx", "a/b:c", "a.b/c@" + digestA, "*"} {
		for _, image := range []string{
			"ghcr.io/dexorder/agent:v1", "ghcr.io/dexorder-evil/agent", "nginx", "docker.io/nginx", "a/b:c@" + digestA,
			"a.b/c@" + digestA, digestA, "GHCR.io/dexorder/agent",
		} {
			f.Add(entry, image)
		}
	}
	f.Fuzz(func(t *testing.T, entry, image string) {
		e, err := ParseEntry(entry)
		if err != nil {
			return
		}
		if again, err := ParseEntry(e.String()); err != nil || again != e {
			t.Fatalf("entry %q is %s, which reads as %v, %v", entry, e, again, err)
		}
		ref, err := Parse(image)
		if err != nil {
			if (Allowlist{entries: []Entry{e}}).Allows(image) == nil {
				t.Fatalf("%s allows %q, which does not parse", e, image)
			}
			return
		}
		if again, err := Parse(ref.String()); err != nil || again != ref {
			t.Fatalf("image %q is %s, which reads as %v, %v", image, ref, again, err)
		}
		if !e.Covers(ref) {
			return
		}
		full := ref.String()
		if base, below := strings.CutSuffix(e.String(), "/*"); below {
			if !strings.HasPrefix(full, base+"/") {
				t.Fatalf("%s covers %s", e, full)
			}
			return
		}
		name, _, _ := strings.Cut(full, "@")
		name = strings.TrimSuffix(name, ":"+ref.Tag)
		if rest, found := strings.CutPrefix(e.String(), name); !found || rest != "" && rest[0] != ':' && rest[0] != '@' {
			t.Fatalf("%s covers %s", e, full)
		}
	})
}

func BenchmarkAllows(b *testing.B) {
	list, err := ParseList([]string{"registry.example.com/base/*", "ghcr.io/other/agent:v1", "ghcr.io/dexorder/*"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := list.Allows("ghcr.io/dexorder/agent:v1.2.3"); err != nil {
			b.Fatal(err)
		}
	}
}
