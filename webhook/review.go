package webhook

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	reviewAPIVersion = "admission.k8s.io/v1"
	reviewKind       = "AdmissionReview"
)

// review is what we read of an admissionv1.AdmissionReview. The objects stay raw: which type they have is said by what
// surrounds them.
type review struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Request    *request `json:"request"`
}

// request is what we read of an admissionv1.AdmissionRequest.
type request struct {
	UID         types.UID                   `json:"uid"`
	Kind        metav1.GroupVersionKind     `json:"kind"`
	Resource    metav1.GroupVersionResource `json:"resource"`
	SubResource string                      `json:"subResource"`
	Name        string                      `json:"name"`
	Namespace   string                      `json:"namespace"`
	Operation   admissionv1.Operation       `json:"operation"`
	UserInfo    authenticationv1.UserInfo   `json:"userInfo"`
	Object      jsontext.Value              `json:"object"`
	OldObject   jsontext.Value              `json:"oldObject"`
	DryRun      bool                        `json:"dryRun"`
	Options     jsontext.Value              `json:"options"`
}

// maxComplaint bounds an error about a request in bytes: decoders quote what they choke on.
const maxComplaint = 512

// decodeReview reads a request strictly: one JSON value, no duplicate names, names in their exact case, valid UTF-8.
// Unknown members are passed over, so that a newer API server may add some. The request holds no part of body.
//
// An error means that there is no answer to give but HTTP's 400.
func decodeReview(body []byte) (*request, error) {
	var r review
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("the body is no AdmissionReview: %s", bounded(err.Error(), maxComplaint))
	}
	switch {
	case r.APIVersion != reviewAPIVersion || r.Kind != reviewKind:
		return nil, fmt.Errorf("apiVersion %q, kind %q is not understood; accepted is %s, %s",
			bounded(r.APIVersion, maxComplaint), bounded(r.Kind, maxComplaint), reviewAPIVersion, reviewKind)
	case r.Request == nil:
		return nil, errors.New("the AdmissionReview has no request")
	case r.Request.UID == "":
		return nil, errors.New("the request has no uid, so that it cannot be answered")
	case len(r.Request.UID) > maxName:
		return nil, fmt.Errorf("the request's uid has %d bytes; at most %d are accepted", len(r.Request.UID), maxName)
	}
	return r.Request, nil
}

// present says whether an object is there. The API server writes null for one that is not.
func present(object jsontext.Value) bool {
	return len(object) > 0 && object.Kind() != 'n'
}
