package supervisor

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// process is what /proc says of one.
type process struct{ pid, parent, group int }

// processes returns those that live, as far as /proc shows them.
func processes() []process {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	var list []process
	for _, name := range files {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended meanwhile
		}
		if p, ok := parseStat(stat); ok {
			list = append(list, p)
		}
	}
	return list
}

// parseStat reads a line of /proc/PID/stat. It answers false for one that has ended and was not waited for yet.
func parseStat(stat []byte) (process, bool) {
	// The name of the program is in parentheses, and may contain whatever it likes.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, false
	}
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 3 || bytes.ContainsAny(fields[0], "ZX") {
		return process{}, false
	}
	var numbers [3]int
	for i, field := range [][]byte{bytes.TrimSpace(stat[:open]), fields[1], fields[2]} {
		n, err := strconv.Atoi(string(field))
		if err != nil {
			return process{}, false
		}
		numbers[i] = n
	}
	return process{numbers[0], numbers[1], numbers[2]}, true
}

// descendants returns those that root has started, directly or not.
func descendants(all []process, root int) []process {
	children := map[int][]process{}
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
	}
	var found []process
	seen := map[int]bool{root: true}
	for next := []int{root}; len(next) > 0; next = next[1:] {
		for _, p := range children[next[0]] {
			if !seen[p.pid] { // the list is not of one instant
				seen[p.pid] = true
				found, next = append(found, p), append(next, p.pid)
			}
		}
	}
	return found
}
