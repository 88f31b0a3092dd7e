"""Clusters of scripts/lab, driven through the Engine API: what the figures of scripts/bench are measured on."""
import http.client, io, json, os, re, shutil, socket, subprocess, tarfile, time
from urllib.parse import quote

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
API = "/v1.41"
IMAGE = "busybox:latest"
PAYLOAD = ["sleep", "1000000"]
POLL = 0.005            # seconds between looks at a condition
DEADLINE = 120          # seconds until a condition is given up
CONTROLLER = "/sys/fs/cgroup/cpuacct" if os.path.isdir("/sys/fs/cgroup/cpuacct") else "/sys/fs/cgroup"


class Refused(Exception):
    """An answer of the API that is an error."""


class Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    """A connection to one daemon that is kept open."""

    def __init__(self, path, timeout=60):
        self.path, self.timeout, self.connection = path, timeout, None

    def ask(self, method, path, body=None, kind="application/json"):
        self.connection = self.connection or Unix(self.path, self.timeout)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body)
        try:
            self.connection.request(method, API + path, data, {"Content-Type": kind} if data is not None else {})
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if answer.status >= 400:
            raise Refused(f"{method} {path}: {answer.status} {text[:300].decode(errors='replace').strip()}")
        return json.loads(text) if text[:1] in (b"{", b"[") and kind == "application/json" else None

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def get(self, path, **filters):
        return self.ask("GET", path + ("?filters=" + quote(json.dumps(filters)) if filters else ""))

    def post(self, path, body=None):
        return self.ask("POST", path, {} if body is None else body)

    def delete(self, path):
        return self.ask("DELETE", path)


def wait(what, condition, step=POLL):
    """Returns once condition() is true; an error of the network or the API counts as not yet."""
    end, last = time.monotonic() + DEADLINE, ""
    while True:
        try:
            if condition():
                return
        except (OSError, http.client.HTTPException, Refused) as error:
            last = error
        if time.monotonic() > end:
            raise TimeoutError(f"waited in vain for {what} {last}")
        time.sleep(step)


class Cluster:
    """Three managers and two workers of one kind of daemon."""

    def __init__(self, kind, binary):
        self.kind, self.hosts, self.n = kind, {}, 0
        self.lab_name = f"b{kind[0]}{os.getpid() % 100000}"
        self.group = f"{CONTROLLER}/bench-{self.lab_name}"
        self.env = dict(os.environ, LAB=self.lab_name, COVEY_BIN=binary)
        self.env.pop("COVEY_ARGS", None)

    def lab(self, *words):
        """Runs scripts/lab with everything that it starts counted in one control group; it is never cut short."""
        group = self.group

        def enter():
            with open(group + "/cgroup.procs", "w") as file:
                file.write("0")
        lab = subprocess.Popen([ROOT + "/scripts/lab", *words], env=self.env, stdout=subprocess.PIPE, text=True,
                               start_new_session=True, preexec_fn=enter)
        interrupted = None
        while True:
            try:
                output = lab.communicate()[0]
                break
            except KeyboardInterrupt as error:
                interrupted = error
        if interrupted:
            raise interrupted
        if lab.returncode:
            raise RuntimeError(f"scripts/lab {' '.join(words)} failed for {self.kind}")
        return output

    def up(self):
        os.makedirs(self.group, exist_ok=True)
        for line in self.lab("up").splitlines():
            name, role, address, host = line.split()
            self.hosts[name] = {"role": role, "address": address, "api": Api(host.split("unix://")[1])}
        for host in self.hosts.values():
            host["api"].ask("POST", f"/images/create?fromSrc=-&repo=busybox&tag=latest", image(), "application/x-tar")
        self.ready()
        return self

    def down(self):
        if not os.path.isdir(self.group):
            return
        self.lab("down")
        for _ in range(200):
            try:
                return os.rmdir(self.group)
            except OSError:
                time.sleep(0.02)

    @property
    def api(self):
        return self.hosts["m1"]["api"]

    def cpu(self):
        """CPU seconds that all hosts have used, daemons, shims and containers."""
        total = 0
        for group in [self.group, *(f"{CONTROLLER}/cl-{self.lab_name}-{name}" for name in self.hosts)]:
            try:
                if CONTROLLER.endswith("cpuacct"):
                    total += int(open(group + "/cpuacct.usage").read()) / 1e9
                else:
                    total += int(open(group + "/cpu.stat").readline().split()[1]) / 1e6
            except OSError:
                pass
        return total

    def nodes(self):
        return {node["Description"].get("Hostname"): node for node in self.api.get("/nodes")}

    def leader(self):
        return next(n for n, node in self.nodes().items() if (node.get("ManagerStatus") or {}).get("Leader"))

    def ready(self):
        def all_ready():
            fit = [n for n, node in self.nodes().items() if node["Status"]["State"] == "ready" and
                   (node.get("ManagerStatus") or {"Reachability": "reachable"})["Reachability"] == "reachable"]
            return len(fit) == len(self.hosts)
        wait("all hosts", all_ready, 0.1)

    def spec(self, replicas, constraints=()):
        self.n += 1
        task = {"ContainerSpec": {"Image": IMAGE, "Command": PAYLOAD, "StopSignal": "SIGKILL"},
                "Placement": {"Constraints": list(constraints)}}
        return {"Name": f"bench-{self.n}", "TaskTemplate": task, "Mode": {"Replicated": {"Replicas": replicas}}}

    def create(self, *words, api=None):
        return (api or self.api).post("/services/create", self.spec(*words))["ID"]

    def running(self, service):
        tasks = self.api.get("/tasks", **{"service": [service], "desired-state": ["running"]}) or []
        return [task for task in tasks if task["Status"]["State"] == "running"]

    def wait_running(self, service, count, step=POLL):
        wait(f"{count} tasks of {self.kind}", lambda: len(self.running(service)) >= count, step)

    def containers(self):
        label = {"label": ["com.docker.swarm.service.id"]}
        path = "/containers/json?all=1&filters=" + quote(json.dumps(label))
        return sum(len(host["api"].ask("GET", path) or []) for host in self.hosts.values())

    def remove(self, service):
        """Seconds until no container is left."""
        begin = time.monotonic()
        self.api.delete(f"/services/{service}")
        wait(f"the end of containers of {self.kind}", lambda: self.containers() == 0, 0.02)
        return time.monotonic() - begin

    def clear(self):
        for service in self.api.get("/services"):
            self.api.delete(f"/services/{service['ID']}")

    def init(self, name):
        """The first process of a host, which this very lab has started; the host ends with it."""
        return int(open(f"/tmp/covey-lab/{self.lab_name}/{name}/init").read().split()[0])

    def memory(self, name, field):
        """MiB of the daemon's processes of a host: those in its own pid namespace, whose payloads have their own."""
        space, total = os.readlink(f"/proc/{self.init(name)}/ns/pid"), 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/ns/pid") != space or \
                        open(f"/proc/{pid}/comm").read().strip() in ("bash", "sleep"):
                    continue
                total += int(re.search(rf"^{field}:\s+(\d+)", open(f"/proc/{pid}/smaps_rollup").read(), re.M)[1])
            except (OSError, TypeError):
                pass
        return total / 1024


def image(*programs):
    """A root file system with nothing but Debian's static busybox in it, and these static programs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for folder in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for program in (shutil.which("busybox"), *programs):
            entry = tarfile.TarInfo("bin/" + os.path.basename(program))
            entry.size, entry.mode = os.path.getsize(program), 0o755
            with open(program, "rb") as file:
                tar.addfile(entry, file)
        for name in ("sh", "sleep", "true"):
            entry = tarfile.TarInfo("bin/" + name)
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return out.getvalue()
