package reaper

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// liveFields is an object as it would be read.
func liveFields(t *testing.T, gvk schema.GroupVersionKind, text string) map[string]any {
	t.Helper()
	o, err := scheme.Scheme.New(gvk)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(text), o); err != nil {
		t.Fatal(err)
	}
	fields, err := fieldsOf(o)
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

const (
	deploymentTemplate = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker, labels: {app: worker, example.com/team: blue}}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      automountServiceAccountToken: false
      hostNetwork: false
      serviceAccountName: ""
      tolerations: []
      containers:
      - name: agent
        image: ghcr.io/dexorder/agent:v1
        args: [a, b]
        env: [{name: HOME, value: /home}]
        resources: {limits: {cpu: 2, memory: 1024Mi}}
        volumeMounts: [{name: work, mountPath: /work}, {name: work, mountPath: /also, subPath: x}]
        livenessProbe: {httpGet: {port: 8080}}
      volumes: [{name: work, emptyDir: {sizeLimit: 1Gi}}]
`
	deploymentLive = `
metadata: {name: worker, uid: d1, labels: {app: worker, example.com/team: blue, more: x}, annotations: {a: b}}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker, more: x}}
    spec:
      automountServiceAccountToken: false
      shareProcessNamespace: true
      dnsPolicy: ClusterFirst
      containers:
      - {name: lifecycle-sidecar, image: x}
      - name: agent
        image: ghcr.io/dexorder/agent:v1
        args: [a, b]
        env: [{name: MORE, value: x}, {name: HOME, value: /home}]
        resources: {limits: {cpu: "2", memory: 1Gi}}
        volumeMounts: [{name: lifecycle-run, mountPath: /var/run/agent}, {name: work, mountPath: /also, subPath: x}, {name: work, mountPath: /work}]
        livenessProbe: {httpGet: {port: 8080, scheme: HTTP}}
      volumes: [{name: lifecycle-run, emptyDir: {}}, {name: work, emptyDir: {sizeLimit: 1024Mi}}]
status: {replicas: 1}
`
	roleTemplate = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: worker}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]
`
	bindingTemplate = `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lifecycle-reaper, namespace: "{namespace}"}
roleRef: {kind: ClusterRole, name: r}
subjects: [{kind: ServiceAccount, name: one, namespace: "{namespace}"}]
`
	policyTemplate = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: egress}
spec: {podSelector: {}, policyTypes: [Egress], egress: []}
`
	quotaTemplate = `
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota}
spec: {hard: {requests.storage: 1073741824, pods: 10}}
`
	secretTemplate = `
apiVersion: v1
kind: Secret
metadata: {name: token}
type: Opaque
stringData: {password: wanted-value}
data: {key: d2FudGVkLXZhbHVl}
`
	mapTemplate = `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {max: "1.0", mode: quiet}
`
	serviceTemplate = `
apiVersion: v1
kind: Service
metadata: {name: worker}
spec: {ports: [{port: 80, targetPort: 8080}, {port: 81}]}
`
)

func TestCompare(t *testing.T) {
	change := func(text string, pairs ...string) string {
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(text, pairs[i]) {
				t.Fatalf("%q is not in %s", pairs[i], text)
			}
			text = strings.Replace(text, pairs[i], pairs[i+1], 1)
		}
		return text
	}
	role := "rules: [{apiGroups: [''], resources: [configmaps], verbs: [get]}]"
	subjects := "{roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: r}, subjects: [{kind: ServiceAccount, name: one, namespace: agent-x}]}"
	for name, tc := range map[string]struct {
		template, live string
		want           []string
	}{
		"as it is":      {deploymentTemplate, deploymentLive, nil},
		"scaled":        {deploymentTemplate, change(deploymentLive, "replicas: 1", "replicas: 0"), []string{"Deployment worker: spec.replicas is 0, in the template 1"}},
		"another image": {deploymentTemplate, change(deploymentLive, "agent:v1", "agent:v2"), []string{`Deployment worker: spec.template.spec.containers[agent].image is "ghcr.io/dexorder/agent:v2", in the template "ghcr.io/dexorder/agent:v1"`}},
		"label off":     {deploymentTemplate, change(deploymentLive, ", example.com/team: blue", ""), []string{`Deployment worker: metadata.labels[example.com/team] is nothing, in the template "blue"`}},
		"more arguments": {deploymentTemplate, change(deploymentLive, "[a, b]", "[a, b, c]"), []string{
			`Deployment worker: spec.template.spec.containers[agent].args is ["a","b","c"], in the template ["a","b"]`}},
		"other arguments": {deploymentTemplate, change(deploymentLive, "[a, b]", "[b, a]"), []string{
			`Deployment worker: spec.template.spec.containers[agent].args[0] is "b", in the template "a"`,
			`Deployment worker: spec.template.spec.containers[agent].args[1] is "a", in the template "b"`}},
		"more memory, another mount": {deploymentTemplate, change(deploymentLive, "memory: 1Gi", "memory: 2Gi", "{name: work, mountPath: /work}", "{name: work, mountPath: /else}"), []string{
			`Deployment worker: spec.template.spec.containers[agent].resources.limits.memory is "2Gi", in the template "1Gi"`,
			`Deployment worker: spec.template.spec.containers[agent].volumeMounts[/work] is nothing, in the template {"mountPath":"/work","name":"work"}`}},
		"token mounted": {deploymentTemplate, change(deploymentLive, "automountServiceAccountToken: false", "automountServiceAccountToken: true"), []string{
			"Deployment worker: spec.template.spec.automountServiceAccountToken is true, in the template false"}},
		"token mounted by default": {deploymentTemplate, change(deploymentLive, "      automountServiceAccountToken: false\n", ""), []string{
			"Deployment worker: spec.template.spec.automountServiceAccountToken is nothing, in the template false"}},
		"network of the host": {deploymentTemplate, change(deploymentLive, "shareProcessNamespace: true", "hostNetwork: true"), []string{
			"Deployment worker: spec.template.spec.hostNetwork is true, in the template false"}},
		"tolerates": {deploymentTemplate, change(deploymentLive, "shareProcessNamespace: true", "tolerations: [{key: x}]"), []string{
			`Deployment worker: spec.template.spec.tolerations is [{"key":"x"}], in the template []`}},
		"port by name":  {deploymentTemplate, change(deploymentLive, "port: 8080", "port: '8080'"), nil},
		"another port":  {deploymentTemplate, change(deploymentLive, "port: 8080", "port: http"), []string{`Deployment worker: spec.template.spec.containers[agent].livenessProbe.httpGet.port is "http", in the template 8080`}},
		"no containers": {deploymentTemplate, "spec: {replicas: 1}", nil}, // below

		"role":              {roleTemplate, role, nil},
		"role, one more":    {roleTemplate, "rules: [{apiGroups: [''], resources: [configmaps], verbs: [get]}, {apiGroups: ['*'], resources: ['*'], verbs: ['*']}]", []string{`Role worker: rules is [{"apiGroups":[""],"resources":["configmaps"],"verbs":["get"]},{"apiGroups":[…, in the template [{"apiGroups":[""],"resources":["configmaps"],"verbs":["get"]}]`}},
		"role, more verbs":  {roleTemplate, change(role, "[get]", "[get, delete]"), []string{`Role worker: rules[0].verbs is ["get","delete"], in the template ["get"]`}},
		"binding":           {bindingTemplate, subjects, nil},
		"binding, one more": {bindingTemplate, change(subjects, "subjects: [", "subjects: [{kind: User, name: eve}, "), []string{`RoleBinding lifecycle-reaper: subjects[eve] is {"kind":"User","name":"eve"}, in the template nothing`}},
		"binding, another": {bindingTemplate, change(subjects, "name: one", "name: two"), []string{
			`RoleBinding lifecycle-reaper: subjects[one] is nothing, in the template {"kind":"ServiceAccount","name":"one","namespace":"agent-x"}`,
			`RoleBinding lifecycle-reaper: subjects[two] is {"kind":"ServiceAccount","name":"two","namespace":"agent-x"}, in the template nothing`}},
		"network":         {policyTemplate, "spec: {podSelector: {}, policyTypes: [Egress]}", nil},
		"network, opened": {policyTemplate, "spec: {podSelector: {}, policyTypes: [Egress], egress: [{}]}", []string{"NetworkPolicy egress: spec.egress is [{}], in the template []"}},
		"quota":           {quotaTemplate, "spec: {hard: {requests.storage: 1Gi, pods: '10'}}", nil},
		"quota, raised":   {quotaTemplate, "spec: {hard: {requests.storage: 2Gi, pods: '10'}}", []string{`ResourceQuota quota: spec.hard[requests.storage] is "2Gi", in the template "1073741824"`}},
		"secret":          {secretTemplate, "{type: Opaque, data: {password: b3RoZXI=, key: b3RoZXI=, more: eA==}}", nil},
		"secret, key off": {secretTemplate, "{type: Opaque, data: {key: b3RoZXI=}}", []string{"Secret token: data.password is missing, in the template there"}},
		"secret, empty":   {secretTemplate, "{type: other}", []string{"Secret token: data.key is missing, in the template there", "Secret token: data.password is missing, in the template there", `Secret token: type is "other", in the template "Opaque"`}},
		"map":             {mapTemplate, "data: {max: '1.0', mode: quiet, more: x}", nil},
		"map, changed":    {mapTemplate, "data: {max: '1', mode: quiet}", []string{`ConfigMap settings: data.max is "1", in the template "1.0"`}},
		"service":         {serviceTemplate, "spec: {clusterIP: None, ports: [{port: 81, protocol: TCP}, {port: 80, targetPort: 8080, protocol: TCP}, {port: 82}]}", nil},
		"service, gone":   {serviceTemplate, "spec: {ports: [{port: 80, targetPort: http}]}", []string{`Service worker: spec.ports[80].targetPort is "http", in the template 8080`, `Service worker: spec.ports[81] is nothing, in the template {"port":81}`}},
	} {
		all, err := readTemplate(map[string]string{"x": tc.template}, "agent-x")
		if err != nil || len(all) != 1 {
			t.Errorf("%s: %d objects, %v", name, len(all), err)
			continue
		}
		got := compare(&all[0], liveFields(t, all[0].gvk, tc.live))
		switch name {
		case "no containers":
			if len(got) < 4 {
				t.Errorf("%s: %v", name, got.lines())
			}
		default:
			if lines := got.lines(); !slices.Equal(lines, tc.want) {
				t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(lines, "\n"), strings.Join(tc.want, "\n"))
			}
		}
		if text := strings.Join(got.lines(), ""); strings.Contains(text, "wanted-value") || strings.Contains(text, "d2Fud") || strings.Contains(text, "b3RoZXI") || strings.Contains(text, "other=") {
			t.Errorf("%s: says what a Secret holds: %s", name, text)
		}
	}
}

func TestReadTemplate(t *testing.T) {
	all, err := readTemplate(map[string]string{
		"b.yaml": "---\n# nothing\n---\n" + roleTemplate + "---\n" + mapTemplate,
		"a.yaml": "{apiVersion: v1, kind: Namespace, metadata: {labels: {org: dexorder}}}\n---\n{apiVersion: example.com/v1, kind: Thing, metadata: {name: it}, spec: {a: 1}}\n",
	}, "agent-x")
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, 0, len(all))
	for i := range all {
		ids = append(ids, all[i].id())
	}
	if want := []string{"Namespace agent-x", "Thing it", "Role worker", "ConfigMap settings"}; !slices.Equal(ids, want) {
		t.Errorf("read %q, want %q", ids, want)
	}
	for text, want := range map[string]string{
		"{":                                 "x, document 1: ",
		"a":                                 "it is no object",
		"{kind: Role, metadata: {name: x}}": "apiVersion and kind are required",
		"{apiVersion: v1, kind: ConfigMap}": "ConfigMap: metadata.name is required",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: default}}":                                               `ConfigMap x: metadata.namespace is "default", and must be {namespace}, or left out`,
		"{apiVersion: v1, kind: Namespace, metadata: {name: agent-y}}":                                                             "Namespace agent-y: metadata.name must be {namespace}, or left out",
		"{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}, spec: {replica: 1}}":                                         `unknown field "spec.replica"`,
		"{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}, spec: {replicas: many}}":                                     "Deployment x: ",
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, metadata: {name: y}}":                                              `already set`,
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: x}}\n---\n" + "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}}": "x, document 2: ConfigMap x is there twice",
	} {
		if _, err := readTemplate(map[string]string{"x": text}, "agent-x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// Every change of what differs is another event, and what is written on a namespace stays short.
func TestDriftSummary(t *testing.T) {
	one := drift{{object: "Role worker", found: "is missing"}}
	two := append(slices.Clone(one), finding{object: "Service worker", path: "spec.type", wanted: `"a"`, found: `"b"`})
	if one.hash() == two.hash() || one.hash() != slices.Clone(one).hash() {
		t.Error("the hash does not tell one from another")
	}
	if got, want := two.summary(), `2 differences (`+two.hash()+`): Role worker is missing; Service worker: spec.type is "b", in the template "a"`; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got := one.summary(); !strings.HasPrefix(got, "1 difference (") {
		t.Error(got)
	}
	var many drift
	for range 100 {
		many = append(many, finding{object: "Röle", found: "is missing"})
	}
	if got := many.summary(); len(got) > longestDrift || !strings.HasSuffix(got, "…") || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}

// Each kind that can be compared is one that the scheme knows, served where the reaper asks.
func TestComparedKinds(t *testing.T) {
	c := kubernetes.NewForConfigOrDie(&rest.Config{Host: "https://example.com"})
	for _, k := range comparedKinds() {
		if o, err := scheme.Scheme.New(k.gvk); err != nil || reflect.TypeOf(o) == reflect.TypeFor[*runtime.Unknown]() {
			t.Errorf("%s: %v", k.gvk, err)
		}
		if got := k.client(c).APIVersion(); got != k.gvk.GroupVersion() {
			t.Errorf("%s is asked for in %s", k.gvk, got)
		}
	}
}
