//! What the runtime asks of the network, in which order, and what it keeps for it. Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "door: these tests start processes and look at the machine")]
#![allow(clippy::disallowed_types, reason = "the calls are written down by one thread and read by another")]

mod bench;

use std::{
    fs, io,
    net::{IpAddr, UdpSocket},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use bench::{Bench, PATIENCE, bench_with, config, spec};
use covey_agent::{
    executor::{Executor as _, ExecutorError},
    template::NodeNames,
};
use covey_runtime::{
    Attachment, BoxFuture, Config, ContainerId, ContainerState, CreateContainer, KEPT_MAX, Network,
    NetworkMode, Runtime, TaskExecutor, image::ImageStore,
};
use covey_state::{
    Id,
    assignment::Assignment,
    container::ContainerSpec,
    network::{PublishedPort, Wiring},
    service::TaskSpec,
    task::DesiredState,
};

/// One namespace for all, which a thread of its own keeps, with two sockets that talk to each other.
struct Lane {
    namespace: PathBuf,
    receiver: UdpSocket,
    sender: UdpSocket,
    _end: mpsc::Sender<()>,
}

impl Lane {
    fn new() -> Self {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let up = Command::new("/bin/busybox").args(["ip", "link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success());
            let (receiver, sender) =
                (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
            sender.connect(receiver.local_addr().unwrap()).unwrap();
            tell.send((nix::unistd::gettid(), receiver, sender)).unwrap();
            // Until the sender is dropped.
            let _ = ended.recv();
        });
        let (thread, receiver, sender) = told.recv().unwrap();
        let namespace = format!("/proc/{}/task/{thread}/ns/net", std::process::id()).into();
        Self { namespace, receiver, sender, _end: end }
    }

    fn inode(&self) -> u64 {
        fs::metadata(&self.namespace).unwrap().ino()
    }
}

/// Writes down what it is asked, with the first words of what it says.
struct Notes {
    namespace: PathBuf,
    keep: Vec<Arc<OwnedFd>>,
    calls: Mutex<Vec<String>>,
    kept: Mutex<Vec<OwnedFd>>,
}

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(100, 64, 0, 5));

fn port() -> PublishedPort {
    PublishedPort { target: 80, published: 8080, ..PublishedPort::default() }
}

impl Notes {
    fn of(lane: &Lane, keep: Vec<Arc<OwnedFd>>) -> Arc<Self> {
        let namespace = lane.namespace.clone();
        Arc::new(Self { namespace, keep, calls: Mutex::default(), kept: Mutex::default() })
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// How many processes are in the namespace; this one is not, but for a thread.
    fn inhabitants(&self) -> usize {
        let inode = fs::metadata(&self.namespace).unwrap().ino();
        let namespace = |process: fs::DirEntry| fs::metadata(process.path().join("ns/net")).ok();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        processes.filter_map(namespace).filter(|namespace| namespace.ino() == inode).count()
    }
}

impl Network for Notes {
    fn attach<'a>(
        &'a self,
        _: &'a str,
        hostname: &'a str,
        wiring: &'a Wiring,
    ) -> BoxFuture<'a, Result<Attachment, String>> {
        self.note(format!("attach {hostname} {}", wiring.names.join(",")));
        Box::pin(std::future::ready(if hostname == "refused" {
            Err("port 8080/tcp is in use".to_owned())
        } else {
            Ok(Attachment {
                namespace: self.namespace.clone(),
                addresses: vec![ADDRESS, "fd00::5".parse().unwrap()],
                ports: vec![port()],
                hosts: vec![([100, 64, 0, 9].into(), "db db.lan".to_owned())],
                nameservers: vec![[100, 64, 0, 1].into()],
                search: vec!["lan".to_owned()],
                options: vec!["ndots:0".to_owned()],
                keep: self.keep.clone(),
            })
        }))
    }

    fn rewire<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        wiring: &'a Wiring,
    ) -> BoxFuture<'a, Result<Attachment, String>> {
        self.note(format!("rewire {}", wiring.names.join(",")));
        Box::pin(std::future::ready(if wiring.names == ["taken"] {
            Err("address already in use".to_owned())
        } else {
            Ok(Attachment {
                addresses: vec![ADDRESS],
                nameservers: vec![[127, 0, 0, 11].into()],
                ..Attachment::default()
            })
        }))
    }

    fn adopted(
        &self,
        _: &str,
        wiring: &Wiring,
        addresses: &[IpAddr],
        _: &[PublishedPort],
        kept: Vec<OwnedFd>,
    ) {
        self.note(format!("adopted {} {} {}", wiring.names.join(","), addresses[0], kept.len()));
        self.kept.lock().unwrap().extend(kept);
    }

    fn detach<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        self.note(format!("detach {}", self.inhabitants()));
        Box::pin(std::future::ready(Ok(())))
    }
}

fn request(hostname: &str, words: &[&str]) -> CreateContainer {
    CreateContainer {
        spec: ContainerSpec { hostname: hostname.into(), ..spec(words) },
        network: NetworkMode::Edge,
        wiring: Wiring { names: vec!["web".into()], ..Wiring::default() },
        ..CreateContainer::default()
    }
}

async fn open(directory: &Path, cgroup: &str, network: Arc<Notes>) -> Runtime {
    let images = ImageStore::open(&directory.join("data"), std::collections::BTreeSet::new()).unwrap();
    let config = Config { network: Some(network), ..config(directory, cgroup, images) };
    Runtime::open(config).await.unwrap()
}

/// CTR-11
#[tokio::test]
async fn a_container_is_in_the_namespace_that_the_network_names_and_knows_its_names() {
    let lane = Lane::new();
    let network = Notes::of(&lane, vec![]);
    let Some(bench) = bench_with(Some(network.clone())).await else { return };
    let script =
        "readlink /proc/self/ns/net; cat /etc/resolv.conf; grep 100.64 /etc/hosts; echo up; exec sleep 1000";
    let wanted = request("box", &["sh", "-c", script]);
    let wiring = wanted.wiring.clone();
    let id = bench.runtime.create(wanted).await.unwrap().to_string();
    bench.runtime.start(&id).await.unwrap();
    let expected = format!(
        "net:[{}]\nnameserver 100.64.0.1\nsearch lan\noptions ndots:0\n100.64.0.5\tbox\n100.64.0.9\tdb \
         db.lan\nup\n",
        lane.inode()
    );
    assert_eq!(bench.lines_until(&id, "up").await, expected);
    let container = bench.runtime.inspect(&id).unwrap();
    assert_eq!((container.addresses[0], container.ports, container.wiring), (ADDRESS, vec![port()], wiring));
    bench.runtime.remove(&id, true).await.unwrap();
    assert_eq!(network.calls(), ["attach box web", "detach 0"]);
    bench.close().await;
}

/// NET-20
#[tokio::test]
async fn a_container_gets_other_networks_while_it_runs_and_keeps_them() {
    let lane = Lane::new();
    let network = Notes::of(&lane, vec![]);
    let Some(bench) = bench_with(Some(network.clone())).await else { return };
    let id = bench.runtime.create(request("box", &["sleep", "1000"])).await.unwrap().to_string();
    let named =
        |name: &'static str| move |old: &Wiring| Ok(Wiring { names: vec![name.into()], ..old.clone() });
    bench.runtime.rewire(&id, named("db")).await.unwrap();
    assert!(network.calls().is_empty(), "it does not run");
    bench.runtime.start(&id).await.unwrap();
    bench.runtime.rewire(&id, named("cache")).await.unwrap();
    let refused = bench.runtime.rewire(&id, named("taken")).await.unwrap_err();
    assert_eq!(refused.to_string(), "address already in use");
    let refused = bench.runtime.rewire(&id, |_| Err("not that one".to_owned())).await.unwrap_err();
    assert_eq!(refused.to_string(), "not that one");
    assert_eq!(network.calls(), ["attach box db", "rewire cache", "rewire taken"]);
    let resolv_conf = bench.exec(&id, &["cat", "/etc/resolv.conf"]).await.1;
    assert_eq!(resolv_conf, "nameserver 127.0.0.11\n");
    let container = bench.runtime.inspect(&id).unwrap();
    assert_eq!((container.addresses, container.wiring.names), (vec![ADDRESS], vec!["cache".to_owned()]));

    let Bench { directory, runtime, cgroup } = bench;
    drop((runtime, network));
    let network = Notes::of(&lane, vec![]);
    let runtime = open(directory.path(), &cgroup, network.clone()).await;
    assert_eq!(network.calls(), ["adopted cache 100.64.0.5 0"]);
    runtime.remove(&id, true).await.unwrap();
    Bench { directory, runtime, cgroup }.close().await;
}

/// Waits until nobody holds the receiver of `lane` any more: the kernel says so to the sender.
async fn deserted(lane: &Lane) {
    let refused = async {
        loop {
            match lane.sender.send(b"anybody?") {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the socket is closed");
}

/// CTR-11
#[tokio::test]
async fn a_socket_outlives_the_daemon_with_its_container_and_comes_back_to_the_next() {
    let mut lane = Lane::new();
    let own = std::mem::replace(&mut lane.receiver, UdpSocket::bind("127.0.0.1:0").unwrap());
    let network = Notes::of(&lane, vec![Arc::new(own.into())]);
    let Some(bench) = bench_with(Some(network.clone())).await else { return };
    let id = bench.runtime.create(request("box", &["sleep", "1000"])).await.unwrap().to_string();
    bench.runtime.start(&id).await.unwrap();
    // It is the shim's to hold, and none of the container's business.
    let descriptors = bench.exec(&id, &["ls", "/proc/1/fd"]).await.1;
    assert_eq!(descriptors, "0\n1\n2\n");

    let Bench { directory, runtime, cgroup } = bench;
    drop((runtime, network));
    lane.sender.send(b"meanwhile").unwrap();
    let network = Notes::of(&lane, vec![]);
    let runtime = open(directory.path(), &cgroup, network.clone()).await;
    assert_eq!(network.calls(), ["adopted web 100.64.0.5 1"]);
    let kept = UdpSocket::from(network.kept.lock().unwrap().remove(0));
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut datagram = [0; 32];
    let length = kept.recv(&mut datagram).unwrap();
    assert_eq!(&datagram[..length], b"meanwhile");
    let container = runtime.inspect(&id).unwrap();
    assert_eq!((container.addresses[0], container.ports), (ADDRESS, vec![port()]));
    drop(kept);
    lane.sender.send(b"still held").unwrap();

    runtime.remove(&id, true).await.unwrap();
    deserted(&lane).await;
    assert_eq!(network.calls(), ["detach 0"]);
    Bench { directory, runtime, cgroup }.close().await;
}

/// CTR-11
#[tokio::test]
async fn every_start_that_fails_gives_its_network_back_once() {
    let lane = Lane::new();
    let network = Notes::of(&lane, vec![]);
    let Some(bench) = bench_with(Some(network.clone())).await else { return };
    let start = async |wanted| {
        let id = bench.runtime.create(wanted).await.unwrap().to_string();
        let error = bench.runtime.start(&id).await.unwrap_err().to_string();
        (id, error)
    };
    let (id, error) = start(request("refused", &["true"])).await;
    assert_eq!(error, "failed to set up container networking: port 8080/tcp is in use");
    assert_eq!(network.calls(), ["attach refused web", "detach 0"]);
    match bench.runtime.inspect(&id).unwrap().state {
        ContainerState::Exited(exit) => assert_eq!((exit.code, exit.error), (128, error)),
        other => panic!("{other:?}"),
    }
    let (_, error) = start(request("box", &["nosuch"])).await;
    assert!(error.ends_with("executable file not found in $PATH"), "{error}");
    assert_eq!(network.calls(), ["attach box web", "detach 0"]);
    let (id, _) = start(CreateContainer { auto_remove: true, ..request("refused", &["true"]) }).await;
    assert_eq!(network.calls(), ["attach refused web", "detach 0"]);
    assert!(bench.runtime.inspect(&id).is_err());
    assert!(bench.cgroups().is_empty());
    bench.close().await;

    let many = (0..=KEPT_MAX).map(|_| Arc::new(lane.sender.try_clone().unwrap().into())).collect();
    let network = Notes::of(&lane, many);
    let Some(bench) = bench_with(Some(network.clone())).await else { return };
    let id = bench.runtime.create(request("box", &["true"])).await.unwrap().to_string();
    let error = bench.runtime.start(&id).await.unwrap_err().to_string();
    assert_eq!(error, "failed to set up container networking: 5 sockets are to be kept; at most 4 can be");
    assert_eq!(network.calls(), ["attach box web", "detach 0"]);
    bench.close().await;
}

/// CTR-13: one that joins another has its network and its names, for as long as it runs itself.
#[tokio::test]
async fn a_container_joins_the_network_of_another_that_runs() {
    let lane = Lane::new();
    let network = Notes::of(&lane, vec![]);
    let Some(bench) = bench_with(Some(network.clone())).await else { return };
    let web = bench.runtime.create(request("box", &["sleep", "1000"])).await.unwrap();
    let joins = |other: &ContainerId, words: &[&str]| CreateContainer {
        spec: ContainerSpec { hostname: "box".into(), ..spec(words) },
        network: NetworkMode::Container(other.clone()),
        ..CreateContainer::default()
    };
    let script = "readlink /proc/self/ns/net; cat /etc/hostname /etc/resolv.conf; echo up; exec sleep 1000";
    let side = bench.runtime.create(joins(&web, &["sh", "-c", script])).await.unwrap();
    let error = bench.runtime.start(side.as_str()).await.unwrap_err().to_string();
    let said = format!("cannot join network of a non running container: {}", web.short());
    assert_eq!(error, format!("failed to set up container networking: {said}"));

    bench.runtime.start(web.as_str()).await.unwrap();
    bench.runtime.start(side.as_str()).await.unwrap();
    let names = "nameserver 100.64.0.1\nsearch lan\noptions ndots:0\nup\n";
    let expected = format!("net:[{}]\nbox\n{names}", lane.inode());
    assert_eq!(bench.lines_until(side.as_str(), "up").await, expected);
    // Of one that joins, too.
    let third = bench.runtime.create(joins(&side, &["sh", "-c", script])).await.unwrap();
    bench.runtime.start(third.as_str()).await.unwrap();
    assert_eq!(bench.lines_until(third.as_str(), "up").await, expected);
    bench.runtime.remove(web.as_str(), true).await.unwrap();
    assert_eq!(bench.runtime.inspect(side.as_str()).unwrap().state, ContainerState::Running);
    for id in [side, third] {
        bench.runtime.remove(id.as_str(), true).await.unwrap();
    }
    assert_eq!(network.calls(), ["attach box web", "detach 2"], "it is the network of one");
    bench.close().await;
}

#[tokio::test]
async fn a_start_that_nobody_waits_for_comes_to_its_end() {
    let lane = Lane::new();
    let network = Notes::of(&lane, vec![]);
    let Some(bench) = bench_with(Some(network.clone())).await else { return };
    let id = bench.runtime.create(request("box", &["sleep", "1000"])).await.unwrap().to_string();
    // Long enough to begin, too short to finish.
    let waited = tokio::time::timeout(Duration::ZERO, bench.runtime.start(&id)).await;
    assert!(waited.is_err());
    bench.runtime.remove(&id, true).await.unwrap();
    assert!(bench.cgroups().is_empty());
    let calls = network.calls();
    assert!(calls.is_empty() || calls == ["attach box web", "detach 0"], "{calls:?}");
    bench.close().await;
}

/// TSK-02
#[tokio::test]
async fn what_the_network_says_against_a_task_is_the_tasks_error() {
    let lane = Lane::new();
    let network = Notes::of(&lane, vec![]);
    let Some(bench) = bench_with(Some(network.clone())).await else { return };
    let node = NodeNames { id: Id::new(1), hostname: "host".to_owned() };
    let executor = TaskExecutor::new(bench.runtime.clone(), node, NetworkMode::Edge);
    let work = |hostname: &str| Assignment {
        task: Id::new(7),
        service: Id::new(8),
        service_name: "web".into(),
        slot: 3,
        spec: Arc::new(TaskSpec {
            container: ContainerSpec { hostname: hostname.into(), ..spec(&["sleep", "1000"]) },
            ..TaskSpec::default()
        }),
        desired: DesiredState::Running,
        edge: true,
        networks: vec![],
        ports: vec![],
        exposure: Arc::default(),
    };
    executor.prepare(&work("refused"), 1).await.unwrap();
    let failed = executor.start(Id::new(7)).await.unwrap_err();
    assert_eq!(failed, ExecutorError::Failed("port 8080/tcp is in use".to_owned()));
    let id = executor.prepare(&work("box"), 2).await.unwrap().id;
    assert_eq!(executor.start(Id::new(7)).await.unwrap().container.ports, [port()]);
    assert_eq!(bench.runtime.inspect(&id).unwrap().wiring, work("box").wiring());
    executor.remove(Id::new(7)).await.unwrap();
    assert!(executor.held().await.unwrap().is_empty());
    bench.close().await;
}
