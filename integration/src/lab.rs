//! A cluster of real daemons (`scripts/lab`), which goes when it is dropped.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    image::{self, Image},
    reply::{PATIENCE, Reply, run},
    wait, workspace,
};

/// Daemons that the tests of one program run at a time: what two cores carry without waking timers.
const DAEMONS_MAX: usize = 10;
/// Seconds until all nodes of a new cluster take tasks.
const READY: u64 = 30;
/// Where hosts find the registry of a lab that has one.
pub const REGISTRY: &str = "10.77.0.1:5000";
/// The image of the tests in the store of each host.
pub const ALPINE: &str = "alpine";

/// The newest client of Docker, where there is one.
pub const DOCKER: &str = "/usr/local/bin/docker";

/// What a test wants of its lab.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// Hosts `m1`, `m2` …
    pub managers: usize,
    /// Hosts `w1`, `w2` …
    pub workers: usize,
    /// Whether the hosts form a cluster.
    pub swarm: bool,
}

/// Hosts with a daemon each, in namespaces of their own.
pub struct Lab {
    name: String,
    options: &'static str,
    hosts: Vec<String>,
    image: Image,
    home: TempDir,
    servers: Vec<Child>,
    _places: Places,
}

impl Lab {
    /// A cluster with the image [`ALPINE`] on each host; `None`, said aloud, where labs cannot be.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn cluster(managers: usize, workers: usize) -> Option<Self> {
        Self::cluster_with("", managers, workers)
    }

    /// The same, with more options for its daemons.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn cluster_with(options: &'static str, managers: usize, workers: usize) -> Option<Self> {
        let lab = Self::up_with(options, Wanted { managers, workers, swarm: true })?;
        for host in &lab.hosts {
            lab.load_image(host);
        }
        Some(lab)
    }

    /// Hosts as wanted, without images; `None`, said aloud, where labs cannot be.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn up(wanted: Wanted) -> Option<Self> {
        Self::up_with("", wanted)
    }

    fn up_with(options: &'static str, wanted: Wanted) -> Option<Self> {
        if let Some(reason) = obstacle() {
            eprintln!("SKIPPED: {reason}: scripts/test brings it all");
            return None;
        }
        let places = Places::take(wanted.managers + wanted.workers);
        let home = tempfile::tempdir().expect("a temporary directory");
        let image = Image::make(home.path());
        let mut lab = Self {
            name: fresh_name(),
            options,
            hosts: Vec::new(),
            image,
            home,
            servers: Vec::new(),
            _places: places,
        };
        let (managers, workers) = (wanted.managers.to_string(), wanted.workers.to_string());
        let mut args = vec!["up", "--managers", &managers, "--workers", &workers];
        if !wanted.swarm {
            args.push("--no-swarm");
        }
        let reply = lab.script(&args);
        lab.hosts = reply.ok().lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
        if wanted.swarm {
            // Who has just joined gets no tasks until it is.
            let is_ready = |host| lab.node(&lab.hosts[0], host)[0] == "ready";
            wait::until(READY, "all nodes to be ready", || lab.hosts().all(is_ready));
        }
        Some(lab)
    }

    /// The lab's name, which its namespaces and control groups carry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All hosts, managers first.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(String::as_str)
    }

    /// The underlay address of a host.
    pub fn address(&self, host: &str) -> String {
        let place = self.hosts().position(|other| other == host).expect("a host of this lab");
        format!("10.77.0.{}", 11 + place)
    }

    /// Where the lab keeps what belongs to a host: its socket, log and data.
    pub fn directory(&self, host: &str) -> PathBuf {
        Path::new("/tmp/covey-lab").join(&self.name).join(host)
    }

    /// What the daemons of a host have logged so far.
    pub fn log(&self, host: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.directory(host).join("log")).unwrap_or_default()).into_owned()
    }

    /// Runs `scripts/lab`.
    pub fn script(&self, args: &[&str]) -> Reply {
        let script = workspace().join("scripts/lab");
        let options = format!("--insecure-registry 10.77.0.0/24 {}", self.options);
        let env = [("LAB", self.name.as_str()), ("COVEY_ARGS", &options)];
        run(script.to_str().expect("a plain path"), args, &env, PATIENCE)
    }

    /// Runs `covey` against the daemon of a host.
    pub fn covey(&self, host: &str, args: &[&str]) -> Reply {
        self.client(&env::var("COVEY_BIN").expect("looked at before"), host, args)
    }

    /// Runs the newest `docker` client that is there against the daemon of a host.
    pub fn docker(&self, host: &str, args: &[&str]) -> Reply {
        let old = old_docker();
        let program = if Path::new(DOCKER).exists() { DOCKER } else { &old };
        self.client(program, host, args)
    }

    /// Runs a client, any that reads `DOCKER_HOST`, against the daemon of a host.
    pub fn client(&self, program: &str, host: &str, args: &[&str]) -> Reply {
        let socket = format!("unix://{}", self.socket(host).display());
        let config = self.home.path().join("docker");
        let config = config.to_str().expect("a plain path");
        run(program, args, &[("DOCKER_HOST", &socket), ("DOCKER_CONFIG", config)], PATIENCE)
    }

    /// Where the daemon of a host listens.
    pub fn socket(&self, host: &str) -> PathBuf {
        self.directory(host).join("covey.sock")
    }

    /// Puts [`ALPINE`] into the store of a host.
    ///
    /// # Panics
    /// When the host does not take it.
    pub fn load_image(&self, host: &str) {
        let archive = self.image.archive().to_str().expect("a plain path");
        self.covey(host, &["load", "-q", "-i", archive]).ok();
    }

    /// Puts an image that runs `command` into the lab's registry.
    ///
    /// # Panics
    /// When the registry does not take it.
    pub fn push(&self, name: &str, command: &[&str]) {
        let layout = self.image.with_command(&name.replace('/', "-"), command);
        let target = format!("docker://{REGISTRY}/{name}:latest");
        let copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &layout];
        self.script(&[&["exec", "hub"], &copy[..], &[&target]].concat()).ok();
    }

    /// Starts a registry at [`REGISTRY`] that has the image as `alpine:latest`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_registry(&mut self) {
        let (root, config) = (self.home.path().join("registry"), self.home.path().join("registry.yml"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{REGISTRY}\"}}\n",
            root.display()
        );
        fs::write(&config, text).expect("a file is written");
        // Entered directly, not through the script: it has to be this very process that is ended.
        let registry = Command::new("ip")
            .args(["netns", "exec", &format!("cl-{}-hub", self.name), "docker-registry", "serve"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.servers.push(registry.expect("docker-registry is installed"));
        let target = format!("docker://{REGISTRY}/alpine:latest");
        let layout = self.image.layout();
        let copy = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &layout, &target];
        let push = || self.script(&[&["exec", "hub", "skopeo"], &copy[..]].concat());
        wait::until(20, "the registry", || push().code == 0);
    }

    /// Starts a name server outside of the cluster, which all hosts ask: every name is 192.0.2.53, and answers pings.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_name_server(&mut self) {
        self.script(&["exec", "hub", "ip", "addr", "add", "192.0.2.53/32", "dev", "lo"]).ok();
        let hub = format!("cl-{}-hub", self.name);
        let mut server = Command::new("ip");
        server.args(["netns", "exec", &hub]).arg(image::witness()).arg("53").stdin(Stdio::null());
        self.servers.push(server.spawn().expect("the witness is there"));
        let file = self.home.path().join("resolv.conf");
        fs::write(&file, "nameserver 10.77.0.1\n").expect("a file is written");
        for host in &self.hosts {
            self.script(&["exec", host, "mount", "--bind", &file.display().to_string(), "/etc/resolv.conf"])
                .ok();
        }
    }

    /// One request to the API of a host: the status (0 where there is no answer) and the body.
    pub fn request(&self, host: &str, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        let socket = self.socket(host);
        let url = format!("http://daemon{path}");
        let mut args = vec!["-sS", "--unix-socket", socket.to_str().expect("a plain path"), "-X", method];
        args.extend(["-w", "\n%{http_code}", "-H", "Content-Type: application/json"]);
        if let Some(body) = body {
            args.extend(["--data-binary", body]);
        }
        args.push(&url);
        let reply = run("curl", &args, &[], PATIENCE);
        let (body, status) = reply.out.rsplit_once('\n').unwrap_or_default();
        (status.parse().unwrap_or(0), body.to_owned())
    }

    /// What the API of a host says at this path; `None` when it refuses or does not answer.
    pub fn get(&self, host: &str, path: &str) -> Option<Value> {
        match self.request(host, "GET", path, None) {
            (200, body) => serde_json::from_str(&body).ok(),
            _ => None,
        }
    }

    /// Creates a service of [`ALPINE`] that sleeps, and returns at once.
    ///
    /// # Panics
    /// When the host refuses.
    pub fn create_sleepers(&self, host: &str, name: &str, replicas: usize) {
        let replicas = replicas.to_string();
        let args = ["service", "create", "-d", "--no-resolve-image", "--replicas", &replicas, "--name", name];
        self.covey(host, &[&args[..], &["--restart-delay", "1s", ALPINE, "sleep", "10000"]].concat()).ok();
    }

    /// The containers that run on these hosts, each as `(host, name)`, in order.
    ///
    /// # Panics
    /// When a daemon does not answer.
    pub fn running<'a>(&self, hosts: impl IntoIterator<Item = &'a str>) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for host in hosts {
            let containers = self.get(host, "/containers/json").unwrap_or_else(|| panic!("{host} answers"));
            for container in containers.as_array().into_iter().flatten() {
                let name = container["Names"][0].as_str().unwrap_or_default().trim_start_matches('/');
                found.push((host.to_owned(), name.to_owned()));
            }
        }
        found.sort();
        found
    }

    /// The slots of a service that run on these hosts, one entry for each container, in order.
    pub fn slots<'a>(&self, service: &str, hosts: impl IntoIterator<Item = &'a str>) -> Vec<u32> {
        let slot =
            |name: &str| name.strip_prefix(service)?.strip_prefix('.')?.split('.').next()?.parse().ok();
        let mut slots: Vec<u32> = self.running(hosts).iter().filter_map(|(_, name)| slot(name)).collect();
        slots.sort_unstable();
        slots
    }

    /// A node's state, availability and manager's reachability (`leader` for the one that leads) as `host` sees
    /// it; empty words where it knows no such node or cannot say.
    pub fn node(&self, host: &str, name: &str) -> [String; 3] {
        let nodes = self.get(host, "/nodes").unwrap_or_default();
        let mut nodes = nodes.as_array().into_iter().flatten();
        let Some(node) = nodes.find(|node| node["Description"]["Hostname"] == name) else {
            return Default::default();
        };
        let manager = &node["ManagerStatus"];
        let reachability =
            if manager["Leader"] == true { &Value::from("leader") } else { &manager["Reachability"] };
        [&node["Status"]["State"], &node["Spec"]["Availability"], reachability]
            .map(|word| word.as_str().unwrap_or_default().to_owned())
    }

    /// The manager that leads, as `host` sees it.
    pub fn leader(&self, host: &str) -> Option<String> {
        let nodes = self.get(host, "/nodes")?;
        let leader = nodes.as_array()?.iter().find(|node| node["ManagerStatus"]["Leader"] == true)?;
        leader["Description"]["Hostname"].as_str().map(str::to_owned)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // It may have ended by itself.
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            for host in &self.hosts {
                let log = self.log(host);
                let lines: Vec<&str> = log.lines().collect();
                let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n");
                eprintln!("--- the end of {host}'s log\n{last}");
            }
        }
        let reply = self.script(&["down"]);
        if reply.code != 0 {
            eprintln!("lab {} does not go: {}", self.name, reply.err);
        }
    }
}

/// Debian's client, which `scripts/need docker-20.10=docker.io` takes out of its package.
pub fn old_docker() -> String {
    workspace().join("target/tools/docker-20.10").display().to_string()
}

/// Why no lab can be made here.
fn obstacle() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|line| line.starts_with("Uid:\t0\t0\t"));
    match env::var("COVEY_BIN") {
        _ if !root => Some("a lab needs root".to_owned()),
        Err(_) => Some("COVEY_BIN does not say which binary to test".to_owned()),
        Ok(binary) if !Path::new(&binary).exists() => Some(format!("there is no {binary}")),
        Ok(_) => None,
    }
}

/// A name of at most 8 characters that no other lab of this machine has.
fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{:x}{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed) % 256)
}

/// Daemons that run now.
static RUNNING: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// Some of [`DAEMONS_MAX`], given back when dropped.
struct Places(usize);

impl Places {
    fn take(wanted: usize) -> Self {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let free = FREED.wait_while(running, |running| *running + wanted > DAEMONS_MAX);
        *free.unwrap_or_else(PoisonError::into_inner) += wanted;
        Self(wanted)
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        FREED.notify_all();
    }
}
