package main

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dexorder/agent-lifecycle/archive"
)

func TestPrintLeftOut(t *testing.T) {
	for name, tc := range map[string]struct {
		restored archive.Restored
		want     string
	}{
		"nothing": {archive.Restored{Archive: archive.Info{LeftOutNoted: true}}, ""},
		"an archive of an older version": {archive.Restored{}, "The archive was made by an older version, which did not note what it left out: " +
			"custom resources and other kinds, and what had a controller.\n"},
		"objects, and kinds of which nothing is known": {archive.Restored{
			Archive: archive.Info{LeftOutNoted: true},
			LeftOut: []archive.LeftOut{
				{Kind: "Database.example.com", Name: "pg", Reason: "archives hold no objects of this kind"},
				{Kind: "Secret", Name: "pg-app", Reason: "Database pg controls it"},
				{Kind: "Tool.example.com", Reason: "not to be listed"},
				{Kind: "Widget.example.com", Reason: "not to be listed"},
			},
		}, `The archive does not hold, and this does not bring back:
  Database.example.com pg: archives hold no objects of this kind
  Secret pg-app: Database pg controls it
The namespace may also have had objects of these kinds, which the archive does not hold:
  Tool.example.com, Widget.example.com: not to be listed
`},
	} {
		var out bytes.Buffer
		printLeftOut(&out, &tc.restored)
		if diff := cmp.Diff(tc.want, out.String()); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

func TestPrintNotRestored(t *testing.T) {
	restored := &archive.Restored{Results: []archive.Result{
		{Kind: "ConfigMap", Name: "a", Outcome: archive.Created},
		{Kind: "Secret", Name: "keys", Outcome: archive.ValuesMissing, Detail: "its values were not kept: create it with them", Keys: []string{"other", "token"}},
		{Kind: "PersistentVolumeClaim", Name: "data", Outcome: archive.Failed, Detail: "the volume is gone"},
	}}
	var out bytes.Buffer
	printNotRestored(&out, restored, false)
	want := `error: not restored: secret/keys: values missing: its values were not kept: create it with them: other, token
error: not restored: persistentvolumeclaim/data: failed: the volume is gone
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	out.Reset()
	printNotRestored(&out, restored, true)
	if !bytes.HasPrefix(out.Bytes(), []byte("error: would not be restored: secret/keys")) {
		t.Errorf("a dry run says:\n%s", &out)
	}
}
