// Package archive keeps what a role agent's namespace held before it is reaped, and brings it back.
//
// An archive is an index, a ConfigMap in the system's namespace, and chunks: ConfigMaps, or Secrets of a type of their own
// where the values of Secrets are kept, too. The chunks hold one compressed document between them. The index is written
// last and says how many chunks there are and what their checksum is: without it there is no archive, and what does not
// fit it is not restored. Its name follows from the namespace's UID and the time at which it was marked for reaping, so
// that whoever starts again, or at the same time, makes the same archive. All of its objects are immutable. How long it is kept counts
// from when the namespace has gone, which another object beside the index says.
//
// Kinds lists what is kept. Whatever is not listed there, such as custom resources, is not. Of what is listed,
// controllers' own products are left out, but for claims that have a volume, and finished Jobs, which would run once
// more. What is left out the archive lists. Owner references are left out as well: they name UIDs that will not come
// back, and the garbage collector would take the object with them.
//
// The volumes of claims are not copied, and are kept whatever controls the claim, unless it is an ephemeral volume of
// a Pod. Their PersistentVolumes get the reclaim policy Retain, and carry in annotations what they had before and
// until when they are kept. Release gives the policy back when the time is over, and Restore when the volume is bound
// again. Discard gives an archive up before its time, and does with the volumes as a person says, also where the
// archive itself has gone.
package archive
