#!/usr/bin/env bash
# curl.sh URL: what a person does from a shell, with `buf curl` and nothing but the server's reflection. Needs buf in PATH.
set -euo pipefail

url=$1
service=$url/bluebird.v1.ControlPlaneService
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

call() { timeout 20 buf curl --protocol grpc --http2-prior-knowledge "$service/$1" -d "$2"; }
fail() {
    echo "buf curl: $1" >&2
    shift
    cat "$@" >&2
    exit 1
}
# Whether a file contains this JSON, however it is spaced.
has() { tr -d ' \n' < "$1" | grep -qF "$2"; }

call Create '{"object":{"pod":{"metadata":{"name":"curl"},"spec":{"nodeName":"nowhere","containers":[{"name":"main","command":["sleep","60"]}]}}}}' > "$out/created"
has "$out/created" '"name":"curl"' || fail "the answer to Create is not the pod" "$out/created"
echo "buf curl: creates a pod: ok"

call List '{"selector":{"kind":"Pod"}}' > "$out/listed"
has "$out/listed" '"name":"curl"' || fail "the pod is not in the list" "$out/listed"
echo "buf curl: lists it: ok"

# The watch has no end of its own: after two seconds it is ended, which is what the status 124 says.
status=0
timeout 2 buf curl --protocol grpc --http2-prior-knowledge "$service/Watch" -d '{"selectors":[{"kind":"Pod"}],"sendInitial":true}' > "$out/watched" 2> "$out/why" || status=$?
[ "$status" = 124 ] || fail "the watch ended by itself with status $status" "$out/watched"
has "$out/watched" '"type":"TYPE_ADDED"' && has "$out/watched" '"synced":true' || fail "the watch does not begin with the pod" "$out/watched"
echo "buf curl: watches it: ok"

if call Create '{"object":{"pod":{"metadata":{"name":"curl"},"spec":{"containers":[{"name":"main","command":["sleep","60"]}]}}}}' > "$out/again" 2>&1; then
    fail "a second pod of the same name was taken" "$out/again"
fi
has "$out/again" '"code":"already_exists"' || fail "not refused as already_exists" "$out/again"
echo "buf curl: is told that it exists: ok"

call Delete '{"ref":{"kind":"Pod","name":"curl"},"gracePeriodSeconds":0}' > "$out/deleted"
call List '{"selector":{"kind":"Pod"}}' > "$out/listed"
has "$out/listed" '"name":"curl"' && fail "the deleted pod is still in the list" "$out/listed"
echo "buf curl: deletes it: ok"
