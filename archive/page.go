package archive

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxRestarts of a list whose pages expire faster than they are read.
const maxRestarts = 5

// listAll reads a list to its end, page by page. A page that cannot be read is an error, and one whose continuation has
// expired starts the list over, since what was read so far belongs to a state that is gone.
func listAll[T any](ctx context.Context, opts metav1.ListOptions, page func(context.Context, metav1.ListOptions) ([]T, string, error)) ([]T, error) {
	var all []T
	for restarts := 0; ; {
		items, next, err := page(ctx, opts)
		if opts.Continue != "" && (apierrors.IsResourceExpired(err) || apierrors.IsGone(err)) && restarts < maxRestarts {
			restarts++
			all, opts.Continue = nil, ""
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if next == "" {
			return all, nil
		}
		opts.Continue = next
	}
}
