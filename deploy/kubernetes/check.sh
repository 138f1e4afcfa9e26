#!/usr/bin/env bash
# usage: deploy/kubernetes/check.sh TOOLS
#
# Builds the example and holds it against Kubernetes' own schemas, without a cluster; TOOLS is the folder that pip put
# yamllint and kubernetes-validate into. Of the operators' kinds there are no schemas to be had: of these, as of all
# names, ports and settings, tests/it/documents/kubernetes.rs compares what it can.
set -euo pipefail
PYTHONPATH=$(realpath "${1:?}")
export PYTHONPATH PYTHONDONTWRITEBYTECODE=1
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly OPERATORS='Cluster PodMonitor RabbitmqCluster ScaledObject '

made=$(mktemp)
trap 'rm -f "$made"' EXIT

python3 -m yamllint --strict --config-file yamllint.conf ./*/*.yaml
# Debian 12's kubectl is from before kustomize knew what the example says: there its parts are looked at, unbuilt.
if kubectl version --client 2>/dev/null | grep -q '^Kustomize Version: v[5-9]'; then
  kubectl kustomize example >"$made"
else
  echo "kubectl is older than 1.27: the example is not built, its parts are checked one by one" >&2
  find base servers example/namespace.yaml -name '*.yaml' ! -name kustomization.yaml -exec cat {} + >"$made"
fi
said=$(python3 -m kubernetes_validate --strict "$made" 2>&1) || {
  printf '%s\n' "$said" | grep -v ' passed ' >&2
  exit 1
}
unknown=$(sed -n "s/^WARN .*schema for kind \([A-Za-z]*\) .*/\1/p" <<<"$said" | sort | tr '\n' ' ')
[[ $unknown == "$OPERATORS" ]] || {
  echo "kinds that Kubernetes does not know: $unknown" >&2
  exit 1
}
echo "$(grep -c ' passed ' <<<"$said") resources are as Kubernetes wants them, 4 are left to their operators"
