package webhook

import (
	"bytes"
	"fmt"
)

// Bounds on one request's JSON, checked before any of it is decoded: three bytes of JSON make a Container.
//
// No Pod that runs comes near them: the kubelet starts none of 10,000 containers or environment variables, an UPDATE holds
// each twice, and managedFields, the deepest part of an object, nest about 30 deep.
const (
	// maxNesting bounds how deep arrays and objects nest.
	maxNesting = 128

	// maxListed bounds the objects and nulls in arrays, in all: each may become the largest type that there is, a Container.
	maxListed = 20_000

	// maxDecoded bounds what the objects of one request may take in memory, in bytes, as weight estimates it.
	maxDecoded = 64 << 20
)

// What decoding makes of JSON at worst, in bytes of memory. TestWeightCoversMemory measures it: an ephemeral container, the
// largest type in a list, takes 606 bytes, and while its list grows it is there twice; an entry of resources.limits takes
// 178. An ordinary UPDATE, managedFields included, has about 100 objects in lists and 1,500 members, and so takes one share.
const (
	listedBytes = 1280 // an object or a null in an array
	objectBytes = 320  // an object as a member: a type behind a pointer, or a map
	memberBytes = 208  // a member of an object: an entry of a map, and of the decoder's list of names
	scalarBytes = 48   // a string or number in an array
)

// weight is what a request's JSON would become, counted without decoding it.
type weight struct {
	bytes, listed, objects, members, scalars int
}

// decoded estimates how much memory, in bytes, the request takes once it is decoded. The raw objects are copied, and their
// strings once more.
func (w *weight) decoded() int64 {
	return 2*int64(w.bytes) + listedBytes*int64(w.listed) + objectBytes*int64(w.objects) + memberBytes*int64(w.members) +
		scalarBytes*int64(w.scalars)
}

// weigh counts what a body holds in one pass. The error names the bound that the body exceeds.
//
// A body that is no JSON is weighed as far as it looks like JSON: the decoder stops where JSON ends, so that it decodes no
// more than is counted here.
func weigh(body []byte) (weight, error) {
	w := weight{bytes: len(body)}
	var arrays [maxNesting + 1]bool // whether what is open at each depth is an array
	depth := 0
body:
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '"':
			end := closingQuote(body[i+1:])
			if end < 0 {
				break body
			}
			i += end + 1
		case ':':
			w.members++
		case ',':
			if arrays[depth] {
				w.scalars++
			}
		case 'n': // null
			if arrays[depth] {
				w.listed++
			}
		case '{', '[':
			switch {
			case arrays[depth]:
				w.listed++
			case body[i] == '{':
				w.objects++
			}
			depth++
			if depth > maxNesting {
				return w, fmt.Errorf("the request nests more than %d deep", maxNesting)
			}
			arrays[depth] = body[i] == '['
		case '}', ']':
			depth--
			if depth < 0 {
				break body
			}
		}
		if w.listed > maxListed {
			return w, fmt.Errorf("the request has more than %d objects in lists, such as containers and environment variables, "+
				"in all", maxListed)
		}
	}
	if decoded := w.decoded(); decoded > maxDecoded {
		return w, fmt.Errorf("the request would take about %d MiB of memory; at most %d MiB are spent on one", decoded>>20,
			maxDecoded>>20)
	}
	return w, nil
}

// closingQuote returns where in s the string ends that s is the rest of, -1 if it does not.
func closingQuote(s []byte) int {
	for from := 0; ; {
		i := bytes.IndexByte(s[from:], '"')
		if i < 0 {
			return -1
		}
		end := from + i
		escapes := 0
		for end-escapes > from && s[end-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return end
		}
		from = end + 1
	}
}
