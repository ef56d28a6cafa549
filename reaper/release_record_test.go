package reaper

import "testing"

// TestReleaseOf holds records as their tools write them against the list.
func TestReleaseOf(t *testing.T) {
	type keys = map[string]string
	for _, tc := range []struct {
		want, name          string
		labels, annotations keys
	}{
		{"Helm", "sh.helm.release.v1.app.v1", keys{"owner": "helm", "name": "app", "status": "deployed", "version": "1"}, nil},
		{"Helm", "app.v1", keys{"owner": "helm"}, nil}, // the storage drivers of others
		{"Helm", "sh.helm.release.v1.app.v1", nil, nil},
		{"Helm", "app-settings", keys{"app.kubernetes.io/managed-by": "Helm"}, keys{"meta.helm.sh/release-name": "app"}},
		{"Helm", "app-settings", nil, keys{"helm.sh/resource-policy": "keep"}},
		{"Helm 2", "app.v1", keys{"OWNER": "TILLER"}, nil},
		{"Terraform", "tfstate-default-state", keys{"tfstate": "true", "tfstateSecretSuffix": "state", "tfstateWorkspace": "default"}, nil},
		{"Terraform", "some-name", keys{"app.kubernetes.io/managed-by": "terraform"}, nil},
		{"Argo CD", "settings", nil, keys{"argocd.argoproj.io/tracking-id": "app:/ConfigMap:ns/settings"}},
		{"Argo CD", "cluster", keys{"argocd.argoproj.io/secret-type": "cluster"}, nil},
		{"Flux", "settings", keys{"kustomize.toolkit.fluxcd.io/name": "apps"}, nil},
		{"kapp", "app", keys{"kapp.k14s.io/is-app": ""}, nil},
		{"kapp", "app-change-x2v9q", keys{"kapp.k14s.io/is-app-change": "", "kapp.k14s.io/app": "1"}, nil},
		{"kpt", "inventory-1", keys{"cli-utils.sigs.k8s.io/inventory-id": "1"}, nil},
		{"kubectl apply --applyset", "set", keys{"applyset.kubernetes.io/id": "applyset-1-v1"}, nil},
		{"Pulumi", "settings", keys{"app.kubernetes.io/managed-by": "pulumi"}, nil},
		{"Timoni", "timoni.app", nil, nil},
		{"Kluctl", "result", keys{"kluctl.io/discriminator": "x"}, nil},
		{"", "state", keys{"team": "blue", "owner": "ceo"}, keys{"note": "helm"}},
		{"", "helm-notes", keys{"app.kubernetes.io/managed-by": "ceo"}, nil},
		{"", "tfstates", nil, nil},
		{"", "empty", nil, nil},
	} {
		if got := releaseOf(tc.name, tc.labels, tc.annotations); got != tc.want {
			t.Errorf("%s, labels %v, annotations %v: a release of %q, want %q", tc.name, tc.labels, tc.annotations, got, tc.want)
		}
	}
}
