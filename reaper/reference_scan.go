package reaper

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// scanner finds the names that objects mention, whatever their kind, while their list is read: nothing of it is kept.
type scanner struct {
	// within says of a field whether what it holds counts; nil if everything does.
	within func(key string) bool

	// annotationsOnly says that of the metadata nothing else counts but owners. Else all of it does: a custom object
	// often has the name of the Secret that it makes.
	annotationsOnly bool

	// text is called with every string that counts, name with the name of each object.
	text, name func(string)
}

// list reads one page of a list. An answer that is cut off is an error.
func (s *scanner) list(r io.Reader) (metav1.ListMeta, error) {
	// What an object says twice, or in no UTF-8, is no reason to read none of it.
	in := jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var meta metav1.ListMeta
	has := false
	err := eachField(in, func(key string) error {
		switch key {
		case "metadata":
			return json.UnmarshalDecode(in, &meta)
		case "items":
			has = true
			if in.PeekKind() == 'n' {
				return in.SkipValue()
			}
			return eachElement(in, func() error { return s.object(in) })
		}
		return in.SkipValue()
	})
	if err == nil && !has {
		err = errors.New("the answer is no list: it has no items")
	}
	return meta, err
}

// object reads an object of a list.
func (s *scanner) object(in *jsontext.Decoder) error {
	return eachField(in, func(key string) error {
		if key == "metadata" {
			return s.metadata(in)
		}
		return s.field(in, key, s.within == nil)
	})
}

func (s *scanner) metadata(in *jsontext.Decoder) error {
	return eachField(in, func(key string) error {
		switch {
		case key == "name" && in.PeekKind() == '"':
			name, err := in.ReadToken()
			if err != nil {
				return err
			}
			s.name(name.String())
			if !s.annotationsOnly {
				s.text(name.String())
			}
			return nil
		case key == "ownerReferences": // what its owner's deletion would take along
			return s.value(in, true)
		case key == "managedFields", s.annotationsOnly && key != "annotations":
			return in.SkipValue()
		}
		return s.field(in, key, s.within == nil)
	})
}

// field reads the value of a field.
func (s *scanner) field(in *jsontext.Decoder, key string, counts bool) error {
	if key == corev1.LastAppliedConfigAnnotation { // it says once more what the object says
		return in.SkipValue()
	}
	if counts && strings.ContainsAny(key, "-.") { // no field's name, but one that a user chose: an object is a map of names, too
		s.text(key)
	}
	return s.value(in, counts || s.within != nil && s.within(key))
}

func (s *scanner) value(in *jsontext.Decoder, counts bool) error {
	switch in.PeekKind() {
	case '{':
		return eachField(in, func(key string) error { return s.field(in, key, counts) })
	case '[':
		return eachElement(in, func() error { return s.value(in, counts) })
	case '"':
		text, err := in.ReadToken()
		if err == nil && counts {
			s.text(text.String())
		}
		return err
	}
	return in.SkipValue()
}

// eachField calls f with the name of each field of an object. F reads its value.
func eachField(in *jsontext.Decoder, f func(key string) error) error {
	if kind := in.PeekKind(); kind != '{' {
		_, err := in.ReadToken()
		return errors.Join(err, fmt.Errorf("an object begins with %v", kind))
	}
	if _, err := in.ReadToken(); err != nil {
		return err
	}
	for in.PeekKind() != '}' {
		key, err := in.ReadToken()
		if err != nil {
			return err
		}
		if err := f(key.String()); err != nil {
			return err
		}
	}
	_, err := in.ReadToken()
	return err
}

// eachElement calls f for each element of an array. F reads it.
func eachElement(in *jsontext.Decoder, f func() error) error {
	if kind := in.PeekKind(); kind != '[' {
		_, err := in.ReadToken()
		return errors.Join(err, fmt.Errorf("a list begins with %v", kind))
	}
	if _, err := in.ReadToken(); err != nil {
		return err
	}
	for in.PeekKind() != ']' {
		if err := f(); err != nil {
			return err
		}
	}
	_, err := in.ReadToken()
	return err
}

// namesIn returns every word of a text that may be the name of an object: a reference is written as NAME,
// NAMESPACE/NAME, KIND:NAME, NAME,NAME, NAME.KEY, or in JSON. A word with a capital is no name.
func namesIn(text string) []string {
	words := strings.FieldsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
	})
	var names []string
	for _, word := range words {
		if word = strings.Trim(word, "-."); word != "" && strings.ToLower(word) == word {
			names = append(names, word)
			for i := range word { // a name may have dots, and may stand before one
				if word[i] == '.' {
					names = append(names, strings.TrimRight(word[:i], "-."))
				}
			}
		}
	}
	return names
}
