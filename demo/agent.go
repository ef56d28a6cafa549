package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/internal/installation"
)

// owner is the field manager of what the demo applies, as kubectl would be.
const owner = client.FieldOwner("demo")

// injectAgent applies the agent, and shows what is stored beyond what the cluster would have stored by itself.
func (d *demo) injectAgent(ctx context.Context) error {
	plain, err := d.readAgent()
	if err != nil {
		return err
	}
	// A namespace that no profile covers shows what the API server's own defaults are.
	plain.Namespace = metav1.NamespaceDefault
	if err := d.client.Create(ctx, plain, client.DryRunAll); err != nil {
		return err
	}
	if err := d.applyAgent(ctx); err != nil {
		return err
	}
	stored, err := d.storedAgent(ctx)
	if err != nil {
		return err
	}
	before, err := essence(plain)
	if err != nil {
		return err
	}
	after, err := essence(stored)
	if err != nil {
		return err
	}
	diff, err := difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: difflib.SplitLines(before), B: difflib.SplitLines(after),
		FromFile: "what " + d.agentFile + " would be without the server", ToFile: "what is stored", Context: 1,
	})
	if err != nil {
		return err
	}
	if !strings.Contains(diff, "lifecycle-sidecar") {
		return fmt.Errorf("the stored Deployment has no sidecar:\n%s", after)
	}
	for line := range strings.Lines(diff) {
		fmt.Fprint(d.out, "   ", line)
	}
	return nil
}

// applyAgain applies the same file twice more, once as kubectl apply would and once as a client that replaces.
func (d *demo) applyAgain(ctx context.Context) error {
	before, err := d.storedAgent(ctx)
	if err != nil {
		return err
	}
	if err := d.applyAgent(ctx); err != nil {
		return err
	}
	applied, err := d.storedAgent(ctx)
	if err != nil {
		return err
	}
	replacement, err := d.readAgent()
	if err != nil {
		return err
	}
	if err := d.client.Update(ctx, replacement); err != nil {
		return err
	}
	replaced, err := d.storedAgent(ctx)
	if err != nil {
		return err
	}
	d.say("applied again:  generation %d -> %d", before.Generation, applied.Generation)
	d.say("replaced whole: generation %d -> %d, although the file has no sidecar: the accepted one came back",
		applied.Generation, replaced.Generation)
	if replaced.Generation != before.Generation {
		return fmt.Errorf("the generation moved from %d to %d: the agent would have been restarted",
			before.Generation, replaced.Generation)
	}
	return nil
}

func (d *demo) readAgent() (*appsv1.Deployment, error) {
	objects, err := installation.ReadObjects(d.agentFile)
	if err != nil {
		return nil, err
	}
	if len(objects) != 1 {
		return nil, fmt.Errorf("%s has %d documents, want the agent's Deployment alone", d.agentFile, len(objects))
	}
	data, err := objects[0].MarshalJSON()
	if err != nil {
		return nil, err
	}
	agent := &appsv1.Deployment{}
	return agent, yaml.UnmarshalStrict(data, agent)
}

func (d *demo) applyAgent(ctx context.Context) error {
	objects, err := installation.ReadObjects(d.agentFile)
	if err != nil {
		return err
	}
	for _, o := range objects {
		if err := d.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), owner, client.ForceOwnership); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) storedAgent(ctx context.Context) (*appsv1.Deployment, error) {
	agent, err := d.readAgent()
	if err != nil {
		return nil, err
	}
	return agent, d.client.Get(ctx, client.ObjectKeyFromObject(agent), agent)
}

// essence writes a Deployment without what the API server notes about it.
func essence(d *appsv1.Deployment) (string, error) {
	d = d.DeepCopy()
	d.ObjectMeta = metav1.ObjectMeta{Name: d.Name, Labels: d.Labels}
	d.Status = appsv1.DeploymentStatus{}
	text, err := yaml.Marshal(d)
	return string(text), err
}
