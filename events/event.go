package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// ContentType is the media type of an Event in JSON: a CloudEvent in structured mode.
const ContentType = "application/cloudevents+json"

// Event is something that happened. Namespace, Agent and Cap make them.
type Event struct {
	// ID is equal for equal events, whoever publishes them and how often; the stream keeps one of each. With a key it is
	// published as its HMAC, see Config.EventIDKeyFile.
	ID string

	// Source says whose word it is, as a URI reference such as "/agent-lifecycle/reaper".
	Source string

	Type Type

	// Subject names what it happened to, such as "namespaces/agent-ceo".
	Subject string

	// Time is when the event was made; when it happened is in Data.
	Time time.Time

	// Data becomes JSON when the event is published.
	Data any
}

// envelope is a CloudEvent: its members have the names that the specification gives them.
type envelope struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            Type      `json:"type"`
	Subject         string    `json:"subject,omitempty"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            any       `json:"data"`
}

// MarshalJSON implements json.Marshaler. It fails where the event is no CloudEvent.
func (e Event) MarshalJSON() ([]byte, error) {
	if err := e.validate(); err != nil {
		return nil, err
	}
	return json.Marshal(envelope{
		SpecVersion: "1.0", ID: e.ID, Source: e.Source, Type: e.Type, Subject: e.Subject, Time: e.Time.UTC(),
		DataContentType: "application/json", Data: e.Data,
	})
}

// validate returns everything that keeps the event from being a CloudEvent.
func (e *Event) validate() error {
	var errs []error
	if e.ID == "" {
		errs = append(errs, errors.New("event without ID"))
	}
	if e.Source == "" {
		errs = append(errs, errors.New("event without Source"))
	}
	if !tokens(string(e.Type)) {
		errs = append(errs, fmt.Errorf("event type %q: must be words joined by dots", e.Type))
	}
	if e.Time.IsZero() {
		errs = append(errs, errors.New("event without Time"))
	}
	return errors.Join(errs...)
}
