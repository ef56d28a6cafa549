package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// namePrefix keeps the names of archives apart from those of namespaces.
const namePrefix = "archive-"

// Info is what an archive's index says of it.
type Info struct {
	// Name is the archive's, Namespace and UID those of the namespace that it was made of.
	Name      string
	Namespace string
	UID       types.UID

	// SavedAt is when it was made, shortly before the namespace was reaped. KeptUntil is when it goes, if the namespace has gone; until
	// it is known to have, it is kept for that much longer.
	SavedAt   time.Time
	KeptUntil time.Time

	// Objects and Volumes are how many are kept.
	Objects int
	Volumes int

	// LeftOut is how much else the namespace had, as far as it is known. LeftOutNoted is false for archives of older
	// versions, which did not note it.
	LeftOut      int
	LeftOutNoted bool

	// SecretValues says whether the values of Secrets are kept.
	SecretValues bool

	chunks int
	digest string
}

// nameOf is the archive's name for one marking of one namespace. A namespace that was let live and is marked again has
// another state to be kept.
func nameOf(namespace string, uid types.UID, reaping string) string {
	sum := sha256.Sum256([]byte(string(uid) + "/" + reaping))
	return namePrefix + namespace + "-" + hex.EncodeToString(sum[:5])
}

// chunkName has part of the checksum in it, so that attempts which saw different objects do not mix.
func (i *Info) chunkName(n int) string { return fmt.Sprintf("%s-%.10s-%d", i.Name, i.digest, n) }

// Keys of the index's data. They are for people as well: kubectl get configmap -o yaml tells what is kept.
const (
	keyFormat       = "format"
	keySavedAt      = "savedAt"
	keyObjects      = "objects"
	keyVolumes      = "volumes"
	keyLeftOut      = "leftOut"
	keySecretValues = "secretValues"
	keyChunks       = "chunks"
	keyDigest       = "sha256"
)

// chunkKey is where a chunk is in the data of its object.
const chunkKey = "chunk"

// meta is of the index or a chunk.
func (i *Info) meta(name, part string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:   name,
		Labels: map[string]string{lifecycle.LabelArchive: i.Namespace, lifecycle.LabelArchivePart: part},
		Annotations: map[string]string{
			lifecycle.AnnotationArchiveName:   i.Name,
			lifecycle.AnnotationArchivedUID:   string(i.UID),
			lifecycle.AnnotationRetainedUntil: stamp(i.KeptUntil),
		},
	}
}

func encodeIndex(i *Info) *corev1.ConfigMap {
	immutable := true
	return &corev1.ConfigMap{
		ObjectMeta: i.meta(i.Name, lifecycle.ArchiveIndex),
		Immutable:  &immutable,
		Data: map[string]string{
			keyFormat:       format,
			keySavedAt:      stamp(i.SavedAt),
			keyObjects:      strconv.Itoa(i.Objects),
			keyVolumes:      strconv.Itoa(i.Volumes),
			keyLeftOut:      strconv.Itoa(i.LeftOut),
			keySecretValues: strconv.FormatBool(i.SecretValues),
			keyChunks:       strconv.Itoa(i.chunks),
			keyDigest:       i.digest,
		},
	}
}

func decodeIndex(cm *corev1.ConfigMap) (*Info, error) {
	i := &Info{
		Name: cm.Name, Namespace: cm.Labels[lifecycle.LabelArchive], UID: types.UID(cm.Annotations[lifecycle.AnnotationArchivedUID]),
		digest: cm.Data[keyDigest],
	}
	invalid := func(field, value, accepted string) (*Info, error) {
		return nil, fmt.Errorf("archive %s: %s is %q; accepted is %s", cm.Name, field, value, accepted)
	}
	if cm.Data[keyFormat] != format {
		return invalid("data."+keyFormat, cm.Data[keyFormat], format)
	}
	if i.Namespace == "" {
		return invalid("label "+lifecycle.LabelArchive, "", "a namespace's name")
	}
	if i.UID == "" {
		return invalid("annotation "+lifecycle.AnnotationArchivedUID, "", "the namespace's UID")
	}
	if sum, err := hex.DecodeString(i.digest); err != nil || len(sum) != sha256.Size {
		return invalid("data."+keyDigest, i.digest, "a SHA-256 in hexadecimal")
	}
	var err error
	if i.SecretValues, err = strconv.ParseBool(cm.Data[keySecretValues]); err != nil {
		return invalid("data."+keySecretValues, cm.Data[keySecretValues], "true or false")
	}
	_, i.LeftOutNoted = cm.Data[keyLeftOut]
	for _, number := range []struct {
		key   string
		least int
		to    *int
	}{{keyObjects, 0, &i.Objects}, {keyVolumes, 0, &i.Volumes}, {keyLeftOut, 0, &i.LeftOut}, {keyChunks, 1, &i.chunks}} {
		if number.key == keyLeftOut && !i.LeftOutNoted {
			continue
		}
		n, err := strconv.Atoi(cm.Data[number.key])
		if err != nil || n < number.least {
			return invalid("data."+number.key, cm.Data[number.key], fmt.Sprintf("a number of %d or more", number.least))
		}
		*number.to = n
	}
	const aTime = "a time in RFC 3339, such as 2026-01-02T03:04:05Z"
	if i.SavedAt, err = time.Parse(time.RFC3339, cm.Data[keySavedAt]); err != nil {
		return invalid("data."+keySavedAt, cm.Data[keySavedAt], aTime)
	}
	until := cm.Annotations[lifecycle.AnnotationRetainedUntil]
	if i.KeptUntil, err = time.Parse(time.RFC3339, until); err != nil {
		return invalid("annotation "+lifecycle.AnnotationRetainedUntil, until, aTime)
	}
	return i, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// over says whether the time in AnnotationRetainedUntil has passed. What cannot be read has not.
func over(annotations map[string]string, now time.Time) bool {
	until, err := time.Parse(time.RFC3339, annotations[lifecycle.AnnotationRetainedUntil])
	return err == nil && now.After(until)
}
