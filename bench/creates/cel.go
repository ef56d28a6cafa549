package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

//go:embed cel.yaml
var celPolicies []byte

func admissionPolicies(ctx context.Context, b *benchmark, _ *variant) error {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(celPolicies), 4096)
	for {
		o := &unstructured.Unstructured{}
		switch err := decoder.Decode(&o.Object); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("cel.yaml: %w", err)
		}
		if err := b.installation.Client.Create(ctx, o); err != nil {
			return err
		}
	}
}
