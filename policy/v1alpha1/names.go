package v1alpha1

// What a name in a policy file may hold beside an exact name.
const (
	// Placeholder stands for the agent's name.
	Placeholder = "{deployment}"

	// Any, alone, stands for every name.
	Any = "*"
)
