package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// MaxBytes is how long a stream may be. It is far beyond what an API server accepts; a stream that is longer is most
// likely not a manifest.
const MaxBytes = 64 << 20

// extensions of the files that are read in a directory, as kubectl does.
var extensions = []string{".json", ".yaml", ".yml"}

// Stdin is what people are told standard input is.
const Stdin = "stdin"

// Source is one stream of documents.
type Source struct {
	// File is the path as it was given. Empty for standard input.
	File string

	open func() (io.ReadCloser, error)
}

// Name is what people are told the source is.
func (s Source) Name() string {
	if s.File == "" {
		return Stdin
	}
	return s.File
}

// Sources returns what args name: a file, a directory (every file below it that ends in .yaml, .yml or .json, sorted)
// or "-" for stdin. It returns what can be read along with errors for what cannot.
func Sources(args []string, stdin io.Reader) ([]Source, []error) {
	var sources []Source
	var errs []error
	var stdinGiven bool
	for _, arg := range args {
		if arg == "-" {
			if stdinGiven {
				errs = append(errs, errors.New("standard input can be read once, but - is given twice"))
				continue
			}
			stdinGiven = true
			sources = append(sources, Source{open: func() (io.ReadCloser, error) { return io.NopCloser(stdin), nil }})
			continue
		}
		files, err := filesOf(arg)
		if err != nil {
			errs = append(errs, err)
		}
		for _, f := range files {
			sources = append(sources, Source{File: f, open: func() (io.ReadCloser, error) { return os.Open(f) }})
		}
	}
	return sources, errs
}

func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() && slices.Contains(extensions, filepath.Ext(p)) {
			files = append(files, p)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: no file in the directory ends in .json, .yaml or .yml", path)
	}
	return files, err
}

// read returns the source's text as UTF-8 without a byte order mark. PowerShell writes UTF-16.
func (s Source) read() ([]byte, error) {
	r, err := s.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.Name(), err)
	}
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%s: longer than %d MiB, which no manifest is", s.Name(), MaxBytes>>20)
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		utf16 := unicode.UTF16(unicode.LittleEndian, unicode.ExpectBOM).NewDecoder()
		if data, _, err = transform.Bytes(utf16, data); err != nil {
			return nil, fmt.Errorf("%s: begins like UTF-16 and is not: %w", s.Name(), err)
		}
	}
	return bytes.TrimPrefix(data, []byte("\ufeff")), nil
}

// Documents reads the source to its end.
func (s Source) Documents() ([]*Document, error) {
	data, err := s.read()
	if err != nil {
		return nil, err
	}
	var docs []*Document
	for _, c := range split(data) {
		docs = append(docs, c.documents()...)
	}
	for i, d := range docs {
		d.File, d.Index = s.File, i+1
		d.findObjects()
	}
	return docs, nil
}
