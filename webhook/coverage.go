package webhook

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

// registered is what matters here of one webhook of a configuration, mutating and validating alike.
type registered struct {
	name          string
	path          string
	failurePolicy *admissionregistrationv1.FailurePolicyType
	rules         []admissionregistrationv1.RuleWithOperations
	conditions    []admissionregistrationv1.MatchCondition
	selects       bool // by labels of namespaces or objects
}

// compare says how a webhook configuration differs from what the policy covers: what would pass unjudged, and what is
// sent here for nothing. No difference is an empty list.
func compare(webhooks []registered, path string, entries []entry, policy scope) []string {
	i := slices.IndexFunc(webhooks, func(w registered) bool { return w.path == path })
	if i < 0 {
		return []string{fmt.Sprintf("no webhook calls %s: nothing is judged there", path)}
	}
	w := webhooks[i]
	var found []string
	say := func(format string, args ...any) {
		found = append(found, fmt.Sprintf("webhook %q: ", w.name)+fmt.Sprintf(format, args...))
	}
	if w.failurePolicy != nil && *w.failurePolicy != admissionregistrationv1.Fail {
		say("failurePolicy is %s: what this server does not answer passes unjudged; it should be Fail", *w.failurePolicy)
	}
	if w.selects {
		say("a namespaceSelector or objectSelector leaves objects out by labels, which those who write them can change")
	}
	return slices.Concat(found, compareRules(w, entries), compareNamespaces(w, policy), compareDeleters(w, policy))
}

// compareStamps says what role agents make without a stamp, or have to wait for. Which namespaces are sent is left to the
// registration: no policy changes where stamps belong, and the server itself looks again.
func compareStamps(webhooks []registered) []string {
	const path = "/stamp"
	i := slices.IndexFunc(webhooks, func(w registered) bool { return w.path == path })
	if i < 0 {
		return []string{fmt.Sprintf("no webhook calls %s", path)}
	}
	w := webhooks[i]
	found := compareRules(w, stamps)
	if w.failurePolicy == nil || *w.failurePolicy != admissionregistrationv1.Ignore {
		found = append(found, fmt.Sprintf("webhook %q: failurePolicy is not Ignore: what is only to be stamped waits for this server",
			w.name))
	}
	return found
}

func compareRules(w registered, entries []entry) []string {
	var found []string
	for i := range entries {
		for _, operation := range entries[i].operations {
			op := admissionregistrationv1.OperationType(operation)
			if !slices.ContainsFunc(w.rules, func(r admissionregistrationv1.RuleWithOperations) bool { return matches(r, &entries[i], op) }) {
				found = append(found, fmt.Sprintf("webhook %q: rules leave out %s of %s", w.name, operation, &entries[i]))
			}
		}
	}
	return found
}

func compareNamespaces(w registered, policy scope) []string {
	sent, understood := namespacesOf(w.conditions)
	if !understood {
		return []string{fmt.Sprintf("webhook %q: its matchConditions name no namespaces in a form that is understood "+
			`(request.namespace == "NAME", request.namespace.startsWith("PREFIX"), !(request.namespace in ["NAME"])), so they cannot be compared with the policy's: %s`,
			w.name, policy)}
	}
	if sent.equal(policy) {
		return nil
	}
	return []string{fmt.Sprintf("webhook %q: its matchConditions select the namespaces %s, the policy covers %s",
		w.name, sent, policy)}
}

// compareDeleters asks whose deletions are sent: accounts of all namespaces that hold agents have to be among them, or
// they delete what RBAC lets them.
func compareDeleters(w registered, policy scope) []string {
	var sent scope
	filtered := false
	for _, c := range w.conditions {
		if !strings.Contains(c.Expression, "request.operation") {
			continue
		}
		filtered = true
		for _, namespace := range literals(accountStarts.FindAllStringSubmatch(c.Expression, -1)) {
			if name, whole := strings.CutSuffix(namespace, ":"); whole {
				sent.names = append(sent.names, name)
			} else {
				sent.prefixes = append(sent.prefixes, namespace)
			}
		}
	}
	sent = sent.sorted()
	policy.except = nil // An account of a namespace that is left out is no more than any other one elsewhere.
	if !filtered || sent.equal(policy) {
		return nil
	}
	return []string{fmt.Sprintf("webhook %q: its matchConditions send the deletions by accounts of the namespaces %s, the policy covers %s",
		w.name, sent, policy)}
}

// compareGateway asks whether the conditions mean the account that the policy calls the gateway. Some requests are sent for
// it alone: under another name it would not be kept from anything.
func compareGateway(webhooks []registered, path, gateway string) []string {
	var found []string
	for _, w := range webhooks {
		if w.path != path {
			continue
		}
		for _, c := range w.conditions {
			for _, account := range literals(accountIs.FindAllStringSubmatch(c.Expression, -1)) {
				if account != gateway {
					found = append(found, fmt.Sprintf("webhook %q: its matchCondition %q means account %q, the policy's gateway is %q",
						w.name, c.Name, account, gateway))
				}
			}
		}
	}
	return found
}

func matches(r admissionregistrationv1.RuleWithOperations, e *entry, op admissionregistrationv1.OperationType) bool {
	resource := e.resource
	if e.subresource != "" {
		resource += "/" + e.subresource
	}
	named := func(list []string, names ...string) bool {
		return slices.ContainsFunc(list, func(s string) bool { return slices.Contains(names, s) })
	}
	resources := []string{resource, "*/*"}
	if e.subresource == "" {
		resources = append(resources, "*", e.resource+"/*")
	} else {
		resources = append(resources, e.resource+"/*", "*/"+e.subresource)
	}
	return named(r.APIGroups, e.group, "*") && named(r.APIVersions, e.version, "*") && named(r.Resources, resources...) &&
		(slices.Contains(r.Operations, op) || slices.Contains(r.Operations, admissionregistrationv1.OperationAll)) &&
		(r.Scope == nil || *r.Scope != admissionregistrationv1.ClusterScope)
}

var (
	namespaceIs     = regexp.MustCompile(`request\.namespace\s*==\s*(?:"([^"\\]*)"|'([^'\\]*)')`)
	namespaceStarts = regexp.MustCompile(`request\.namespace\.startsWith\(\s*(?:"([^"\\]*)"|'([^'\\]*)')\s*\)`)
	accountStarts   = regexp.MustCompile(
		`request\.userInfo\.username\.startsWith\(\s*(?:"system:serviceaccount:([^"\\]*)"|'system:serviceaccount:([^'\\]*)')\s*\)`)
	accountIs      = regexp.MustCompile(`request\.userInfo\.username\s*==\s*(?:"([^"\\]*)"|'([^'\\]*)')`)
	namespaceNamed = regexp.MustCompile(`request\.namespace\b`)

	// namespaceNotIn matches a condition that leaves namespaces out and does nothing else.
	namespaceNotIn = regexp.MustCompile(`^\s*!\s*\(\s*request\.namespace\s+in\s+\[((?:\s*(?:"[^"\\]*"|'[^'\\]*')\s*,?)*)\s*\]\s*\)\s*$`)
	literal        = regexp.MustCompile(`"([^"]*)"|'([^']*)'`)
)

// namespacesOf reads the namespaces that match conditions select, in the forms that our manifests use. Evaluating any
// expression there may be would take a CEL interpreter, several times the size of this program. It is not understood
// when no condition names namespaces, or one does in another form.
func namespacesOf(conditions []admissionregistrationv1.MatchCondition) (s scope, understood bool) {
	for _, c := range conditions {
		if left := namespaceNotIn.FindStringSubmatch(c.Expression); left != nil {
			s.except = append(s.except, literals(literal.FindAllStringSubmatch(left[1], -1))...)
			continue
		}
		names := namespaceIs.FindAllStringSubmatch(c.Expression, -1)
		prefixes := namespaceStarts.FindAllStringSubmatch(c.Expression, -1)
		mentions := len(namespaceNamed.FindAllString(c.Expression, -1))
		switch {
		case mentions == 0:
			continue
		case mentions != len(names)+len(prefixes), understood, !onlyAlternatives(c.Expression):
			return scope{}, false
		}
		understood = true
		s.names = append(s.names, literals(names)...)
		s.prefixes = append(s.prefixes, literals(prefixes)...)
	}
	return s.sorted(), understood
}

func literals(found [][]string) []string {
	var list []string
	for _, groups := range found {
		list = append(list, groups[1]+groups[2]) // one of the two is empty
	}
	return list
}

// onlyAlternatives says whether an expression consists of namespace tests joined by || and nothing else.
func onlyAlternatives(expression string) bool {
	rest := namespaceStarts.ReplaceAllString(namespaceIs.ReplaceAllString(expression, ""), "")
	return strings.Trim(rest, " \t\r\n()|") == "" && !strings.Contains(strings.ReplaceAll(rest, "||", ""), "|")
}
