// Generate makes the templates and files of the Helm chart out of the manifests: it renders the base with each component that a
// value switches on, and writes down where the results differ.
//
// It runs in the directory charts, by go generate.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

const (
	manifestsDir = "../manifests"
	chartDir     = "agent-lifecycle"
)

func main() {
	if err := generate(); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate() error {
	objects, err := variants()
	if err != nil {
		return err
	}
	files := map[string]string{}
	for _, o := range objects {
		text, err := o.template()
		if err != nil {
			return fmt.Errorf("%s: %w", o.key, err)
		}
		files[o.file()] += text
	}
	for name, source := range copies {
		content, err := os.ReadFile(filepath.Join(manifestsDir, source))
		if err != nil {
			return err
		}
		files[name] = string(content)
	}
	// What nothing makes any more must not stay.
	for _, dir := range []string{"templates", "files"} {
		stale, err := filepath.Glob(filepath.Join(chartDir, dir, "*.yaml"))
		if err != nil {
			return err
		}
		for _, file := range stale {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	for name, content := range files {
		if dir, _ := filepath.Split(name); dir == "templates/" {
			content = "{{- /* Made from the manifests by go generate ./charts: change those. */ -}}\n" + content
		}
		if err := os.WriteFile(filepath.Join(chartDir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
