#!/usr/bin/env bash
# run.sh PROGRAMS [SEED]: what only a machine of one's own can show, in an emulated one: limits by control groups of version 2, a clock that is set back
# and forth, and power that is cut while apiserver and kubelet write. Needs qemu-system-x86 and busybox-static; takes some minutes and leaves nothing running.
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: $0 PROGRAMS [SEED]" >&2; exit 2; }
programs=$(cd "$1" && pwd)
seed=${2:-$RANDOM}
RANDOM=$seed
cd "$(dirname "$0")/../.."
. .ci/tools.sh
.ci/machine/image.sh "$cache/machine" "$programs"

work=$(mktemp -d)
machine=
conclude() {
    local status=$?
    # It may have ended by itself.
    [ -z "$machine" ] || kill -9 "$machine" 2> /dev/null || true
    if [ $status != 0 ]; then tail -n 60 "$work/console"; fi
    rm -rf "$work"
}
trap conclude EXIT

new_disk() { rm -f "$work/disk"; truncate -s 1G "$work/disk"; mkfs.ext4 -q "$work/disk"; }
# Starts the machine on its disk, for this step. What it says is in $work/console.
start() {
    : > "$work/console"
    qemu-system-x86_64 -m 2048 -smp 2 -display none -nic none -no-reboot -serial "file:$work/console" -kernel "$cache/machine/kernel" -initrd "$cache/machine/initrd" \
        -append "console=ttyS0 quiet panic=-1 step=$1" -drive "file=$work/disk,if=virtio,format=raw" < /dev/null &
    machine=$!
}
# Until the console has this, for ten minutes at most.
until_said() {
    local end=$((SECONDS + 600))
    until grep -aqs "$1" "$work/console"; do
        if [ "$SECONDS" -gt "$end" ] || grep -aq "^FAILED" "$work/console" || ! kill -0 "$machine" 2> /dev/null; then
            grep -aqs "$1" "$work/console" && return
            echo "the machine never said \"$1\""
            return 1
        fi
        sleep 0.05
    done
}
told() { grep -a "^ok" "$work/console" | tr -d '\r'; }
until_off() {
    until_said "^DONE"
    wait "$machine"
    machine=
    told
}
cut_power() {
    kill -9 "$machine" 2> /dev/null || true
    wait "$machine" 2> /dev/null || true
    machine=
    told
}

for step in ${BLUEBIRD_MACHINE_STEPS-limits clock}; do
    echo "== $step =="
    new_disk
    start "$step"
    until_off
done

echo "== power cuts: SEED=$seed =="
new_disk
acked=0
rounds=${BLUEBIRD_POWER_CUTS:-6}
for ((round = 1; round <= rounds; round++)); do
    start "round-$round-$acked"
    if ((round % 2)); then
        # At once: whatever is not on the disk when the process starts is lost.
        until_said "STARTED once-$round"
    else
        until_said "^CUT"
        sleep "$((RANDOM % 4)).$((RANDOM % 10))"
    fi
    cut_power
    acked=$(sed -n 's/^ACKED \([0-9]*\).*/\1/p' "$work/console" | sort -n | tail -n 1 | grep . || echo "$acked")
    cat "$work/console" >> "$work/all"
done
start "round-$round-$acked"
until_said "^CUT"
cut_power
cat "$work/console" >> "$work/all"
for ((round = 1; round <= rounds; round++)); do
    starts=$(grep -ac "^STARTED once-$round"$'\r' "$work/all" || true)
    [ "$starts" -le 1 ] || { echo "once-$round was started $starts times"; exit 1; }
done
[ "$(grep -ac "^STARTED job"$'\r' "$work/all")" = 1 ] || { echo "the job was started again"; exit 1; }
echo "ok: $rounds power cuts, $acked acknowledged writes, none lost; nothing that was to run once ran twice"
