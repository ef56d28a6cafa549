// Package installation holds the end-to-end tests of installing, upgrading and removing on a real cluster, by the tools that
// people use: kubectl and helm. What they hold is that agents which run are left alone by all of it. They have the build
// tag e2e, and `make e2e` runs them after the others, which they would disturb.
//
//	E2E_KUBECONFIG  the cluster; everything of ours on it is the tests'
//	E2E_IMAGES      the images to install, as NAME:TAG separated by spaces
//	E2E_PREVIOUS_IMAGES, E2E_PREVIOUS_MANIFESTS   the version to upgrade from: its images and its directory manifests
//	E2E_FIRST_IMAGES, E2E_FIRST_MANIFESTS         the first release, likewise
//	KUBECTL, HELM   the programs; else those in $PATH
package installation
