// Package charts holds the Helm chart, and that it renders what the manifests do. The manifests are where things are changed:
// the chart's templates are made of them by generate.
package charts

//go:generate go run ./generate
