package image

import (
	"errors"
	"fmt"
	"strings"
)

// Entry is one entry of an allowlist. There are three forms:
//
//	host/path/*           every repository below that path, any tag or digest
//	host/path/repo        that repository, any tag or digest
//	host/path/repo:tag    exactly that; likewise host/path/repo@sha256:…
//
// An entry that has a tag and a digest means the digest, as to runtimes.
type Entry struct {
	// ref without Path stands for a whole registry.
	ref Reference

	// below says that the entry is for what is below ref, not for ref itself.
	below bool
}

// wildcard is the last component of an entry for every repository below a path.
const wildcard = "/*"

// ParseEntry reads an entry of an allowlist. The error says what is wrong and does not repeat the entry.
func ParseEntry(s string) (Entry, error) {
	base, below := strings.CutSuffix(s, wildcard)
	if s == "*" || below && base == "" {
		return Entry{}, errors.New("allows every image; name at least a registry, as registry.example.com/*")
	}
	if strings.Contains(base, "*") {
		return Entry{}, errors.New(`"*" stands for whole components and only at the end, as in host/path/*`)
	}
	parse := Parse
	if below {
		parse = parsePath
	}
	ref, err := parse(base)
	if err != nil {
		return Entry{}, errors.New("must be host/path/*, host/path/repo, host/path/repo:tag or host/path/repo@sha256:…")
	}
	if ref.Domain != strings.ToLower(ref.Domain) {
		return Entry{}, errors.New("the host must be in lower case")
	}
	return Entry{ref: ref, below: below}, nil
}

// parsePath reads a registry or a path in one. The grammar knows repositories only, and normalises docker.io/x to
// docker.io/library/x: two more components make a repository of any path and leave nothing to normalise but the host.
func parsePath(s string) (Reference, error) {
	const repository = "/a/a"
	ref, err := Parse(s + repository)
	ref.Path = strings.TrimPrefix(strings.TrimSuffix("/"+ref.Path, repository), "/")
	return ref, err
}

// String writes the entry in full, with host and, where docker.io needs it, library.
func (e Entry) String() string {
	switch {
	case e.below && e.ref.Path == "":
		return e.ref.Domain + wildcard
	case e.below:
		return e.ref.Repository() + wildcard
	default:
		return e.ref.String()
	}
}

// Covers says whether the entry allows the image. Hosts are compared as they are written: an image that spells its
// host in capitals is on no list.
func (e Entry) Covers(r Reference) bool {
	if r.Domain != e.ref.Domain {
		return false
	}
	if e.below {
		rest, found := strings.CutPrefix(r.Path, e.ref.Path)
		return found && (e.ref.Path == "" || strings.HasPrefix(rest, "/"))
	}
	switch {
	case r.Path != e.ref.Path:
		return false
	case e.ref.Digest != "":
		return r.Digest == e.ref.Digest
	case e.ref.Tag != "":
		return r.Digest == "" && e.ref.Tag == r.tagOrLatest()
	default:
		return true
	}
}

func (r Reference) tagOrLatest() string {
	if r.Tag == "" {
		return "latest"
	}
	return r.Tag
}

// Allowlist is a parsed list of entries. The zero value allows nothing.
type Allowlist struct {
	entries []Entry
}

// ParseList reads every entry. The error joins those of all entries that are not well-formed.
func ParseList(entries []string) (Allowlist, error) {
	l := Allowlist{entries: make([]Entry, 0, len(entries))}
	var errs []error
	for _, s := range entries {
		e, err := ParseEntry(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("allowlist entry %s: %w", quote(s), err))
			continue
		}
		l.entries = append(l.entries, e)
	}
	if len(errs) > 0 {
		return Allowlist{}, errors.Join(errs...)
	}
	return l, nil
}

// Allows returns nil if an entry covers the image, and else why not and what would be accepted.
func (l Allowlist) Allows(image string) error {
	ref, err := Parse(image)
	if err != nil {
		return err
	}
	for _, e := range l.entries {
		if e.Covers(ref) {
			return nil
		}
	}
	return fmt.Errorf("image %s is not allowed; allowed are %s", quote(image), l)
}

// String lists the entries, as many as a message can hold.
func (l Allowlist) String() string {
	const most = 10
	if len(l.entries) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, e := range l.entries {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(l.entries)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(e.String())
	}
	return b.String()
}
