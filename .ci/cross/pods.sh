#!/usr/bin/env bash
# pods.sh WINDOWS-PROGRAMS LINUX-PROGRAMS [CONFORMANCE-FLAG...]: a node of Windows, under Wine, joins an apiserver of Linux, also as a service, and its pods do
# what pods do. Takes two minutes; leaves nothing running.
set -euo pipefail

[ $# -ge 2 ] || { echo "usage: $0 WINDOWS-PROGRAMS LINUX-PROGRAMS [CONFORMANCE-FLAG...]" >&2; exit 2; }
windows=$(cd "$1" && pwd)
linux=$(cd "$2" && pwd)
shift 2
cd "$(dirname "$0")/../.."
. .ci/tools.sh
. .ci/cross/wine.sh
use_wine "$cache/wine"

work=$(mktemp -d)
apiserver=
# Wine's folder is kept, and with it a service that a run has left behind.
leave_no_service() { for what in stop delete; do timeout 20 wine sc "$what" bluebird-kubelet > /dev/null 2>&1 || true; done; }
conclude() {
    local status=$?
    leave_no_service
    # All that runs in this folder of Wine's was started here.
    wineserver_of_prefix --kill || true
    [ -z "$apiserver" ] || kill "$apiserver"
    if [ $status != 0 ]; then tail -n 20 "$work"/*.log "$work"/root/kubelet.log "$work"/root/pods/*/shim.log || true; fi
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
root="Z:${work//\//\\}\\root"
start_kubelet() {
    wine "$windows/kubelet.exe" --root-dir "$root" --node-name wine >> "$work/kubelet.log" 2>&1 &
    kubelet=$!
}
is_ready() { bluebird get nodes 2> /dev/null | grep -q "wine *Ready"; }
start_kubelet
await "a node of Windows joins" is_ready
# A limit that is taken and forgotten is none.
not grep -q -- '-limits$' <(bluebird get node wine -o yaml)
echo "ok: it says that it enforces no limits, since Wine doesn't"
not grep -q -- '- stop\.' <(bluebird get node wine -o yaml)
echo "ok: it says that it can't ask its pods to end, since Wine delivers no Ctrl-Break"

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

# Once more as a service, whose process has neither console nor job of the one before.
sc() { wine sc "$@" | tr -d '\r'; }
is_service() { sc query bluebird-kubelet | grep -q "STATE .* $1"; }
count() { grep -c "$1" "$work/root/kubelet.log"; }
has_begun() { [ "$(count "adopting a pod that runs")" = "$1" ]; }
kill -INT "$kubelet"
wait "$kubelet"
leave_no_service
sc create bluebird-kubelet binPath= "\"Z:${windows//\//\\}\\kubelet.exe\" --server $BLUEBIRD_SERVER --root-dir \"$root\" --node-name wine"
sc start bluebird-kubelet > "$work/sc.log"
await "a service takes the pod over, and writes its log" has_begun 1
is_service RUNNING
is "$first" answer "$port"
sc stop bluebird-kubelet > "$work/sc.log"
await "it ends when the service control manager says so" is_service STOPPED
is "the service control manager" sed -n 's/.*kubelet ended.* signal="\(.*\)".*/\1/p' "$work/root/kubelet.log"
is "$first" answer "$port"
echo "ok: its pod outlives it"
sc start bluebird-kubelet > "$work/sc.log"
await "the service that is started again takes the pod over" has_begun 2
sc stop bluebird-kubelet > "$work/sc.log"
await "it ends again" is_service STOPPED
sc delete bluebird-kubelet > "$work/sc.log"
is "$first" answer "$port"
start_kubelet
await "the node is ready without a service" is_ready

shim=$(pgrep -f "kubelet.exe shim .*$(basename "$work")")
kill -9 "$shim"
is_another() { local now; now=$(answer "$port") && [ "$now" != "$first" ]; }
await "what a dead shim leaves has ended, and the pod runs again on the same port" is_another

bluebird delete pod web
await "a deleted pod's process is gone, though Wine delivers no Ctrl-Break" not has_answer "$port"
is_empty() { [ -z "$(ls "$work/root/pods")" ]; }
await "nothing is left of it" is_empty
is_told() { bluebird get events | grep -q "FailedStop .*Ctrl-Break can't be sent"; }
await "that it could not be asked to end is told" is_told

# Everything else that is promised. What Wine can't do its nodes don't say that they can.
echo "conformance:"
bluebird conformance --node wine --parallel 4 --timeout 30s "$@" > "$work/conformance.txt" || failed=$?
grep -v '^ok' "$work/conformance.txt"
is 0 echo "${failed:-0}"
echo "ok: every case that its node says it can do"
