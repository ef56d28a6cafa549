package lifecycle

// AnnotationRenewedAt on the Deployment's Pod template is when somebody asked for what is injected today, in RFC 3339. An update touches
// only what the user changed, and this is a change of the template that changes nothing else: so a Deployment from before the
// installation becomes an agent, and an agent gets a new sidecar. It stays when the agent's manifest is applied again.
const AnnotationRenewedAt = Prefix + "renewed-at"
