package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// calls counts what somebody asked the API server for, by verb.
type calls struct {
	verbs map[string]int

	// leases are reads and writes of Leases, by which replicas agree on one; they are not among the verbs.
	leases int

	// streamed are the watches that began with all there is; they are among the verbs.
	streamed int

	// deletedNamespaces is how many deletions of namespaces were accepted, lastDeletion when the last one was.
	deletedNamespaces int
	lastDeletion      time.Time
}

func (c *calls) sum() int {
	n := 0
	for _, of := range c.verbs {
		n += of
	}
	return n
}

func (c *calls) writes() int {
	n := 0
	for _, verb := range []string{"create", "update", "patch", "delete", "deletecollection"} {
		n += c.verbs[verb]
	}
	return n
}

func (c *calls) String() string {
	if len(c.verbs) == 0 {
		return "none"
	}
	var all []string
	for _, verb := range slices.Sorted(maps.Keys(c.verbs)) {
		all = append(all, fmt.Sprintf("%d %s", c.verbs[verb], verb))
	}
	return strings.Join(all, ", ")
}

// auditLog reads on in the API server's log.
type auditLog struct {
	file string
	read int64
	rest []byte
}

func (c *cluster) audit() *auditLog { return &auditLog{file: c.path("audit.log")} }

// since counts the calls of an account that were recorded since this was last called.
func (l *auditLog) since(account string) (*calls, error) {
	c := &calls{verbs: map[string]int{}}
	f, err := os.Open(l.file)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(l.read, io.SeekStart); err != nil {
		return nil, err
	}
	lines := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		l.read += int64(len(line))
		if err != nil { // what has not been written to its end is read next time
			l.rest = append(l.rest, line...)
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return c, err
		}
		if len(l.rest) > 0 {
			line = append(l.rest, line...)
			l.rest = nil
		}
		if err := c.add(bytes.TrimSpace(line), account); err != nil {
			return nil, fmt.Errorf("audit log: %w", err)
		}
	}
}

func (c *calls) add(line []byte, account string) error {
	var event struct {
		Stage, Verb, RequestURI string
		User                    struct{ Username string }
		ObjectRef               struct{ Resource string }
		ResponseStatus          struct{ Code int }
		StageTimestamp          time.Time
	}
	if err := json.Unmarshal(line, &event); err != nil {
		return err
	}
	// A watch counts when it begins.
	if event.User.Username != account || (event.Verb == "watch") != (event.Stage == "ResponseStarted") {
		return nil
	}
	if event.ObjectRef.Resource == "leases" {
		c.leases++
		return nil
	}
	c.verbs[event.Verb]++
	if strings.Contains(event.RequestURI, "sendInitialEvents=true") {
		c.streamed++
	}
	if event.Verb == "delete" && event.ObjectRef.Resource == "namespaces" && event.ResponseStatus.Code < 300 {
		c.deletedNamespaces++
		c.lastDeletion = event.StageTimestamp
	}
	return nil
}

func (c *calls) addAll(more *calls) {
	for verb, n := range more.verbs {
		c.verbs[verb] += n
	}
	c.leases += more.leases
	c.streamed += more.streamed
	c.deletedNamespaces += more.deletedNamespaces
	if more.lastDeletion.After(c.lastDeletion) {
		c.lastDeletion = more.lastDeletion
	}
}
