# Run by scripts/vm on a machine where control groups are version 2 alone: a container with limits from its start to
# its removal, a daemon that is killed, and a service. Files: covey, and hello.tar, the example's image.
set -u
groups=/sys/fs/cgroup/covey
cp /files/covey /bin/covey

say() { echo "[$(cut -d. -f1 /proc/uptime) s] $*"; }
fail() { say "FAILED: $*"; tail -n 30 /var/log; exit 1; }
# is WHAT EXPECTED FOUND
is() { [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"; say "$1: $3"; }
# soon WHAT CMD…: waits for CMD to succeed.
soon() {
    local what=$1 tries=0; shift
    until "$@" >/dev/null 2>&1; do tries=$((tries + 1)); [ $tries -lt 300 ] || fail "waited in vain: $what"; sleep 0.1; done
    say "$what"
}
inspect() { covey container inspect "$1" | tr -d ' ",' | sed -n "s/^$2://p" | head -n 1; }
of() { echo "$groups/$(inspect "$1" Id)"; }
daemon() { covey daemon --pidfile /run/pid >>/var/log 2>&1 & soon "the daemon answers" covey version; }
event() { sed -n "s/^$2 //p" "$1"; }

daemon
covey info | grep -qi 'cgroup version: 2' || fail "info does not know version 2: $(covey info)"
mkdir -p /tmp/box/bin && cp /bin/busybox /tmp/box/bin/ && chroot /tmp/box /bin/busybox --install -s /bin
tar -cC /tmp/box . | covey import - box >/dev/null || fail "import"
covey load -i /files/hello.tar >/dev/null || fail "load"

covey run -d --name limits -m 64m --cpus 0.5 --pids-limit 20 box sh -c 'echo out; echo err >&2; trap "exit 3" TERM; while :; do sleep 0.1; done' >/dev/null || fail "run"
group=$(of limits)
is memory.max 67108864 "$(cat "$group/memory.max")"
is cpu.max "50000 100000" "$(cat "$group/cpu.max")"
is pids.max 20 "$(cat "$group/pids.max")"
is "memory.max inside" 67108864 "$(covey exec limits cat /sys/fs/cgroup/memory.max)"
soon "both streams are in the log" sh -c '[ "$(covey logs limits 2>/dev/null)" = out ] && [ "$(covey logs limits 2>&1 >/dev/null)" = err ]'
is "a process too many" "sh: can't fork: Resource temporarily unavailable" \
    "$(covey run --rm --pids-limit 20 box sh -c 'i=0; while [ $i -lt 30 ]; do sleep 9 & i=$((i + 1)); done' 2>&1)"
covey exec limits timeout 1 sh -c 'while :; do :; done'
[ "$(event "$group/cpu.stat" nr_throttled)" -gt 0 ] || fail "the limit of CPU does not hold"

is "a disk" "sh: can't open /disk: Operation not permitted" "$(covey run --rm box sh -c 'mknod /disk b 8 0 && : < /disk' 2>&1)"
is "memory of the machine, by exec" "sh: can't open /mem: Operation not permitted" "$(covey exec limits sh -c 'mknod /mem c 1 1 && : < /mem' 2>&1)"
is "/dev/zero" 4 "$(covey run --rm box sh -c 'head -c 4 /dev/zero | wc -c')"

covey run --name hungry -m 16m box tail /dev/zero
is "exit code without memory" 137 $?
is OOMKilled true "$(inspect hungry OOMKilled)"

kill -9 "$(cat /run/pid)"; daemon
is "state after the daemon's death" running "$(inspect limits Status)"
covey stop limits >/dev/null || fail "stop"
is "exit code when stopped" 3 "$(inspect limits ExitCode)"
covey rm limits hungry >/dev/null || fail "rm"

covey swarm init --advertise-addr 10.78.0.1 >/dev/null || fail "swarm init"
covey service create --name web --replicas 2 --limit-memory 32m --stop-grace-period 1s --no-resolve-image --detach hello:1 >/dev/null || fail "service create"
soon "two replicas run" sh -c "covey service ls | grep -q ' 2/2 '"
for id in $(covey ps -q); do
    is "memory.max of a task" 33554432 "$(cat "$(of "$id")/memory.max")"
    wget -qO - "http://$(inspect "$id" IPAddress)/" || fail "a task does not answer"
done
covey service rm web >/dev/null || fail "service rm"

soon "no groups are left" sh -c "! ls -d $groups/*/"
soon "no mounts are left" sh -c "! grep overlay /proc/mounts"
soon "no processes are left" sh -c '[ "$(pidof covey | wc -w)" = 1 ]'
is "links" "lo eth0 cvx4096" "$(ls /sys/class/net | sort -r | tr '\n' ' ' | sed 's/ $//')"

# In a container the topmost group is not the kernel's own, and holds processes.
kill "$(cat /run/pid)"
soon "the daemon ends" sh -c "! pidof covey"
mkdir /sys/fs/cgroup/guest && echo $$ > /sys/fs/cgroup/guest/cgroup.procs && mount --bind /sys/fs/cgroup/guest /sys/fs/cgroup
daemon
is "memory.max below a group with processes" 16777216 "$(covey run --rm -m 16m box cat /sys/fs/cgroup/memory.max)"
