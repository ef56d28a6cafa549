// Package e2e holds the end-to-end tests: the dev overlay on a real cluster with nodes and all its controllers, one
// file for each promise that is made to a user. They have the build tag e2e, and `make e2e` runs them.
//
//	E2E_KUBECONFIG  the cluster; its namespaces dexorder-system and dexorder-agents are the tests'
//	E2E_IMAGES      images to use in place of the overlay's, as NAME:TAG separated by spaces
//	E2E_ARTIFACTS   where a test that fails leaves logs, events and objects; else a new temporary directory
//
// No agent ever starts: there is no image of one to pull. What is looked at is what the API server stores, and the Pods
// that the cluster's controllers make of it.
package e2e
