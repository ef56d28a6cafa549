package lifecycle

// What the API server says of whoever calls it with a token that is bound to a Pod: keys of userInfo.extra, with one value
// each. It issues such tokens to the containers of that Pod, and takes them no longer than the Pod exists.
const (
	ExtraPodName = "authentication.kubernetes.io/pod-name"
	ExtraPodUID  = "authentication.kubernetes.io/pod-uid"
)
