package reaper

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
)

// mentionsStale is how old what was read may be when something is deleted by it. Shorter would read hundreds of kinds
// for each deletion.
const mentionsStale = 10 * time.Second

// latestMentions reads once more, for the deletions of a pass, what mentions leftovers: when the last namespace of
// many has been looked at, what was read of the first one is minutes old.
type latestMentions struct {
	client kubernetes.Interface
	now    func() time.Time

	mu sync.Mutex
	// reader has what is the same for every namespace, as of readerAt.
	reader   *referenceReader
	readerAt time.Time

	namespaces map[string]*mentionsAt
}

type mentionsAt struct {
	*mentions
	at time.Time
}

// of returns which of the wanted names are mentioned in a namespace, as it was at most mentionsStale ago.
func (l *latestMentions) of(ctx context.Context, namespace string, wanted map[string]bool) *mentions {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if m := l.namespaces[namespace]; m != nil && now.Sub(m.at) < mentionsStale {
		return m.mentions
	}
	if l.reader == nil || now.Sub(l.readerAt) >= mentionsStale {
		l.reader, l.readerAt = &referenceReader{client: l.client}, now
	}
	if l.namespaces == nil {
		l.namespaces = map[string]*mentionsAt{}
	}
	m := l.reader.read(ctx, namespace, wanted)
	l.namespaces[namespace] = &mentionsAt{m, now}
	return m
}
