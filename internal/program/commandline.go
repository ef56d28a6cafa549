package program

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// ErrUsage stands for a command line that is not understood; what is wrong with it has been printed.
var ErrUsage = errors.New("usage")

// CommandLine is what a command is told.
type CommandLine interface {
	// Define defines the flags.
	Define(set *flag.FlagSet)
	// Check returns everything that is wrong with their values.
	Check() []error
}

// Parse reads the command line of a program's command, whose usage begins with the command's name. What is wrong with it is printed to
// stderr, all of it, and ErrUsage returned; where help is asked for it is printed to stdout, and flag.ErrHelp returned.
func Parse(program, usage string, c CommandLine, args []string, stdout, stderr io.Writer) error {
	command, _, _ := strings.Cut(usage, " ")
	name := program + " " + command
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(io.Discard) // the package prints the usage after every error, and the error is lost above it
	c.Define(set)
	err := set.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stdout, "Usage: %s %s\n\nFlags:\n", program, usage)
		set.SetOutput(stdout)
		set.PrintDefaults()
		return err
	}
	if err == nil {
		err = errors.Join(c.Check()...)
		if set.NArg() > 0 {
			err = errors.Join(err, fmt.Errorf("unexpected arguments %q", set.Args()))
		}
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(stderr, "%s: %s\n", name, strings.TrimRight(line, "\n"))
		}
		fmt.Fprintf(stderr, "%s --help lists the flags\n", name)
		return ErrUsage
	}
	return nil
}
