#!/usr/bin/env bash
# Clients in other languages against a real apiserver. Needs cargo, python3 with venv, and npm; fetches the rest from the package registries.
# APISERVER and KUBELET name executables that are built already.
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/tools.sh

work=$(mktemp -d)
server=
node=
clean_up() {
    for program in $node $server; do
        kill "$program" 2>/dev/null || true
        wait "$program" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT

if [ -z "${APISERVER:-}" ]; then
    cargo build --bin apiserver
    APISERVER=${CARGO_TARGET_DIR:-target}/debug/apiserver
fi
if [ -z "${KUBELET:-}" ]; then
    cargo build --bin kubelet
    KUBELET=${CARGO_TARGET_DIR:-target}/debug/kubelet
fi
use_buf
python=$(python_with clients "grpcio-tools~=1.85.0" "grpcio-reflection~=1.85.0" "grpcio-status~=1.85.0")
mkdir "$work/generated"
"$python" -m grpc_tools.protoc -Iproto --python_out="$work/generated" --grpc_python_out="$work/generated" proto/bluebird/v1/*.proto

RUST_LOG=info NO_COLOR=1 "$APISERVER" --data-dir "$work/data" --listen 127.0.0.1:0 > "$work/log" 2>&1 &
server=$!
address=
for _ in $(seq 300); do
    address=$(grep listening "$work/log" | grep -oE '127\.0\.0\.1:[0-9]+' | head -n 1) && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
if [ -z "$address" ]; then
    echo "the apiserver does not listen:" >&2
    cat "$work/log" >&2
    exit 1
fi

NO_COLOR=1 "$KUBELET" --server "http://$address" --node-name python --root-dir "$work/node" --no-routes > "$work/node.log" 2>&1 &
node=$!

status=0
PYTHONPATH=$work/generated timeout 120 "$python" tests/clients/client.py "$address" || status=$?
[ "$status" != 0 ] || timeout 120 bash tests/clients/curl.sh "http://$address" || status=$?
if [ "$status" != 0 ]; then
    echo "failed with status $status; what apiserver and kubelet said:" >&2
    cat "$work/log" "$work/node.log" >&2
fi
exit "$status"
