package v1alpha1

import (
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"
)

func FuzzDecode(f *testing.F) {
	f.Add(Example())
	f.Add([]byte(minimal))
	f.Add([]byte(explicit))
	refused, err := filepath.Glob("testdata/refused/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range refused {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Decode(data)
		if err != nil {
			if most := (maxErrors + 1) * (maxLine + len("…\n")); len(err.Error()) > most {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		written, err := yaml.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(written)
		if err != nil {
			t.Fatalf("what was read and written is refused: %v\n%s", err, written)
		}
		if d := diff(file, again); d != "" {
			t.Fatalf("what was read and written is read otherwise (-first +again):\n%s", d)
		}
	})
}
