package enforcement

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Name is what the ConfigMap is called.
const Name = "lifecycle-rules"

// Keys of the ConfigMap's data. Every other key is PROFILE.RULE, and its value since when the rule is enforced there.
const (
	keyRevision  = "revision"
	keySeen      = "seen"
	keyWarnAbove = "warnAboveRevision"
	keyWarnUntil = "warnUntil"
)

// always is the value of a rule that has been in force from the beginning.
const always = "always"

// ConfigMaps of the namespace that holds the record. client-go's typed client is one.
type ConfigMaps interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*corev1.ConfigMap, error)
	Update(ctx context.Context, cm *corev1.ConfigMap, opts metav1.UpdateOptions) (*corev1.ConfigMap, error)
}

// Read returns the record.
func Read(ctx context.Context, configMaps ConfigMaps) (Record, error) {
	_, record, err := read(ctx, configMaps)
	return record, err
}

func read(ctx context.Context, configMaps ConfigMaps) (*corev1.ConfigMap, Record, error) {
	cm, err := configMaps.Get(ctx, Name, metav1.GetOptions{})
	if err != nil {
		return nil, Record{}, fmt.Errorf("ConfigMap %s, which holds since when rules are enforced: %w", Name, err)
	}
	record, err := decode(cm)
	return cm, record, err
}

// decode reads a record. A ConfigMap without data is one that no server has written yet.
func decode(cm *corev1.ConfigMap) (Record, error) {
	r := Record{Since: map[Key]time.Time{}}
	invalid := func(key, accepted string) (Record, error) {
		return Record{}, fmt.Errorf("ConfigMap %s/%s: data.%s is %q; accepted is %s", cm.Namespace, cm.Name, key, cm.Data[key], accepted)
	}
	const aTime = "a time in RFC 3339, such as 2026-01-02T03:04:05Z"
	for key, text := range cm.Data {
		profile, rule, isRule := strings.Cut(key, ".")
		switch {
		case key == keyRevision, key == keyWarnAbove:
			n, err := strconv.ParseInt(text, 10, 32)
			if err != nil || n < 1 {
				return invalid(key, "a number of 1 or more")
			}
			if key == keyRevision {
				r.Revision = int32(n)
			} else {
				r.WarnAbove = int32(n)
			}
		case isRule && text == always:
			r.Since[Key{profile, rule}] = time.Time{}
		case isRule, key == keySeen, key == keyWarnUntil:
			t, err := time.Parse(time.RFC3339, text)
			if err != nil && isRule {
				return invalid(key, always+" or "+aTime)
			}
			if err != nil {
				return invalid(key, aTime)
			}
			switch key {
			case keySeen:
				r.Seen = t
			case keyWarnUntil:
				r.WarnUntil = t
			default:
				r.Since[Key{profile, rule}] = t
			}
		}
	}
	return r, nil
}

// encode writes the record and leaves what else is in the ConfigMap.
func encode(r *Record, cm *corev1.ConfigMap) {
	data := map[string]string{}
	for key, value := range cm.Data {
		if _, _, isRule := strings.Cut(key, "."); !isRule && key != keyWarnAbove && key != keyWarnUntil {
			data[key] = value
		}
	}
	data[keyRevision] = strconv.Itoa(int(r.Revision))
	data[keySeen] = stamp(r.Seen)
	if !r.WarnUntil.IsZero() {
		data[keyWarnAbove], data[keyWarnUntil] = strconv.Itoa(int(r.WarnAbove)), stamp(r.WarnUntil)
	}
	for key, since := range r.Since {
		value := always
		if !since.IsZero() {
			value = stamp(since)
		}
		data[key.Profile+"."+key.Rule] = value
	}
	cm.Data = data
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
