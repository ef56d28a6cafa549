package workload

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	// maxQuantity bounds a quantity's text in bytes, maxExponent the digits of its exponent. A quantity that Kubernetes
	// writes has at most 20 digits and a suffix.
	maxQuantity = 64
	maxExponent = 3
)

// errQuantity says that a quantity is not worth parsing.
var errQuantity = errors.New("is too long for a quantity")

// Quantities decodes quantities whose text is bounded, and refuses others before they are parsed. The parser takes the
// number that an exponent says: 1e-9999999 occupies a processor for seconds, and a longer exponent all memory. The time for
// a long number grows with the square of its length.
func Quantities() *json.Unmarshalers { return quantities }

var quantities = json.UnmarshalFromFunc(func(d *jsontext.Decoder, q *resource.Quantity) error {
	text, err := d.ReadValue()
	if err != nil {
		return err
	}
	if err := checkQuantity(text); err != nil {
		return err
	}
	return q.UnmarshalJSON(text)
})

func checkQuantity(text []byte) error {
	if len(text) > maxQuantity {
		return fmt.Errorf("%w: it has %d bytes, at most %d are read", errQuantity, len(text), maxQuantity)
	}
	text = bytes.Trim(text, `"`)
	if i := bytes.LastIndexAny(text, "eE"); i >= 0 {
		if exponent := bytes.TrimLeft(text[i+1:], "+-0"); len(exponent) > maxExponent {
			return fmt.Errorf("%w: its exponent has %d digits, at most %d are read", errQuantity, len(exponent), maxExponent)
		}
	}
	return nil
}
