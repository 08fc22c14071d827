#!/usr/bin/env bash
# pods.sh WINDOWS-PROGRAMS LINUX-PROGRAMS: a node of Windows, under Wine, joins an apiserver of Linux, and its pods do what pods do. Takes two minutes; leaves
# nothing running.
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: $0 WINDOWS-PROGRAMS LINUX-PROGRAMS" >&2; exit 2; }
windows=$(cd "$1" && pwd)
linux=$(cd "$2" && pwd)
cd "$(dirname "$0")/../.."
. .ci/tools.sh
. .ci/cross/wine.sh
use_wine "$cache/wine"

work=$(mktemp -d)
apiserver=
conclude() {
    local status=$?
    # All that runs in this folder of Wine's was started here.
    wineserver_of_prefix --kill || true
    [ -z "$apiserver" ] || kill "$apiserver"
    if [ $status != 0 ]; then tail -n 20 "$work"/*.log "$work"/root/pods/*/shim.log || true; fi
    rm -rf "$work"
}
trap conclude EXIT

# await WHAT COMMAND...: until it is so, for a minute at most.
await() {
    local end=$((SECONDS + 60))
    until "${@:2}"; do
        [ "$SECONDS" -lt "$end" ] || { echo "this did not come: $1"; return 1; }
        sleep 0.2
    done
    echo "ok: $1"
}
bluebird() { "$linux/bluebird" "$@"; }
status_of() { bluebird get pod "$1" -o yaml 2> /dev/null | awk -v field="$2:" '$1 == field { print $2; exit }'; }
# What is answered at a port; false when nothing is.
answer() {
    (exec 3<> "/dev/tcp/127.0.0.1/$1" && printf 'GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n' >&3 && grep -a "Hello from" <&3) 2> /dev/null
}
# For conditions: what is given, and nothing else.
is() { [ "$("${@:2}")" = "$1" ]; }
not() { ! "$@"; }
has_answer() { answer "$1" > /dev/null; }

"$linux/apiserver" --data-dir "$work/data" --listen 127.0.0.1:0 > "$work/apiserver.log" 2>&1 &
apiserver=$!
await "the apiserver listens" grep -qs 'url=' "$work/apiserver.log"
BLUEBIRD_SERVER=$(sed -n 's/.*url="\([^"]*\)".*/\1/p' "$work/apiserver.log" | head -n 1)
export BLUEBIRD_SERVER

# Starts the node; its process on this system is $kubelet.
start_kubelet() {
    wine "$windows/kubelet.exe" --root-dir "Z:${work//\//\\}\\root" --node-name wine >> "$work/kubelet.log" 2>&1 &
    kubelet=$!
}
is_ready() { bluebird get nodes 2> /dev/null | grep -q "wine *Ready"; }
start_kubelet
await "a node of Windows joins" is_ready
# A limit that is taken and forgotten is none.
not grep -q -- '-limits$' <(bluebird get node wine -o yaml)
echo "ok: it says that it enforces no limits, since Wine doesn't"

cat > "$work/pod.yaml" <<YAML
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: main
    command: [bluebird, echo, --name, web, --port, \$(PORT)]
    ports: [{name: http}]
  terminationGracePeriodSeconds: 2
YAML
bluebird apply -f "$work/pod.yaml"
await "a pod runs" is Running status_of web phase
port=$(status_of web port)
await "it answers" has_answer "$port"
is_logged() { bluebird logs web | grep -q "listens on"; }
await "its log can be read" is_logged

first=$(answer "$port")
kill -9 "$kubelet"
wait "$kubelet" || true
has_answer "$port"
echo "ok: it goes on when its kubelet is killed"
start_kubelet
await "the next kubelet takes it over" grep -q "adopting a pod that runs" "$work/kubelet.log"
is "$first" answer "$port"
echo "ok: the same process answers"

shim=$(pgrep -f "kubelet.exe shim .*$(basename "$work")")
kill -9 "$shim"
is_another() { local now; now=$(answer "$port") && [ "$now" != "$first" ]; }
await "what a dead shim leaves has ended, and the pod runs again on the same port" is_another

bluebird delete pod web
await "a deleted pod's process is gone, though Wine delivers no Ctrl-Break" not has_answer "$port"
is_empty() { [ -z "$(ls "$work/root/pods")" ]; }
await "nothing is left of it" is_empty

# Everything else that is promised. Under Wine no Ctrl-Break arrives, so what is asked to end by it isn't.
unshown="stop.asked-first stop.by-ctrl-break stop.failed-method stop.failed-pre-stop stop.pre-stop-command stop.pre-stop-http"
echo "conformance:"
bluebird conformance --node wine --parallel 4 --timeout 30s > "$work/conformance.txt" || true
grep -v '^ok' "$work/conformance.txt"
failed() { awk '$1 == "FAILED" { print $2 }' "$work/conformance.txt" | sort | xargs; }
is "$unshown" failed
echo "ok: every case but those that Wine can't show"
