package program

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// Component is a part of a program that runs until ctx ends.
type Component interface {
	Run(ctx context.Context) error
}

// Run runs main until ctx ends, and the components until main has returned: they are there until the last request is answered. A
// component that fails stops it all.
func Run(ctx context.Context, main func(context.Context) error, components ...Component) error {
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	group, failed := errgroup.WithContext(background)
	for _, c := range components {
		group.Go(func() error { return c.Run(background) })
	}
	mainCtx, stopMain := context.WithCancel(ctx)
	defer stopMain()
	context.AfterFunc(failed, stopMain)
	err := main(mainCtx)
	cancel()
	return errors.Join(err, group.Wait())
}
