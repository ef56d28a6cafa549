package fleet

// Writer writes an audit as it goes, so that a fleet of any size takes little memory.
type Writer interface {
	Report(*Report) error

	// Add writes what another part has found. It comes after the last Report.
	Add(Addition) error

	End(Summary) error
}

// Addition is what another part has found that an audit tells of.
type Addition struct {
	// Key is where programs find Value.
	Key   string
	Value any

	// Text says the same to people, in lines that are fit for a terminal.
	Text string
}

// Basis is what an audit judges by.
type Basis struct {
	// Policy says in words where it is from, Hash which it is.
	Policy string `json:"policy"`
	Hash   string `json:"hash"`

	// Preview says that it is not in force, and Installed that there is one in force.
	Preview   bool `json:"preview"`
	Installed bool `json:"installed"`

	// RulesRevision is the policy's, and AuditedOnly are the rules that are audited because they are newer.
	RulesRevision int32    `json:"rulesRevision,omitempty"`
	AuditedOnly   []string `json:"auditedOnly,omitempty"`

	// InForce are the rules that are not enforced on agents of any age. RecordProblem says why that could not be read.
	InForce       []InForce `json:"inForce,omitempty"`
	RecordProblem string    `json:"recordProblem,omitempty"`
}
