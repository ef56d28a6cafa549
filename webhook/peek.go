package webhook

import (
	"io"

	"github.com/go-json-experiment/json/jsontext"
	"k8s.io/apimachinery/pkg/types"
)

// peekUID looks for request.uid at the beginning of an AdmissionReview. It returns "" if it does not come across it.
func peekUID(r io.Reader) types.UID {
	dec := jsontext.NewDecoder(r)
	for _, name := range []string{"request", "uid"} {
		if !enter(dec, name) {
			return ""
		}
	}
	value, err := dec.ReadToken()
	if err != nil || value.Kind() != '"' || len(value.String()) > maxName {
		return ""
	}
	return types.UID(value.String())
}

// enter reads on until just before the value of a member of the object that comes next.
func enter(dec *jsontext.Decoder, member string) bool {
	if t, err := dec.ReadToken(); err != nil || t.Kind() != '{' {
		return false
	}
	for {
		name, err := dec.ReadToken()
		if err != nil || name.Kind() != '"' {
			return false
		}
		if name.String() == member {
			return true
		}
		if dec.SkipValue() != nil {
			return false
		}
	}
}
