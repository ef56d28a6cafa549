package main

import (
	"strconv"
	"strings"
)

// samples are a process's metrics, in the text format.
type samples []sample

type sample struct {
	name, labels string
	value        float64
}

func readSamples(text []byte) samples {
	var all samples
	for line := range strings.SplitSeq(string(text), "\n") {
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			continue
		}
		name, labels, _ := strings.Cut(line[:at], "{")
		all = append(all, sample{name, strings.TrimSuffix(labels, "}"), value})
	}
	return all
}

// sum adds up what has a name and all of some labels, each written as name="value".
func (s samples) sum(name string, labels ...string) float64 {
	total := 0.0
next:
	for i := range s {
		if s[i].name != name {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(","+s[i].labels+",", ","+label+",") {
				continue next
			}
		}
		total += s[i].value
	}
	return total
}
