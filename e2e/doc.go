// Package e2e holds the end-to-end tests: the dev overlay on a real cluster with nodes and all its controllers, one
// file for each promise that is made to a user. They have the build tag e2e, and `make e2e` runs them.
//
//	E2E_KUBECONFIG  the cluster; its namespaces dexorder-system and dexorder-agents are the tests'
//	E2E_IMAGES      images to use in place of the overlay's, as NAME:TAG separated by spaces
//	E2E_ARTIFACTS   where a test that fails leaves logs, events and objects; else a new temporary directory
//	E2E_PYTHON_AGENT  the image of an agent in Python, if there is one
//
// Agents are containers of e2e/agent, which do what the tests tell them over HTTP. What the tests look at is what the API
// server stores, what the kubelet reports, and what the sidecars say. Some of them act on the node itself, through docker.
package e2e
