package webhook

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
	"gomodules.xyz/jsonpatch/v2"
	"k8s.io/apimachinery/pkg/types"
)

// response is what we write of an admissionv1.AdmissionReview.
type response struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Response   responseBody `json:"response"`
}

// responseBody is what we write of an admissionv1.AdmissionResponse.
type responseBody struct {
	UID              types.UID         `json:"uid"`
	Allowed          bool              `json:"allowed"`
	Status           status            `json:"status,omitzero"`
	Patch            jsontext.Value    `json:"patch,omitzero"`
	PatchType        string            `json:"patchType,omitempty"`
	AuditAnnotations map[string]string `json:"auditAnnotations,omitempty"`
	Warnings         []string          `json:"warnings,omitempty"`
}

var encodeOptions = json.JoinOptions(json.Deterministic(true), jsontext.AllowInvalidUTF8(true))

// valueOptions make the values of a patch look as encoding/json would make them: the Kubernetes types are tagged for it.
var valueOptions = json.JoinOptions(
	json.Deterministic(true),
	json.FormatNilSliceAsNull(true),
	json.FormatNilMapAsNull(true),
	jsonv1.OmitEmptyWithLegacySemantics(true),
)

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxPooled is the largest buffer worth keeping, in bytes. One request of some megabytes must not stay in memory as
// buffers for requests of some kilobytes.
const maxPooled = 64 << 10

func takeBuffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= maxPooled {
		b.Reset()
		buffers.Put(b)
	}
}

// appendAnswer appends the AdmissionReview that answers the request of that uid.
func appendAnswer(dst []byte, uid types.UID, a *answer) ([]byte, error) {
	r := response{APIVersion: reviewAPIVersion, Kind: reviewKind, Response: responseBody{
		UID: uid, Allowed: a.allowed, Status: a.status,
		AuditAnnotations: a.auditAnnotations(), Warnings: boundedWarnings(a.warnings),
	}}
	if len(a.patch) > 0 {
		patch, err := encodePatch(a.patch)
		if err != nil {
			return dst, err
		}
		r.Response.Patch, r.Response.PatchType = patch, "JSONPatch"
	}
	out := bytes.NewBuffer(dst)
	err := json.MarshalWrite(out, &r, encodeOptions)
	return out.Bytes(), err
}

// encodePatch returns a JSON patch as the base64 string that an AdmissionResponse wants. Operations are written one by
// one: their own MarshalJSON goes through encoding/json twice, at three times the price.
func encodePatch(patch []jsonpatch.Operation) (jsontext.Value, error) {
	b := takeBuffer()
	defer putBuffer(b)
	enc := jsontext.NewEncoder(b, valueOptions)
	if err := writePatch(enc, patch); err != nil {
		return nil, fmt.Errorf("encode the patch: %w", err)
	}
	raw := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	quoted := make([]byte, 0, base64.StdEncoding.EncodedLen(len(raw))+2)
	quoted = append(quoted, '"')
	quoted = base64.StdEncoding.AppendEncode(quoted, raw)
	return append(quoted, '"'), nil
}

func writePatch(enc *jsontext.Encoder, patch []jsonpatch.Operation) error {
	if err := enc.WriteToken(jsontext.BeginArray); err != nil {
		return err
	}
	for i := range patch {
		if err := writeOperation(enc, &patch[i]); err != nil {
			return fmt.Errorf("%s %s: %w", patch[i].Operation, patch[i].Path, err)
		}
	}
	return enc.WriteToken(jsontext.EndArray)
}

func writeOperation(enc *jsontext.Encoder, op *jsonpatch.Operation) error {
	tokens := [...]jsontext.Token{
		jsontext.BeginObject,
		jsontext.String("op"), jsontext.String(op.Operation),
		jsontext.String("path"), jsontext.String(op.Path),
	}
	for _, t := range tokens {
		if err := enc.WriteToken(t); err != nil {
			return err
		}
	}
	if op.Operation != "remove" {
		if err := enc.WriteToken(jsontext.String("value")); err != nil {
			return err
		}
		if err := json.MarshalEncode(enc, op.Value, valueOptions); err != nil {
			return err
		}
	}
	return enc.WriteToken(jsontext.EndObject)
}
