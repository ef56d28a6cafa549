package policy

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Agents of one namespace are neighbours, and a Pod may use any Secret and ConfigMap of its namespace by naming it. So
// names are allowed one by one: in volumes, projected sources, env and envFrom, as image pull secrets, and as what a
// CSI driver is given. The one ConfigMap that everybody may read is kube-root-ca.crt. A source of a type that this
// program does not know is refused, since nobody has judged what it reaches.
//
// Tokens of the Pod's service account are projected for the sidecar alone, unless the profile lets agents have them.
var references = Rule{
	ID:          "references",
	Summary:     "Secrets, ConfigMaps, drivers and tokens only by allowed names",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.References.Enforcement },
	applies:     podsChange,
	check:       checkReferences,
}

// rootCA is what Kubernetes puts into every namespace for everybody.
const rootCA = "kube-root-ca.crt"

func checkReferences(p *Profile, r *Request) []Violation {
	c := &referenceCheck{rule: &p.file.Rules.References, agent: agentOf(r)}
	c.tokens = c.rule.Tokens || *p.file.Rules.ServiceAccounts.MountToken
	template := r.Object.Template
	// Those of a Pod were judged in its template, or come from its service account: the API server's own admission adds
	// these to Pods, and an agent never gets to see them.
	if r.Object.Kind != kindPod {
		for i, secret := range template.Spec.ImagePullSecrets {
			if full(c.found) {
				break
			}
			c.name(c.rule.PullSecrets, "image pull secret", secret.Name, fmt.Sprintf("%s[%d].name", template.Field("spec.imagePullSecrets"), i))
		}
	}
	for _, container := range template.Containers() {
		c.container(container)
	}
	for i := range template.Spec.Volumes {
		if full(c.found) {
			break
		}
		if p.isInjected(r, &template.Spec.Volumes[i]) {
			continue
		}
		c.volume(&template.Spec.Volumes[i], fmt.Sprintf("%s[%d]", template.Field("spec.volumes"), i))
	}
	return c.found
}

type referenceCheck struct {
	rule   *v1alpha1.References
	agent  string
	tokens bool
	found  []Violation
}

func (c *referenceCheck) name(allowed []string, what, name, field string) {
	if !allowsName(allowed, c.agent, name) {
		c.found = append(c.found, violation(field, "%s %q may not be used; allowed: %s", what, name, namesFor(allowed, c.agent)))
	}
}

func (c *referenceCheck) secret(name, field string) { c.name(c.rule.Secrets, "Secret", name, field) }

func (c *referenceCheck) configMap(name, field string) {
	if name != rootCA {
		c.name(c.rule.ConfigMaps, "ConfigMap", name, field)
	}
}

func (c *referenceCheck) container(container workload.Container) {
	for i, env := range container.Env {
		if full(c.found) {
			return
		}
		if env.ValueFrom == nil {
			continue
		}
		if *env.ValueFrom == (corev1.EnvVarSource{}) {
			c.found = append(c.found, violation(fmt.Sprintf("%s.env[%d].valueFrom", container.Path(), i),
				"container %q: env %q has a source of no known type; allowed: "+
					"configMapKeyRef, fieldRef, fileKeyRef, resourceFieldRef, secretKeyRef", container.Name, env.Name))
		}
		if ref := env.ValueFrom.SecretKeyRef; ref != nil {
			c.secret(ref.Name, fmt.Sprintf("%s.env[%d].valueFrom.secretKeyRef.name", container.Path(), i))
		}
		if ref := env.ValueFrom.ConfigMapKeyRef; ref != nil {
			c.configMap(ref.Name, fmt.Sprintf("%s.env[%d].valueFrom.configMapKeyRef.name", container.Path(), i))
		}
	}
	for i, from := range container.EnvFrom {
		if full(c.found) {
			return
		}
		field := fmt.Sprintf("%s.envFrom[%d]", container.Path(), i)
		if from.SecretRef == nil && from.ConfigMapRef == nil {
			c.found = append(c.found, violation(field, "container %q: a source of no known type; allowed: configMapRef, secretRef",
				container.Name))
		}
		if from.SecretRef != nil {
			c.secret(from.SecretRef.Name, field+".secretRef.name")
		}
		if from.ConfigMapRef != nil {
			c.configMap(from.ConfigMapRef.Name, field+".configMapRef.name")
		}
	}
}

func (c *referenceCheck) volume(volume *corev1.Volume, field string) {
	switch source := volume.VolumeSource; {
	case source.Secret != nil:
		c.secret(source.Secret.SecretName, field+".secret.secretName")
	case source.ConfigMap != nil:
		c.configMap(source.ConfigMap.Name, field+".configMap.name")
	case source.Projected != nil:
		for i := range source.Projected.Sources {
			if full(c.found) {
				return
			}
			c.projection(volume.Name, &source.Projected.Sources[i], fmt.Sprintf("%s.projected.sources[%d]", field, i))
		}
	case source.CSI != nil:
		c.name(c.rule.CSIDrivers, "CSI driver", source.CSI.Driver, field+".csi.driver")
		c.secretRef(source.CSI.NodePublishSecretRef, field+".csi.nodePublishSecretRef")
	case source.AzureFile != nil:
		c.secret(source.AzureFile.SecretName, field+".azureFile.secretName")
	case source.CephFS != nil:
		c.secretRef(source.CephFS.SecretRef, field+".cephfs.secretRef")
	case source.Cinder != nil:
		c.secretRef(source.Cinder.SecretRef, field+".cinder.secretRef")
	case source.FlexVolume != nil:
		c.secretRef(source.FlexVolume.SecretRef, field+".flexVolume.secretRef")
	case source.ISCSI != nil:
		c.secretRef(source.ISCSI.SecretRef, field+".iscsi.secretRef")
	case source.RBD != nil:
		c.secretRef(source.RBD.SecretRef, field+".rbd.secretRef")
	case source.ScaleIO != nil:
		c.secretRef(source.ScaleIO.SecretRef, field+".scaleIO.secretRef")
	case source.StorageOS != nil:
		c.secretRef(source.StorageOS.SecretRef, field+".storageos.secretRef")
	}
}

func (c *referenceCheck) secretRef(ref *corev1.LocalObjectReference, field string) {
	if ref != nil {
		c.secret(ref.Name, field+".name")
	}
}

func (c *referenceCheck) projection(volume string, source *corev1.VolumeProjection, field string) {
	switch {
	case source.Secret != nil:
		c.secret(source.Secret.Name, field+".secret.name")
	case source.ConfigMap != nil:
		c.configMap(source.ConfigMap.Name, field+".configMap.name")
	case source.ServiceAccountToken != nil:
		if !c.tokens {
			c.found = append(c.found, violation(field+".serviceAccountToken", "volume %q may not hold a service account token: only the sidecar has one", volume))
		}
	case source.PodCertificate != nil:
		if !c.tokens {
			c.found = append(c.found, violation(field+".podCertificate", "volume %q may not hold a Pod certificate: agents have no identity of their own", volume))
		}
	case source.DownwardAPI != nil, source.ClusterTrustBundle != nil:
	default:
		c.found = append(c.found, violation(field, "volume %q has a source of no known type; allowed: "+
			"secret, configMap, downwardAPI, clusterTrustBundle, serviceAccountToken", volume))
	}
}
