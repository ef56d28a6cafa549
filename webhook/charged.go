package webhook

import (
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// chargedFor is how long a charge counts for the same Deployment. The API server asks again within moments.
const chargedFor = time.Minute

// charged remembers the Deployments whose deletion was counted a moment ago. The API server asks admission again when
// an object has changed before it could be deleted, and a Deployment's status changes just as its agent ends: that is
// one deletion and not two. Another replica may be asked the second time, which then counts it too: the breaker opens
// rather too early than too late.
//
// The breaker bounds how many there are.
type charged struct {
	mu sync.Mutex
	at map[types.UID]time.Time
}

func (c *charged) recently(uid types.UID, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.at[uid]
	return ok && now.Sub(at) < chargedFor
}

func (c *charged) remember(uid types.UID, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at == nil {
		c.at = map[types.UID]time.Time{}
	}
	maps.DeleteFunc(c.at, func(_ types.UID, at time.Time) bool { return now.Sub(at) >= chargedFor })
	c.at[uid] = now
}
