# Run by scripts/vm on a stock kernel: two hosts, one of them in namespaces of its own, form a cluster; a network across
# both with names and virtual addresses, and published ports that keep the client's address. Files: covey, hello.tar, sctp.
set -u
cp /files/covey /bin/covey
say() { echo "[$(cut -d. -f1 /proc/uptime) s] $*"; }
fail() { say "FAILED: $*"; tail -n 20 /log.a /log.b; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"; say "$1: $3"; }
# soon WHAT CMD…: waits for CMD to succeed.
soon() {
    local what=$1 tries=0; shift
    until "$@" >/dev/null 2>&1; do tries=$((tries + 1)); [ $tries -lt 300 ] || fail "waited in vain: $what"; sleep 0.1; done
    say "$what"
}
b() { nsenter -t "$(cat /b.pid)" -n -m "$@"; }
daemon_a() { covey daemon --pidfile /run/pid >>/log.a 2>&1 & soon "host a answers" covey version; }

ip link add va type veth && ip link set veth0 name vb && ip addr add 10.79.0.1/24 dev va && ip link set va up || fail "a veth pair"
unshare -n -m -u sh -c 'echo $$ > /b.pid; hostname hostb; mount -t tmpfs run /run; mkdir -p /var/lib; mount -t tmpfs lib /var/lib; touch /b.ready
    while [ ! -e /b.go ]; do sleep 0.05; done; exec covey daemon --cgroup-parent /coveyb >>/log.b 2>&1' &
soon "host b is there" test -e /b.ready
ip link set vb netns "$(cat /b.pid)"
b ip link set lo up; b ip addr add 10.79.0.2/24 dev vb; b ip link set vb up; b ip route add default via 10.79.0.1
touch /b.go
daemon_a
soon "host b answers" b covey version

covey swarm init --advertise-addr 10.79.0.1 >/dev/null || fail "swarm init"
# An emulated machine may be too slow for a deadline now and then.
soon "host b joins" b covey swarm join --token "$(covey swarm join-token -q worker)" 10.79.0.1:2377
mkdir -p /tmp/box/bin && cp /bin/busybox /files/sctp /tmp/box/bin/ && chroot /tmp/box /bin/busybox --install -s /bin
tar -cC /tmp/box . > /tmp/box.tar
for host in "" b; do
    $host covey import - box < /tmp/box.tar >/dev/null || fail "import"
    $host covey load -i /files/hello.tar >/dev/null || fail "load"
done
soon "the edge reaches from host to host" ping -c 1 -W 1 100.64.2.0
soon "so does it with IPv6" ping -c 1 -W 1 fd00:c0e7:0:2::

covey network create -d overlay --ipv6 front >/dev/null || fail "network create"
covey service create --name web --replicas 2 --network front --publish 8080:80 --no-resolve-image --detach hello:1 >/dev/null || fail "service create"
covey service create --name box --replicas 2 --network front --no-resolve-image --detach box sleep 1000 >/dev/null || fail "service create"
soon "two replicas run" sh -c "covey service ls | grep -q 'web .* 2/2 '"
soon "of both services" sh -c "covey service ls | grep -q 'box .* 2/2 '"
box=$(covey ps | sed -n 's/^\([0-9a-f]*\) .*box:latest.*/\1/p' | head -n 1)
inside() { covey exec "$box" "$@"; }
vip=$(inside nslookup web 2>/dev/null | sed -n 's/^Address: \(10\..*\)/\1/p')
is "the service's virtual address" 10.0.0.2 "$vip"
is "tasks by name" 2 "$(inside nslookup tasks.web 2>/dev/null | grep -c '^Address: 10\.')"
ask() { inside sh -c "echo 'GET / HTTP/1.0' | nc -w 3 $1 80" | sed -n 's/.*\(host [0-9a-f]*\) .*/\1/p'; }
both() { [ "$(for i in 1 2 3 4 5 6 7 8 9 10; do ask "$1"; done | sort -u | wc -l)" = 2 ]; }
soon "both tasks answer behind it" both web
for address in $(inside nslookup tasks.web 2>/dev/null | sed -n 's/^Address: //p'); do
    [ -n "$(ask "$address")" ] || fail "a task does not answer at $address"
done
grep -q "every packet goes the kernel's own way" /log.a /log.b && fail "this kernel has no flow cache"
say "both hosts have the flow cache"

get() { echo 'GET / HTTP/1.0' | nc -w 3 "$1" 8080; }
answers() { for i in 1 2 3 4 5 6 7 8 9 10; do echo 'GET / HTTP/1.0' | b nc -w 3 10.79.0.1 8080; done; }
is "tasks that answer at a's published port" 2 "$(answers | sed -n 's/.*\(host [0-9a-f]*\) .*/\1/p' | sort -u | wc -l)"
for host in 127.0.0.1 10.79.0.1 10.79.0.2; do
    get $host | grep -q '^host' || fail "no answer at $host:8080"
done
answers | grep -q 'client 10.79.0.2' || fail "no task saw the client: $(answers)"
say "the client's address is kept"

covey service create --name sctp --constraint node.hostname==vm --network front --publish 7000:7000/sctp --no-resolve-image --detach box sctp serve 7000 >/dev/null || fail "service create"
by_name() { inside sctp ask "$(inside nslookup sctp | sed -n 's/^Address: \(10\..*\)/\1/p'):7000"; }
soon "a service of SCTP answers behind its virtual address" by_name
is "its client at the published port" 10.79.0.2 "$(b /files/sctp ask 10.79.0.1:7000)"

kill -9 "$(cat /run/pid)"; daemon_a
[ -n "$(ask web)" ] || fail "names are lost with the daemon"
ip route del 100.64.2.0/24
soon "a lost way comes back" sh -c "ip route | grep -q '^100.64.2.0/24 via'"
covey service rm web box sctp >/dev/null && soon "the network can go" covey network rm front
b covey swarm leave >/dev/null || fail "leave"
covey swarm leave --force >/dev/null || fail "leave"
soon "no links are left" sh -c '! ls /sys/class/net | grep -q ^cv'
soon "no networks are left" sh -c '! ls /run/covey/netns | grep -q .'
