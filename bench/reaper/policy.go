package main

import (
	"fmt"
	"os"

	"sigs.k8s.io/yaml"
)

// org is the fleet's.
const org = "genbrain"

// writePolicy writes the policy with other settings of the reaper. As a ConfigMap's volume does it, the new file takes the old one's
// place at once.
func writePolicy(from, to string, change func(reaper map[string]any)) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var policy map[string]any
	if err := yaml.Unmarshal(text, &policy); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	reaper, is := policy["reaper"].(map[string]any)
	if !is {
		return fmt.Errorf("%s has no reaper", from)
	}
	change(reaper)
	if text, err = yaml.Marshal(policy); err != nil {
		return err
	}
	if err := os.WriteFile(to+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}
