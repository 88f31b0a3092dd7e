"""The figures of networks: each beside what it is compared with, measured in turns on the same hosts in the same minute."""
import contextlib, ctypes, os, re, select, signal, socket, statistics, subprocess, time
from cluster import IMAGE, PAYLOAD, POLL, ROOT, Cluster, image, wait

OUTSIDE = "10.77.0.100" # who bench.d/bare puts outside
ROUTED, PLAIN_VXLAN = "10.98.2.2", "10.99.0.2"  # of containers that it makes
PORTS = (7000, 7001, 7002)  # of examples/src/echo.rs
REMOTE, LOCAL, PROXY, TOLD = 11000, 12000, 3000, 19000  # added to these for what is published, and for haproxy
AFTER = 2.5             # seconds that a client goes on after a backend's end
KILLS = 10              # endpoints killed in one run
QUIET = 0.5             # seconds after a kill in which nothing but its own consequences happens
SETTLED = 1.5           # seconds after all run again until the next one is killed
DELAY = 0.8             # seconds until a killed task starts again

# key: (figure, unit, wanted, of what: a ratio to this, or None for what is wanted of the figure itself, higher is better)
ROWS = {
    "overlay": ("TCP between containers of two hosts", "Gbit/s", 0.90, "no overlay", True),
    "vip": ("round trip by overlay and virtual address", "µs", 1.10, "bare VXLAN", False),
    "ingress": ("round trip by ingress, backend remote", "µs", 0.6, "haproxy", False),
    "asleep": ("  the same, processors asleep between", "µs", 0.6, "haproxy", False),
    "rate": ("new connections by ingress, backend remote", "/s", 1.0, "haproxy", True),
    "vxlan": ("  the same", "/s", 0.7, "bare VXLAN", True),
    "local": ("TCP by ingress, backend local", "Gbit/s", 0.95, "direct", True),
    "locally": ("round trip by ingress, backend local", "µs", 1.25, "direct", False),
    "flow": ("new flow, 10,000 services x 3", "µs", 1.03, "one service", False),
    "change": ("one endpoint changed of 10,000 x 3, p99", "ms", 2, None, False),
    "program": ("all of 10,000 x 3 from empty", "s", 1, None, False),
    "named": ("create, to running and answering by name", "ms", 90, None, False),
    "killed": ("backend killed, to last failed request", "ms", 200, None, False),
    "told": ("endpoint gone, in the kernels of 5 hosts, p99", "ms", 150, None, False),
    "added": ("endpoint new, first kernel to each other, p99", "ms", 150, None, False),
}
PERCENTILE = {"told", "added"}
PEER = {"named": 936}   # ms: Docker Swarm 20.10, to running only


class Net:
    """Services and clients on networks of a cluster, and plain things beside."""

    def __init__(self, cluster, programs):
        self.cluster, self.probe, self.echo = cluster, programs + "/probe", programs + "/echo"
        self.started, self.network, self.turn, self.compared = [], None, 0, False

    def up(self, compared):
        """With `compared` also what there is to compare with."""
        cluster = self.cluster
        data = image(self.echo)
        for host in cluster.hosts.values():
            host["api"].ask("POST", "/images/create?fromSrc=-&repo=busybox&tag=latest", data, "application/x-tar")
        self.network = cluster.api.post("/networks/create", {
            "Name": "bench", "Driver": "overlay", "Attachable": True, "CheckDuplicate": True})["Id"]
        self.client = self.inside(self.serve("client", "w1")[0])
        if not compared:
            return
        self.compared = True
        subprocess.run([ROOT + "/scripts/bench.d/bare", "up", cluster.lab_name], check=True)
        self.out, self.routed, self.plain_vxlan, self.w1 = map(self.named, ("out", "b1r", "b1c", "w1"))
        for place in (self.named("b2r"), self.named("b2c"), self.w1):
            self.start(place, self.echo)
        far = self.serve("far", "w2")[0]
        self.far, self.far_vip = self.address(far, "10."), self.vip("far")
        remote = self.serve("remote", "w2", ports=REMOTE)[0]
        self.serve("local", "w1", ports=LOCAL)
        self.ingress = cluster.hosts["w1"]["address"]
        self.haproxy(self.address(remote, "100."))
        for target in ((self.out, f"{self.ingress}:{port + 7001}") for port in (REMOTE, LOCAL)):
            seen = []
            wait(f"{target[1]}", lambda: seen.append(self.first_line(*target)) or seen[-1], 0.1)
            if seen[-1] != OUTSIDE:
                raise RuntimeError(f"the task sees {seen[-1]} in the place of its client's address {OUTSIDE}")

    def down(self):
        for process in self.started:
            process.kill()
            process.wait()
        if self.compared:
            subprocess.run([ROOT + "/scripts/bench.d/bare", "down", self.cluster.lab_name], check=False)

    # Places: how nsenter is told of a network namespace.

    def named(self, name):
        return f"/run/netns/cl-{self.cluster.lab_name}-{name}"

    def inside(self, task):
        host, pid = task
        return f"/proc/{self.cluster.init(host)}/root/proc/{pid}/ns/net"

    def start(self, place, *words):
        process = subprocess.Popen(["nsenter", "--net=" + place, *words], stdout=subprocess.DEVNULL,
                                   start_new_session=True)
        self.started.append(process)

    def ask(self, place, *words):
        """What `probe` measures from there; a round trip is not to wait for any other program."""
        first = ["chrt", "--fifo", "10"] if words[0] == "rtt" else []
        run = subprocess.run([*first, "nsenter", "--net=" + place, self.probe, *words], stdout=subprocess.PIPE, text=True,
                             timeout=60)
        if run.returncode:
            raise RuntimeError(f"probe {' '.join(words)} failed")
        return float(run.stdout)

    def asking(self, place, *words):
        """The same, still running."""
        return subprocess.Popen(["nsenter", "--net=" + place, self.probe, *words], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True)

    def first_line(self, place, target):
        with self.asking(place, "retry", target) as process:
            try:
                return process.stdout.readline().strip()
            finally:
                process.kill()

    # Services.

    def spec(self, name, replicas, host=None, ports=None, delay=None, network=True):
        spec = self.cluster.spec(replicas, [f"node.hostname=={host}"] if host else [])
        spec["Name"] = name
        task = spec["TaskTemplate"]
        task["ContainerSpec"]["Command"] = ["/bin/echo"]
        if network:
            task["Networks"] = [{"Target": self.network}]
        if delay is not None:
            task["RestartPolicy"] = {"Condition": "any", "Delay": int(delay * 1e9)}
        if ports is not None:
            spec["EndpointSpec"] = {"Ports": [{"Protocol": "tcp", "TargetPort": port, "PublishedPort": port + ports}
                                              for port in PORTS]}
        return spec

    def serve(self, name, host=None, ports=None, replicas=1, delay=None, network=False):
        """A service; its tasks once they run. One that is published is on no network unless it is said."""
        network = ports is None or network
        service = self.cluster.api.post("/services/create", self.spec(name, replicas, host, ports, delay, network))["ID"]
        self.cluster.wait_running(service, replicas)
        return self.tasks(service)

    def tasks(self, service):
        """Host and pid there of each task that runs."""
        names = {node["ID"]: name for name, node in self.cluster.nodes().items()}
        found = []
        for task in self.cluster.running(service):
            host = names[task["NodeID"]]
            container = task["Status"]["ContainerStatus"]["ContainerID"]
            found.append((host, self.cluster.hosts[host]["api"].get(f"/containers/{container}/json")["State"]["Pid"]))
        return found

    def address(self, task, prefix):
        text = subprocess.check_output(["nsenter", "--net=" + self.inside(task), "ip", "-4", "-o", "addr"], text=True)
        return next(address for address in re.findall(r"inet ([\d.]+)", text) if address.startswith(prefix))

    def vip(self, name):
        addresses = self.cluster.api.get(f"/services/{name}")["Endpoint"]["VirtualIPs"]
        return next(a["Addr"].split("/")[0] for a in addresses if a["NetworkID"] == self.network)

    def haproxy(self, backend):
        path = f"/tmp/covey-lab/{self.cluster.lab_name}/haproxy"
        with open(path, "w") as file:
            file.write("global\n nbthread 2\n maxconn 8000\ndefaults\n mode tcp\n timeout connect 5s\n"
                       " timeout client 60s\n timeout server 60s\n")
            for port in PORTS:
                file.write(f"listen l{port}\n bind :{port + PROXY}\n server a {backend}:{port}\n")
        self.start(self.w1, "haproxy", "-f", path, "-db")
        wait("haproxy", lambda: self.first_line(self.out, f"{self.ingress}:{7001 + PROXY}"), 0.1)

    def kill(self, task):
        """Kills a task's process; when."""
        host, pid = task
        # The shell is there before: what is measured begins with its very next step.
        killer = subprocess.Popen(["nsenter", "-t", str(self.cluster.init(host)), "--pid", "--mount", "sh", "-c",
                                   f"echo; read go; kill -9 {pid}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        killer.stdout.readline()
        begin = time.time()
        killer.communicate(b"\n")
        return begin

    def turns(self, *measured):
        """Measures in turns, each time another one first."""
        self.turn += 1
        results = [None] * len(measured)
        for n in range(len(measured)):
            n = (n + self.turn) % len(measured)
            results[n] = self.ask(measured[n][0], *measured[n][1:])
        return results


@contextlib.contextmanager
def awake():
    """Keeps the processors from sleeping, at the lowest priority there is: waking one takes longer than what is compared."""
    spinners = [subprocess.Popen(["chrt", "--idle", "0", "sh", "-c", "while :; do :; done"], start_new_session=True)
                for _ in range(os.cpu_count())]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


# Each figure: one run, giving rows, their values and what these are compared with.

def figure_overlay(net):
    yield "overlay", *net.turns((net.client, "bulk", net.far), (net.routed, "bulk", ROUTED))


def figure_vip(net):
    with awake():
        yield "vip", *net.turns((net.client, "rtt", net.far_vip), (net.plain_vxlan, "rtt", PLAIN_VXLAN))


def figure_ingress(net):
    def by(port):
        return f"{net.ingress}:{port}"
    trips = (net.out, "rtt", by(7000 + REMOTE)), (net.out, "rtt", by(7000 + PROXY))
    with awake():
        yield "ingress", *net.turns(*trips)
    yield "asleep", *net.turns(*trips)
    ours, haproxy, vxlan = net.turns((net.out, "connect", by(7001 + REMOTE)), (net.out, "connect", by(7001 + PROXY)),
                                     (net.plain_vxlan, "connect", PLAIN_VXLAN))
    yield "rate", ours, haproxy
    yield "vxlan", ours, vxlan


def figure_local(net):
    def by(port):
        return f"{net.ingress}:{port}"
    yield "local", *net.turns((net.out, "bulk", by(7002 + LOCAL)), (net.out, "bulk", by(7002)))
    with awake():
        yield "locally", *net.turns((net.out, "rtt", by(7000 + LOCAL)), (net.out, "rtt", by(7000)))


def figure_named(net):
    cluster = net.cluster
    cluster.n += 1
    name = f"named-{cluster.n}"
    probe = net.asking(net.client, "name", name)
    time.sleep(0.2)
    begin = time.time()
    service = cluster.api.post("/services/create", net.spec(name, 1))["ID"]
    cluster.wait_running(service, 1)
    running = time.time()
    answering = float(probe.communicate(timeout=60)[0])
    yield "named", (max(running, answering) - begin) * 1e3, None
    cluster.api.delete(f"/services/{service}")
    wait("the service's end", lambda: not cluster.running(service))


def figure_killed(net):
    """Three backends behind a virtual address, one of them killed."""
    if not net.cluster.api.get("/services", name=["trio"]):
        net.serve("trio", replicas=3)
    service = net.cluster.api.get("/services/trio")["ID"]
    net.cluster.wait_running(service, 3)
    with net.asking(net.client, "retry", net.vip("trio")) as client:
        client.stdout.readline()
        tasks = sorted(net.tasks(service))
        net.turn += 1
        begin = net.kill(tasks[net.turn % len(tasks)])
        time.sleep(AFTER)
        client.kill()
        failed = [float(line.split()[0]) for line in client.stdout]
    yield "killed", max([time - begin for time in failed], default=0) * 1e3, None


class Kernels:
    """What changes in the tables of every host, and when: the ports in its own namespace, and virtual addresses."""

    def __init__(self, net):
        self.sockets, libc = {}, ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        for name in net.cluster.hosts:
            root = f"/proc/{net.cluster.init(name)}/root/run/covey/netns"
            for path in (net.named(name), *(f"{root}/{file}" for file in os.listdir(root))):
                there = os.open(path, os.O_RDONLY)
                if libc.setns(there, 0):
                    raise OSError(ctypes.get_errno(), path)
                watch = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)    # NETLINK_NETFILTER
                watch.bind((0, 0))
                watch.setsockopt(270, 1, 7)     # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES
                libc.setns(home, 0)
                os.close(there)
                self.sockets[watch] = name
        os.close(home)

    def watch(self, end):
        """(when, host) of each change until then."""
        seen = []
        while (left := end - time.time()) > 0:
            for ready in select.select(list(self.sockets), [], [], left)[0]:
                ready.recv(1 << 16)
                seen.append((time.time(), self.sockets[ready]))
        return seen

    def close(self):
        for watch in self.sockets:
            watch.close()


def figure_told(net):
    """Tasks on all five hosts, one after the other killed; they come again after a moment."""
    cluster = net.cluster
    if not cluster.api.get("/services", name=["told"]):
        net.serve("told", replicas=len(cluster.hosts), ports=TOLD, delay=DELAY, network=True)
    service = cluster.api.get("/services/told")["ID"]
    kernels = None
    try:
        for n in range(KILLS):
            cluster.wait_running(service, len(cluster.hosts))
            time.sleep(SETTLED)
            kernels = Kernels(net)
            tasks = sorted(net.tasks(service))
            begin = net.kill(tasks[n % len(tasks)])
            gone = dict((host, when) for when, host in kernels.watch(begin + QUIET))
            # Who has heard nothing after all that time counts as that late.
            for host in cluster.hosts:
                yield "told", (gone.get(host, begin + QUIET) - begin) * 1e3, None
            added = {}
            for when, host in kernels.watch(begin + DELAY + 2 * QUIET):
                added.setdefault(host, when)
            for host in cluster.hosts:
                yield "added", (added.get(host, begin + DELAY + 2 * QUIET) - min(added.values(), default=begin)) * 1e3, None
            kernels.close()
    finally:
        if kernels:
            kernels.close()


UNITS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1}


def seconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(\D+)", text).groups()
    return float(number) * UNITS[unit]


def figure_tables(_):
    """A program alone in a kernel: what mesh/netlink/tests/figures.rs prints."""
    text = subprocess.run(["cargo", "test", "--release", "--quiet", "-p", "covey-mesh-netlink", "--test", "figures", "--",
                           "--ignored", "--nocapture", "--test-threads=1", "ten_thousand"], cwd=ROOT, check=True,
                          env=os.environ | {"COVEY_FIGURES": "1"},
                          stdout=subprocess.PIPE, text=True).stdout
    changes = [seconds(found) for found in re.findall(r"p99 ([^,\s]+)", text)]
    program = [seconds(found) for found in re.findall(r"(?:say 10,000 x 3|from empty): (\S+)", text)]
    one, many = re.search(r"new flow: (\S+) with one service, (\S+) with", text).groups()
    yield "flow", seconds(many) * 1e6, seconds(one) * 1e6
    yield "change", max(changes) * 1e3, None
    yield "program", sum(program), None


FIGURES = {"overlay": figure_overlay, "vip": figure_vip, "ingress": figure_ingress, "local": figure_local,
           "tables": figure_tables, "named": figure_named, "killed": figure_killed, "told": figure_told}


def show(found):
    """`found`: key: [(value, compared with, kind of daemon)]."""
    print(f"\n{'figure':46} {'':>6} {'wanted':>8} {'Covey':>8}   {'beside':>8} {'':12} ratio")
    for key, (text, unit, wanted, beside, up) in ROWS.items():
        ours = [(value, other) for kind, value, other in found.get(key, []) if kind == "covey"]
        if not ours:
            continue
        values = sorted(value for value, _ in ours)
        mine = values[min(len(values) - 1, len(values) * 99 // 100)] if key in PERCENTILE else statistics.median(values)
        ratios = sorted(value / other for value, other in ours if other)
        ratio = statistics.median(ratios) if ratios else None
        good = (ratio if beside else mine) >= wanted if up else (ratio if beside else mine) <= wanted
        peer = [value for kind, value, _ in found.get(key, []) if kind == "peer"]
        other = statistics.median(other for _, other in ours) if beside else \
            statistics.median(peer) if peer else PEER.get(key)
        label = beside or ("Docker Swarm" if other else "")
        spread = f"{ratios[0]:.2f}…{ratios[-1]:.2f}" if beside else f"{values[0]:.4g}…{values[-1]:.4g}"
        print(f"{text:46} {unit:>6} {('≥ ' if up else '≤ ') + f'{wanted:g}' + ('x' if beside else ''):>8} {mine:8.4g} "
              f"{'✓' if good else '✗'} {f'{other:.4g}' if other else '':>8} {label:12} "
              f"{f'{ratio:.2f}' if beside else '':5} {spread} of {len(ours)}")
    print("Ratios are medians of those of pairs measured in turns. 1,000 nodes, simulated (wanted: p99 ≤ 500 ms):\n"
          "  scripts/soak endpoints")
