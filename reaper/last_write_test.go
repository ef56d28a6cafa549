package reaper

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestLastWrite(t *testing.T) {
	entry := func(before time.Duration, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{
			Manager: "lifecycle-webhook", Time: &metav1.Time{Time: newYear.Add(-before)}, FieldsV1: metav1.NewFieldsV1(fields),
		}
	}
	const (
		data    = `{"f:data":{"f:n":{}}}`
		noted   = `{"f:metadata":{"f:annotations":{"f:lifecycle.dexorder.io/orphaned-since":{}}}}`
		alone   = `{"f:metadata":{"f:annotations":{".":{},"f:lifecycle.dexorder.io/orphaned-since":{}}}}`
		andMore = `{"f:metadata":{"f:annotations":{"f:lifecycle.dexorder.io/orphaned-since":{},"f:note":{}}}}`
		another = `{"f:data":{"f:n":{}},"f:metadata":{"f:annotations":{"f:lifecycle.dexorder.io/orphaned-since":{}}}}`
		labels  = `{"f:metadata":{"f:annotations":{"f:lifecycle.dexorder.io/orphaned-since":{}},"f:labels":{"f:a":{}}}}`
	)
	for name, tc := range map[string]struct {
		entries []metav1.ManagedFieldsEntry
		want    time.Duration
	}{
		"once":                     {[]metav1.ManagedFieldsEntry{entry(time.Hour, data)}, time.Hour},
		"by two":                   {[]metav1.ManagedFieldsEntry{entry(time.Hour, data), entry(time.Minute, data), entry(2*time.Hour, data)}, time.Minute},
		"and noted by a reaper":    {[]metav1.ManagedFieldsEntry{entry(time.Hour, data), entry(time.Minute, noted)}, time.Hour},
		"and noted as the first":   {[]metav1.ManagedFieldsEntry{entry(time.Hour, data), entry(time.Minute, alone)}, time.Hour},
		"an annotation of its own": {[]metav1.ManagedFieldsEntry{entry(time.Hour, data), entry(time.Minute, andMore)}, time.Minute},
		"the note taken over":      {[]metav1.ManagedFieldsEntry{entry(time.Hour, data), entry(time.Minute, another)}, time.Minute},
		"the note and labels":      {[]metav1.ManagedFieldsEntry{entry(time.Hour, data), entry(time.Minute, labels)}, time.Minute},
		"fields that are none":     {[]metav1.ManagedFieldsEntry{entry(time.Hour, data), entry(time.Minute, `[`)}, time.Minute},
		"no fields":                {[]metav1.ManagedFieldsEntry{{Time: &metav1.Time{Time: newYear}}}, 0},
	} {
		if got := lastWrite(tc.entries); !got.Equal(newYear.Add(-tc.want)) {
			t.Errorf("%s: %v, want %v before the new year", name, got, tc.want)
		}
	}
	for name, entries := range map[string][]metav1.ManagedFieldsEntry{
		"never": nil, "noted alone": {entry(0, noted)}, "at no time": {{Manager: "a", FieldsV1: metav1.NewFieldsV1(data)}},
	} {
		if got := lastWrite(entries); !got.IsZero() {
			t.Errorf("%s: %v, want no time", name, got)
		}
	}
}
