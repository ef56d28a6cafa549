package breaker

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Keys of the ConfigMap's data. They are for people as well: kubectl get configmap -o yaml tells the story.
const (
	keyState      = "state"
	keySince      = "since"
	keyReason     = "reason"
	keyOpenedBy   = "openedBy"
	keyOpenedAt   = "openedAt"
	keyReleasedBy = "releasedBy"
	keyTaken      = "taken"
	keyUpdated    = "updated"
	keyCounted    = "counted"
	keyAskedAgain = "askedAgain"
)

const (
	stateOpen   = "open"
	stateClosed = "closed"
)

// decode reads the state. A ConfigMap without data is a breaker that was never used.
func decode(cm *corev1.ConfigMap) (State, error) {
	s := State{Reason: cm.Data[keyReason], ReleasedBy: cm.Data[keyReleasedBy], Counted: strings.Fields(cm.Data[keyCounted])}
	invalid := func(key, accepted string) (State, error) {
		return State{}, fmt.Errorf("ConfigMap %s/%s: data.%s is %q; accepted is %s", cm.Namespace, cm.Name, key, cm.Data[key], accepted)
	}
	switch cm.Data[keyState] {
	case stateOpen:
		s.Open = true
	case stateClosed, "":
	default:
		return invalid(keyState, stateOpen+" or "+stateClosed)
	}
	for key, field := range map[string]*time.Time{keySince: &s.Since, keyUpdated: &s.Updated} {
		text := cm.Data[key]
		if text == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return invalid(key, "a time in RFC 3339, such as 2026-01-02T03:04:05Z")
		}
		*field = t
	}
	if text := cm.Data[keyTaken]; text != "" {
		taken, err := strconv.ParseFloat(text, 64)
		if err != nil || taken < 0 || math.IsNaN(taken) || math.IsInf(taken, 0) {
			return invalid(keyTaken, "a number of 0 or more")
		}
		s.Taken = taken
	}
	for entry := range strings.FieldsSeq(cm.Data[keyAskedAgain]) {
		key, text, _ := strings.Cut(entry, "=")
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return invalid(keyAskedAgain, "words like KEY=2026-01-02T03:04:05Z")
		}
		s.askedAgain(key, at)
	}
	// Servers of before there were these two leave them as they are: they are of this opening only if they are of its
	// time.
	if at := cm.Data[keyOpenedAt]; s.Open && at != "" && at == cm.Data[keySince] {
		s.OpenedBy = cm.Data[keyOpenedBy]
	}
	return s, nil
}

// encode writes the state and leaves what else is in the ConfigMap.
func encode(s *State, cm *corev1.ConfigMap) {
	if cm.Data == nil {
		cm.Data = map[string]string{}
	}
	cm.Data[keyState] = stateClosed
	if s.Open {
		cm.Data[keyState] = stateOpen
	}
	cm.Data[keyTaken] = strconv.FormatFloat(s.Taken, 'f', 3, 64)
	set := func(key, value string) {
		if value == "" {
			delete(cm.Data, key)
			return
		}
		cm.Data[key] = value
	}
	set(keyReason, s.Reason)
	set(keyReleasedBy, s.ReleasedBy)
	set(keyCounted, strings.Join(s.Counted, " "))
	set(keyAskedAgain, askedAgain(s))
	set(keySince, stamp(s.Since))
	set(keyOpenedBy, s.OpenedBy)
	set(keyOpenedAt, "")
	if s.OpenedBy != "" {
		set(keyOpenedAt, stamp(s.Since))
	}
	set(keyUpdated, stamp(s.Updated))
}

// askedAgain writes when the keys that are counted still were asked for again, in the order of Counted.
func askedAgain(s *State) string {
	var entries []string
	for _, key := range s.Counted {
		if at, asked := s.AskedAgain[key]; asked {
			entries = append(entries, key+"="+stamp(at))
		}
	}
	return strings.Join(entries, " ")
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
