package archive

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func sample() *content {
	noise := make([]byte, 1000)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(noise) // it never fails
	return &content{
		Namespace: "agent-a", UID: "u1",
		Volumes: []Volume{{Claim: "data", Name: "pv-1", UID: "v1", ReclaimPolicy: corev1.PersistentVolumeReclaimDelete}},
		Records: []record{
			{Object: map[string]any{"kind": "Namespace", "number": int64(1) << 60, "fraction": 0.5}},
			{Object: map[string]any{"kind": "Secret", "noise": base64.StdEncoding.EncodeToString(noise)}, WithoutValues: true, Keys: []string{"a"}},
		},
	}
}

func TestPack(t *testing.T) {
	p, err := pack(sample(), 300)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.chunks) < 3 {
		t.Fatalf("%d chunks; want some", len(p.chunks))
	}
	for i, chunk := range p.chunks {
		if len(chunk) > 300 || len(chunk) == 0 || len(chunk) < 300 && i < len(p.chunks)-1 {
			t.Errorf("chunk %d of %d has %d bytes", i, len(p.chunks), len(chunk))
		}
	}
	again, err := pack(sample(), 300)
	if err != nil || again.digest != p.digest {
		t.Errorf("the same content has the digests %s and %s, %v", p.digest, again.digest, err)
	}
	got, err := unpack(p)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestUnpackDamaged(t *testing.T) {
	for name, damage := range map[string]func(*packed){
		"a bit":                    func(p *packed) { p.chunks[1][7] ^= 1 },
		"one chunk less":           func(p *packed) { p.chunks = p.chunks[:len(p.chunks)-1] },
		"another order":            func(p *packed) { p.chunks[0], p.chunks[1] = p.chunks[1], p.chunks[0] },
		"an empty chunk":           func(p *packed) { p.chunks[0] = nil },
		"nothing":                  func(p *packed) { p.chunks = nil },
		"another checksum":         func(p *packed) { p.digest = strings.Repeat("0", 64) },
		"not compressed":           func(p *packed) { p.chunks = [][]byte{[]byte("{}")}; p.digest = digest(p.chunks) },
		"checked, but of no space": func(p *packed) { *p, _ = pack(&content{}, 300) },
	} {
		p, err := pack(sample(), 300)
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.chunks {
			p.chunks[i] = bytes.Clone(p.chunks[i])
		}
		damage(&p)
		if _, err := unpack(p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestIndex(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	info := &Info{Name: nameOf("agent-a", "u1", "x"), Namespace: "agent-a", UID: "u1", SavedAt: at, KeptUntil: at.Add(time.Hour),
		Objects: 3, Volumes: 1, LeftOut: 2, LeftOutNoted: true, SecretValues: true, chunks: 2, digest: strings.Repeat("ab", 32)}
	got, err := decodeIndex(encodeIndex(info))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(info, got, cmp.AllowUnexported(Info{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	older := encodeIndex(info)
	delete(older.Data, keyLeftOut)
	if got, err := decodeIndex(older); err != nil || got.LeftOut != 0 || got.LeftOutNoted {
		t.Errorf("the index of an older version: %+v, %v", got, err)
	}
	for _, other := range []string{nameOf("agent-a", "u2", "x"), nameOf("agent-a", "u1", "y"), nameOf("agent-b", "u1", "x")} {
		if other == info.Name {
			t.Errorf("%s is the name of two archives", other)
		}
	}
	for want, change := range map[string]func(*corev1.ConfigMap){
		`data.format is "v2"`:       func(cm *corev1.ConfigMap) { cm.Data[keyFormat] = "v2" },
		`data.chunks is "0"`:        func(cm *corev1.ConfigMap) { cm.Data[keyChunks] = "0" },
		`data.objects is "many"`:    func(cm *corev1.ConfigMap) { cm.Data[keyObjects] = "many" },
		`data.leftOut is "-1"`:      func(cm *corev1.ConfigMap) { cm.Data[keyLeftOut] = "-1" },
		`data.sha256 is "abc"`:      func(cm *corev1.ConfigMap) { cm.Data[keyDigest] = "abc" },
		`data.savedAt is "lately"`:  func(cm *corev1.ConfigMap) { cm.Data[keySavedAt] = "lately" },
		`data.secretValues is "no"`: func(cm *corev1.ConfigMap) { cm.Data[keySecretValues] = "no" },
		`retained-until is "soon"`:  func(cm *corev1.ConfigMap) { cm.Annotations[lifecycle.AnnotationRetainedUntil] = "soon" },
		`archived-uid is ""`:        func(cm *corev1.ConfigMap) { delete(cm.Annotations, lifecycle.AnnotationArchivedUID) },
		`/archive is ""`:            func(cm *corev1.ConfigMap) { delete(cm.Labels, lifecycle.LabelArchive) },
	} {
		cm := encodeIndex(info)
		change(cm)
		if _, err := decodeIndex(cm); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), info.Name) {
			t.Errorf("got %v, want an error with %s", err, want)
		}
	}
}

func TestOver(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for until, want := range map[string]bool{
		"2026-01-02T03:04:04Z": true, "2026-01-02T03:04:06Z": false, "2026-01-02T04:04:04+01:00": true, "": false, "0": false, "1700000000": false,
	} {
		if got := over(map[string]string{lifecycle.AnnotationRetainedUntil: until}, now); got != want {
			t.Errorf("%q: %t, want %t", until, got, want)
		}
	}
}
