package lifecycle

// Labels of archives: what is kept of a role agent's namespace that was reaped.
const (
	// LabelArchive carries the name of the namespace. It is on every object that an archive consists of, and on the
	// PersistentVolumes that are kept with it.
	LabelArchive = Prefix + "archive"

	// LabelArchivePart says which part of an archive an object is: ArchiveIndex, ArchiveChunk or ArchiveEnd.
	LabelArchivePart = Prefix + "archive-part"
)

// The values of LabelArchivePart.
const (
	// ArchiveIndex is written last: an archive without it is not complete.
	ArchiveIndex = "index"

	ArchiveChunk = "chunk"

	// ArchiveEnd is written once the namespace has gone, and says until when the archive is kept from then on.
	ArchiveEnd = "end"
)

// Annotations of archives.
const (
	// AnnotationArchiveName is the archive's name, on its chunks and on the PersistentVolumes that are kept with it.
	AnnotationArchiveName = Prefix + "archive-name"

	// AnnotationArchivedUID is the UID that the namespace had, on index and chunks.
	AnnotationArchivedUID = Prefix + "archived-uid"

	// AnnotationRetainedUntil is until when an object or a PersistentVolume is kept, in RFC 3339. A value that cannot be
	// read keeps it for ever.
	AnnotationRetainedUntil = Prefix + "retained-until"

	// AnnotationReclaimPolicy on a PersistentVolume is the reclaim policy that it had before, and gets back.
	AnnotationReclaimPolicy = Prefix + "reclaim-policy"

	// AnnotationRestoredFrom on a namespace is the name of the archive that it was restored from.
	AnnotationRestoredFrom = Prefix + "restored-from"
)

// SecretTypeArchive is the type of the Secrets in which an archive keeps the values of Secrets.
const SecretTypeArchive = Prefix + "archive"
