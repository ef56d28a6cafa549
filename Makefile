# What there is to do here: `make help`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Asked once: a file that is saved meanwhile must not give the images of one run two tags.
VERSION := $(or $(VERSION),$(shell git describe --tags --always --dirty 2>/dev/null || echo dev))
IMAGE_PREFIX ?= ghcr.io/dexorder
IMAGES := lifecycle-webhook lifecycle-sidecar agent-gateway
GOARCH ?= $(shell go env GOARCH)

# go is told of nothing by a workspace file above this checkout.
export GOWORK := off

# Tools are built on demand, at the versions that tools/go.mod pins: a new version is a new file.
tool = .cache/bin/$(1)-$(shell sed -n 's|^\t\{0,1\}$(2) \(v[^ ]*\).*|\1|p' tools/go.mod)
BENCHSTAT := $(call tool,benchstat,golang.org/x/perf)
GOLANGCI_LINT := $(call tool,golangci-lint,github.com/golangci/golangci-lint/v2)
HELM := $(call tool,helm,helm.sh/helm/v3)
KIND := $(call tool,kind,sigs.k8s.io/kind)
KUSTOMIZE := $(call tool,kustomize,sigs.k8s.io/kustomize/kustomize/v5)
# The version of Kubernetes that everything is tested on; a helm built here knows none by itself.
KUBERNETES := $(shell sed -n 's|^require k8s.io/kubernetes v\([^ ]*\).*|\1|p' tools/kubernetes/go.mod)
$(BENCHSTAT): PACKAGE := golang.org/x/perf/cmd/benchstat
$(GOLANGCI_LINT): PACKAGE := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(HELM): PACKAGE := helm.sh/helm/v3/cmd/helm
$(KIND): PACKAGE := sigs.k8s.io/kind
$(KUSTOMIZE): PACKAGE := sigs.k8s.io/kustomize/kustomize/v5

$(BENCHSTAT) $(GOLANGCI_LINT) $(HELM) $(KIND) $(KUSTOMIZE):
	@mkdir -p $(@D)
	@CGO_ENABLED=0 tools/progress "building $(@F)" \
	  go build -v -modfile=tools/go.mod -trimpath -buildvcs=false -ldflags "-s -w" -o $@ $(PACKAGE)

##@ See it

.PHONY: help
help: ## Print this text.
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2} \
	  /^#- / {printf "  %17s %s\n", "", substr($$0, 4)}' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: ## Watch an agent live, and go, on a real control plane on this machine; Go is all it needs.
#- KEEP=1 leaves it running and says how to reach it.
	@echo "== lifecycle-webhook, lifecycle-manager, lifecycle-sidecar and demo"
	@tools/progress "building" env $(GO_BUILD) -v -o bin/ ./cmd/lifecycle-webhook ./cmd/lifecycle-manager ./cmd/lifecycle-sidecar ./demo
	@echo "== etcd, kube-apiserver, kube-controller-manager, kubectl"
	@assets=$$(tools/assets --with-controller-manager) && echo "$$assets" && KUBEBUILDER_ASSETS="$$assets" bin/demo

##@ Check it

# Packages are race-checked where cgo has its compiler.
CC_FOUND := $(shell [ "$$(go env CGO_ENABLED)" = 1 ] && command -v $$(go env CC))
RACE ?= $(if $(CC_FOUND),-race)

.PHONY: test
test: $(HELM) $(KUSTOMIZE) ## Run the tests, against a real API server too.
	@echo "== etcd, kube-apiserver, kube-controller-manager"
	@assets=$$(tools/assets --with-controller-manager) && echo "$$assets" && \
	echo "== go test $(or $(RACE),(without -race: no C compiler))" && \
	KUBEBUILDER_ASSETS="$$assets" HELM="$$PWD/$(HELM)" KUSTOMIZE="$$PWD/$(KUSTOMIZE)" go test $(RACE) -timeout 20m ./...
	@if command -v python3 >/dev/null; then \
	  echo "== the Python client, with $$(python3 --version)"; \
	  $(GO_BUILD) -o bin/ ./cmd/lifecycle-manager && cd clients/python && \
	  LIFECYCLE_MANAGER="$(CURDIR)/bin/lifecycle-manager" PYTHONDONTWRITEBYTECODE=1 python3 -m unittest discover -s tests -t .; \
	else echo "== the Python client is NOT tested: there is no python3"; fi

.PHONY: verify
verify: verify-format verify-vet verify-lint verify-modules verify-generated verify-manifests verify-docs ## Check everything that needs no cluster: format, lint, manifests, docs, modules.
#- make -k verify goes on after a failure.

.PHONY: bench
bench: $(BENCHSTAT) ## Measure, side by side with what else one could use.
	@assets=$$(tools/assets) && KUBEBUILDER_ASSETS="$$assets" BENCHSTAT="$$PWD/$(BENCHSTAT)" bench/run

.PHONY: bench-sidecar
bench-sidecar: ## Measure what a sidecar costs a Pod while its agent works; takes root, and 15 minutes.
	@$(GO_BUILD_SMALL) -o bin/ ./cmd/lifecycle-sidecar && bench/sidecar/run bin/lifecycle-sidecar

.PHONY: bench-lives
bench-lives: ## Measure how long agents take to go, on the kind cluster of E2E_KUBECONFIG, as make e2e leaves it.
	@go run ./bench/lives

.PHONY: bench-wake
bench-wake: ## Measure how long users wait for agents, on the kind cluster of E2E_KUBECONFIG, as make e2e leaves it.
	@go run ./bench/wake

.PHONY: bench-fleet
bench-fleet: ## Measure what audit, upgrade and list cost, side by side with kubectl get; takes three minutes.
#- SIZES=10000 measures a large fleet.
	@assets=$$(tools/assets) && KUBEBUILDER_ASSETS="$$assets" bench/fleet/run

.PHONY: bench-reaper
bench-reaper: ## Measure the reaper, side by side with a shell loop; takes ten minutes.
#- SIZES=100,1000,10000 DRAIN=5000 measures a large fleet, for an hour.
	@assets=$$(tools/assets --with-controller-manager) && KUBEBUILDER_ASSETS="$$assets" bench/reaper/run

.PHONY: bench-strangers
bench-strangers: ## Measure what strangers who reach the admission servers do to those who create agents.
#- CHECK=30s attacks for that long, and fails if a creation was refused or a server did not live through it.
	@assets=$$(tools/assets) && KUBEBUILDER_ASSETS="$$assets" bench/strangers/run

.PHONY: e2e
e2e: images e2e-images e2e-previous $(HELM) $(KIND) $(KUSTOMIZE) ## Run the end-to-end tests on a kind cluster of their own.
#- E2E_KUBECONFIG=FILE uses that kind cluster instead.
#- PREVIOUS=COMMIT is the version that the tests upgrade from.
	@KIND="$$PWD/$(KIND)" HELM="$$PWD/$(HELM)" KUSTOMIZE="$$PWD/$(KUSTOMIZE)" \
	  IMAGES="$(IMAGES:%=$(IMAGE_PREFIX)/%:$(VERSION))" E2E_AGENTS="$(E2E_AGENTS)" E2E_PYTHON_AGENT="$(PYTHON_AGENT)" \
	  E2E_PREVIOUS="$(PREVIOUS_DIR)" E2E_FIRST="$(FIRST_DIR)" tools/e2e

##@ Build it

# Static and stripped.
GO_BUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=auto -ldflags "-s -w -X main.version=$(VERSION)"
PROGRAMS = $(notdir $(wildcard cmd/*))

# The sidecar is in every agent's Pod. It asks one server for one thing, for which HTTP/1.1 is enough.
SMALL := lifecycle-sidecar
GO_BUILD_SMALL = $(GO_BUILD) -tags nethttpomithttp2

.PHONY: build
build: ## Build the programs into bin/.
	$(GO_BUILD) -o bin/ $(addprefix ./cmd/,$(filter-out $(SMALL),$(PROGRAMS)))
	$(GO_BUILD_SMALL) -o bin/ $(SMALL:%=./cmd/%)

.PHONY: images
images: ## Build the container images, tagged VERSION; nothing is pulled.
	GOOS=linux GOARCH=$(GOARCH) $(GO_BUILD) -o bin/linux-$(GOARCH)/ $(addprefix ./cmd/,$(filter-out $(SMALL),$(IMAGES)))
	GOOS=linux GOARCH=$(GOARCH) $(GO_BUILD_SMALL) -o bin/linux-$(GOARCH)/ $(SMALL:%=./cmd/%)
	for program in $(IMAGES); do \
	  case " $(SMALL) " in *" $$program "*) target=small;; *) target=program;; esac; \
	  docker build --quiet --platform linux/$(GOARCH) --target $$target --build-arg BINARY=bin/linux-$(GOARCH)/$$program \
	    --tag $(IMAGE_PREFIX)/$$program:$(VERSION) .; \
	done

# The agents of the end-to-end tests, and the sidecar by the tag that the policy names and as one for older kernels.
SIDECAR = $(IMAGE_PREFIX)/lifecycle-sidecar
POLICY_SIDECAR = $(shell sed -n 's/^  image: //p' manifests/base/policy.yaml)
PYTHON_AGENT = $(IMAGE_PREFIX)/e2e-agent-python:e2e
E2E_AGENTS = $(IMAGE_PREFIX)/e2e-agent:e2e $(POLICY_SIDECAR) $(SIDECAR):e2e-file

.PHONY: e2e-images
e2e-images: images
	CGO_ENABLED=0 GOOS=linux GOARCH=$(GOARCH) go build -trimpath -ldflags "-s -w" -o bin/linux-$(GOARCH)/e2e-agent ./e2e/agent
	$(GO_BUILD) -o bin/linux-$(GOARCH)/ ./cmd/lifecycle-manager
	docker build --quiet --build-arg DIR=bin/linux-$(GOARCH) --file e2e/agent/Dockerfile --tag $(IMAGE_PREFIX)/e2e-agent:e2e .
	docker tag $(SIDECAR):$(VERSION) $(POLICY_SIDECAR)
	printf 'FROM %s\nENTRYPOINT ["/program", "--exit-status=file"]\n' $(SIDECAR):$(VERSION) | \
	  docker build --quiet --tag $(SIDECAR):e2e-file -
	tools/python-image $(PYTHON_AGENT) e2e/python-agent/agent.py || echo "the Python agent is NOT built: there is no python3 to make it of"

# The version that the tests upgrade from, with its own manifests and programs.
PREVIOUS_DIR = $(CURDIR)/.cache/previous

# The first release, whose agents run on in every later version.
FIRST = 41c3f2c
FIRST_DIR = $(CURDIR)/.cache/first

.PHONY: e2e-previous
e2e-previous:
	@IMAGE_PREFIX="$(IMAGE_PREFIX)" GOARCH="$(GOARCH)" tools/previous "$(PREVIOUS_DIR)" "$(PREVIOUS)"
	@IMAGE_PREFIX="$(IMAGE_PREFIX)" GOARCH="$(GOARCH)" tools/previous "$(FIRST_DIR)" "$(FIRST)" "$(PREVIOUS_DIR)"

.PHONY: clean
clean: ## Remove what was built in this checkout.
	rm -rf bin .cache

# The parts of verify.

.PHONY: verify-format
verify-format:
	@echo "== gofmt"
	@files=$$(git ls-files --cached --others --exclude-standard '*.go' | xargs gofmt -l) && \
	[ -z "$$files" ] || { echo "not formatted (gofmt -w):"; echo "$$files"; exit 1; }

.PHONY: verify-vet
verify-vet:
	@echo "== go vet"
	@go vet -tags e2e ./...

.PHONY: verify-lint
verify-lint: $(GOLANGCI_LINT)
	@echo "== golangci-lint"
	@$(GOLANGCI_LINT) run

.PHONY: verify-modules
verify-modules:
	@untidy=; for module in $$(git ls-files --cached --others --exclude-standard go.mod '*/go.mod'); do \
	  echo "== go mod tidy: $$module"; \
	  go -C "$$(dirname $$module)" mod tidy -diff || untidy+=" $$module"; \
	done; \
	[ -z "$$untidy" ] || { echo "not tidy (go mod tidy):$$untidy"; exit 1; }

.PHONY: verify-generated
verify-generated: $(KUSTOMIZE)
	@echo "== go generate"
	@KUSTOMIZE="$$PWD/$(KUSTOMIZE)" tools/unchanged go generate ./...

.PHONY: verify-manifests
verify-manifests: $(HELM) $(KUSTOMIZE)
	@for overlay in manifests/overlays/*/ manifests/removal/ manifests/role-namespace/overlays/*/; do \
	  echo "== kustomize build $$overlay"; \
	  $(KUSTOMIZE) build "$$overlay" >/dev/null; \
	done
	@for values in charts/agent-lifecycle/values*.yaml; do \
	  echo "== helm lint $$values"; \
	  $(HELM) lint charts/agent-lifecycle --strict --quiet --kube-version $(KUBERNETES) --values "$$values"; \
	done

.PHONY: verify-docs
verify-docs:
	@echo "== commands and metrics in the documentation"
	@tools/check-docs
