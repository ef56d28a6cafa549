#!/usr/bin/env bash
# The reaper as a shell script, as far as it only looks: the list of namespaces, then three calls for each.
#
#   shell-loop.sh ORG [SAMPLE]     KUBECTL is the program
#
# With SAMPLE it looks at so many namespaces only. It prints the names of those that it would delete.
set -euo pipefail

org=$1 sample=${2:-}
threshold=3600 # seconds

namespaces=$("$KUBECTL" get namespaces -l "org=$org" -o jsonpath='{.items[*].metadata.name}')
read -ra names <<<"$namespaces" || true
for ns in "${names[@]:0:${sample:-${#names[@]}}}"; do
  protected=$("$KUBECTL" get namespace "$ns" -o jsonpath='{.metadata.annotations.do-not-reap}')
  [ "$protected" = true ] && continue

  running=$("$KUBECTL" get pods -n "$ns" --field-selector=status.phase=Running -o name | wc -l)
  [ "$running" -gt 0 ] && continue

  last=$("$KUBECTL" get namespace "$ns" -o jsonpath='{.metadata.annotations.last-pod-activity}')
  now=$(date +%s)
  [ $((now - last)) -lt "$threshold" ] && continue

  echo "$ns"
done
