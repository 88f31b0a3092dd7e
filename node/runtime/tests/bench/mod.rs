//! A runtime with an image of busybox, in directories and cgroups of its own.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use covey_runtime::{
    Config, CreateContainer, CreateError, ExecSpec, LogQuery, Network, Output, OutputStream, Runtime,
    image::ImageStore,
};
use covey_state::container::{ContainerSpec, Resources};
use futures_util::StreamExt as _;

/// How long a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);
static COUNT: AtomicU32 = AtomicU32::new(0);

pub struct Bench {
    pub directory: tempfile::TempDir,
    pub runtime: Runtime,
    pub cgroup: String,
}

/// What a container did.
#[derive(Debug)]
#[allow(dead_code, reason = "not every test file looks at all")]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A spec of the test image that runs `words`.
pub fn spec(words: &[&str]) -> ContainerSpec {
    ContainerSpec {
        image: "busybox".into(),
        args: words.iter().map(|word| (*word).to_owned()).collect(),
        ..ContainerSpec::default()
    }
}

/// A bench, or `None` with a word of why.
#[allow(dead_code, reason = "not every test file does without a network")]
pub async fn bench() -> Option<Bench> {
    bench_with(None).await
}

/// A bench whose containers can be in `network`.
pub async fn bench_with(network: Option<Arc<dyn Network>>) -> Option<Bench> {
    // SAFETY: reads a number.
    if unsafe { libc::geteuid() } != 0 || !Path::new("/bin/busybox").exists() {
        eprintln!("SKIPPED: containers need root and /bin/busybox (Debian: busybox-static)");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let images = ImageStore::open(&directory.path().join("data"), BTreeSet::new()).unwrap();
    let archive = directory.path().join("rootfs.tar");
    let rootfs = rootfs(directory.path());
    let packed =
        Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&rootfs).arg(".").status().unwrap();
    assert!(packed.success());
    let file = tokio::fs::File::open(&archive).await.unwrap();
    images.import(file, Some(&"busybox".parse().unwrap()), &[], "").await.unwrap();
    fs::remove_file(archive).unwrap();
    let cgroup = format!("/covey-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let config = Config { network, ..config(directory.path(), &cgroup, images) };
    let runtime = Runtime::open(config).await.unwrap();
    Some(Bench { directory, runtime, cgroup })
}

/// A root file system of nothing but busybox.
pub fn rootfs(directory: &Path) -> PathBuf {
    let root = directory.join("busybox");
    for name in ["bin", "etc", "tmp", "dev", "proc", "sys"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(list).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:/bin/sh\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\ndaemon:x:1:\nwheel:x:10:root\n").unwrap();
    root
}

/// What a daemon in `directory` would be opened with.
pub fn config(directory: &Path, cgroup: &str, images: ImageStore) -> Config {
    Config {
        data_root: directory.join("data"),
        exec_root: directory.join("run"),
        cgroup_parent: cgroup.to_owned(),
        program: env!("CARGO_BIN_EXE_covey-runtime-helper").into(),
        images,
        network: None,
    }
}

/// All that comes out of a process: standard output and standard error.
pub async fn output(stream: &mut OutputStream) -> (String, String) {
    let (mut out, mut err) = (vec![], vec![]);
    let all = async {
        while let Some(piece) = stream.next().await {
            match piece {
                Output::Stdout(bytes) => out.extend_from_slice(&bytes),
                Output::Stderr(bytes) => err.extend_from_slice(&bytes),
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("output ends");
    (String::from_utf8_lossy(&out).into_owned(), String::from_utf8_lossy(&err).into_owned())
}

#[allow(dead_code, reason = "not every test file does all of this")]
impl Bench {
    pub async fn try_create(&self, spec: ContainerSpec) -> Result<String, CreateError> {
        let request = CreateContainer { spec, ..CreateContainer::default() };
        self.runtime.create(request).await.map(|id| id.to_string())
    }

    pub async fn create(&self, spec: ContainerSpec) -> String {
        self.try_create(spec).await.unwrap()
    }

    pub async fn create_with(&self, spec: ContainerSpec, resources: Resources) -> String {
        let request = CreateContainer { spec, resources, ..CreateContainer::default() };
        self.runtime.create(request).await.unwrap().to_string()
    }

    pub async fn started(&self, spec: ContainerSpec) -> String {
        let id = self.create(spec).await;
        self.runtime.start(&id).await.unwrap();
        id
    }

    /// Runs a container to its end and removes it.
    pub async fn run(&self, spec: ContainerSpec) -> Run {
        let id = self.create(spec).await;
        let mut attached = self.runtime.attach(&id).unwrap();
        self.runtime.start(&id).await.unwrap();
        let (stdout, stderr) = output(&mut attached.output).await;
        let exit = tokio::time::timeout(PATIENCE, self.runtime.wait(&id)).await.expect("an end").unwrap();
        self.runtime.remove(&id, false).await.unwrap();
        let code = exit.code;
        Run { code, stdout, stderr }
    }

    pub async fn exec(&self, id: &str, words: &[&str]) -> (i32, String) {
        let cmd = words.iter().map(|word| (*word).to_owned()).collect();
        let mut exec = self.runtime.exec(id, ExecSpec { cmd, ..ExecSpec::default() }).await.unwrap();
        let (out, err) = output(&mut exec.output).await;
        (exec.wait().await.unwrap(), out + &err)
    }

    /// What a container wrote up to a line, with that line.
    pub async fn lines_until(&self, id: &str, last: &str) -> String {
        let mut log = self.runtime.logs(id, LogQuery { follow: true, ..LogQuery::default() }).unwrap();
        let mut text = String::new();
        let reading = async {
            while let Some(line) = log.next().await {
                let line = String::from_utf8_lossy(&line.unwrap().bytes).into_owned();
                text.push_str(&line);
                if line.trim_end() == last {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the line");
        text
    }

    pub fn data(&self, id: &str) -> PathBuf {
        self.directory.path().join("data/containers").join(id)
    }

    pub fn exec_root(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The machine's mounts.
    pub fn mounts() -> usize {
        fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
    }

    /// Directories of containers in any hierarchy.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let below = |parent: &PathBuf| fs::read_dir(parent).into_iter().flatten().flatten();
        self.parents().iter().flat_map(below).filter(|e| e.path().is_dir()).map(|e| e.path()).collect()
    }

    fn parents(&self) -> Vec<PathBuf> {
        let roots = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        let parents =
            roots.chain(["/sys/fs/cgroup".into()]).map(|root| root.join(self.cgroup.trim_start_matches('/')));
        parents.filter(|parent| parent.is_dir()).collect()
    }

    /// Removes all containers, and what they were in.
    pub async fn close(self) {
        for container in self.runtime.list() {
            self.runtime.remove(container.id.as_str(), true).await.unwrap();
        }
        for parent in self.parents() {
            fs::remove_dir(parent).unwrap();
        }
    }
}
