package archive

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

const (
	// format is what the document is written in.
	format = "v1"

	// chunkSize in bytes leaves room below the 1 MiB that a ConfigMap or Secret may hold.
	chunkSize = 700 << 10

	// maxContent in bytes bounds what a document may grow to when it is read. A namespace's objects are far from it.
	maxContent = 512 << 20
)

// content is the document of an archive. The same objects make the same document, to the byte.
type content struct {
	// Namespace and UID are of the namespace that was archived. Labels and annotations are in its record.
	Namespace string    `json:"namespace"`
	UID       types.UID `json:"uid"`

	// Volumes by the names of their claims, in that order.
	Volumes []Volume `json:"volumes,omitempty"`

	// Records are the Namespace itself and then the objects, in the order of Kinds and then by name.
	Records []record `json:"records"`

	// LeftOut is what else the namespace had, by kind and name. Older versions did not note it.
	LeftOut []LeftOut `json:"leftOut,omitempty"`
}

// knowsClaim says whether the archive keeps the volume of a claim of that name, or has left the claim out.
func (c *content) knowsClaim(name string) bool {
	return slices.ContainsFunc(c.Volumes, func(v Volume) bool { return v.Claim == name }) ||
		slices.ContainsFunc(c.LeftOut, func(l LeftOut) bool { return l.Kind == kindClaim && l.Name == name })
}

// Volume is a PersistentVolume that is kept for a claim.
type Volume struct {
	Claim string    `json:"claim"`
	Name  string    `json:"name"`
	UID   types.UID `json:"uid"`

	// ReclaimPolicy is what the volume had, and gets back.
	ReclaimPolicy corev1.PersistentVolumeReclaimPolicy `json:"reclaimPolicy"`
}

// record is an object that is kept.
type record struct {
	Object map[string]any `json:"object"`

	// WithoutValues is set for a Secret whose values were not kept. Keys are what they were called.
	WithoutValues bool     `json:"withoutValues,omitempty"`
	Keys          []string `json:"keys,omitempty"`
}

// packed is a document as it is stored.
type packed struct {
	chunks [][]byte

	// digest is the SHA-256 over all chunks in their order, in hexadecimal.
	digest string
}

func pack(c *content, size int) (packed, error) {
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	if err := json.NewEncoder(w).Encode(c); err != nil {
		return packed{}, err
	}
	if err := w.Close(); err != nil {
		return packed{}, err
	}
	p := packed{}
	for data := compressed.Bytes(); len(data) > 0; {
		n := min(size, len(data))
		p.chunks = append(p.chunks, data[:n:n])
		data = data[n:]
	}
	p.digest = digest(p.chunks)
	return p, nil
}

// unpack reads the document. An error means that it is damaged.
func unpack(p packed) (*content, error) {
	if got := digest(p.chunks); got != p.digest {
		return nil, fmt.Errorf("its SHA-256 is %s, and %s by the index", got, p.digest)
	}
	r, err := gzip.NewReader(bytes.NewReader(bytes.Join(p.chunks, nil)))
	if err != nil {
		return nil, err
	}
	document, err := io.ReadAll(io.LimitReader(r, maxContent+1))
	if err != nil {
		return nil, err
	}
	if len(document) > maxContent {
		return nil, fmt.Errorf("it holds more than %d bytes", maxContent)
	}
	c := &content{}
	// Whole numbers stay whole, as the API server wants them.
	if err := utiljson.Unmarshal(document, c); err != nil {
		return nil, err
	}
	if c.Namespace == "" || c.UID == "" || len(c.Records) == 0 {
		return nil, errors.New("it names no namespace")
	}
	return c, nil
}

func digest(chunks [][]byte) string {
	hash := sha256.New()
	for _, chunk := range chunks {
		hash.Write(chunk)
	}
	return hex.EncodeToString(hash.Sum(nil))
}
