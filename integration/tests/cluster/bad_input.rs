//! Bad input for a live daemon: one clear error each, and the daemon goes on, or refuses to start and says why.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use covey_integration::{
    lab::{ALPINE, Lab, Wanted},
    wait,
};

const REPAIR: u64 = 20;

/// The daemon still answers, still leads, and has not panicked.
fn goes_on(lab: &Lab, host: &str) {
    assert_eq!(lab.leader(host).as_deref(), Some(host));
    assert!(!lab.log(host).contains("panicked"), "{}", lab.log(host));
}

/// An error has Docker's shape: one sentence in `message`.
fn message(body: &str) -> String {
    let body: serde_json::Value =
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let message = body["message"].as_str().unwrap_or_else(|| panic!("no message: {body}"));
    assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
    message.to_owned()
}

/// SVC-04: every bad request is refused by one sentence that says what is wrong with it.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn bad_requests_get_one_clear_error_each() {
    let Some(lab) = Lab::cluster(1, 0) else { return };
    lab.create_sleepers("m1", "web", 1);
    let create = "/v1.41/services/create";
    let service = |name: &str, image: &str| {
        format!(r#"{{"Name": "{name}", "TaskTemplate": {{"ContainerSpec": {{"Image": "{image}"}}}}}}"#)
    };
    for (method, path, body, status, word) in [
        ("POST", create, "{".to_owned(), 400, "EOF"),
        ("POST", create, "[1, 2".to_owned(), 400, ""),
        ("POST", create, String::new(), 400, ""),
        ("POST", create, r#"{"Name": 7}"#.to_owned(), 400, "expected a string"),
        ("POST", create, r#"{"Name": "x", "Mode": {"Replicated": {"Replicas": "two"}}}"#.to_owned(), 400, ""),
        ("POST", create, service("web", ALPINE), 409, "already exists"),
        ("POST", create, service("x", "UPPER CASE"), 400, "UPPER CASE"),
        ("POST", create, service("no good name", ALPINE), 400, "no good name"),
        ("POST", "/v1.41/containers/create", "{}".to_owned(), 400, ""),
        ("POST", "/v1.41/containers/create", r#"{"Image": "missing"}"#.to_owned(), 404, "missing"),
        ("GET", "/v1.41/services/missing", String::new(), 404, "missing"),
        ("GET", "/v1.41/nodes/missing", String::new(), 404, "missing"),
        ("GET", "/v9.99/info", String::new(), 400, "9.99"),
        ("GET", "/v1.41/nothing/here", String::new(), 404, ""),
        ("POST", "/v1.41/nodes/missing/update?version=x", "{}".to_owned(), 400, ""),
    ] {
        let (found, answer) = lab.request("m1", method, path, (method == "POST").then_some(body.as_str()));
        assert_eq!(found, status, "{method} {path} {body}: {answer}");
        let message = message(&answer);
        assert!(message.contains(word), "{method} {path} {body}: {message:?} does not say {word:?}");
    }
    // The fields of an unknown, later version are not minded.
    let later = service("later", ALPINE).replacen('{', r#"{"FieldOfTomorrow": [1], "#, 1);
    assert_eq!(lab.request("m1", "POST", create, Some(&later)).0, 201);
    lab.docker("m1", &["run", "--rm", "Not/Valid:::", "true"]).refused();
    goes_on(&lab, "m1");
}

/// Sends raw bytes to the API and returns what comes back until the daemon has had enough, or time is up.
fn raw(lab: &Lab, pieces: &[&[u8]]) -> String {
    let mut stream = UnixStream::connect(lab.socket("m1")).expect("the daemon listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    for piece in pieces {
        // The daemon may hang up in the middle: that is its good right.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn floods_halves_and_garbage_do_not_disturb_the_daemon() {
    let Some(lab) = Lab::cluster(1, 1) else { return };
    lab.create_sleepers("m1", "web", 2);
    wait::until_equal(REPAIR, "2 tasks", &vec![1, 2], || lab.slots("web", lab.hosts()));
    let kept = lab.running(lab.hosts());

    let memory = || {
        let pid = fs::read_to_string(lab.directory("m1").join("pid")).expect("a pid file");
        let status = lab.script(&["exec", "m1", "cat", &format!("/proc/{}/status", pid.trim())]);
        let line = status.ok().lines().find(|line| line.starts_with("VmHWM:")).map(str::to_owned);
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kilobytes.expect("the kernel says how much")
    };
    let before = memory();
    let head = |length: usize| {
        format!(
            "POST /v1.41/services/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let megabyte = vec![b' '; 1 << 20];
    let mut flood = vec![megabyte.as_slice(); 100];
    let large = head(100 << 20);
    flood.insert(0, large.as_bytes());
    let answer = raw(&lab, &flood);
    assert!(answer.starts_with("HTTP/1.1 413") || answer.starts_with("HTTP/1.1 400"), "{answer:?}");
    let grown = memory().saturating_sub(before);
    assert!(grown < 32 << 10, "a body of 100 MB takes {grown} kB");

    // Half a request: others are served meanwhile, and its end is noticed.
    let half = UnixStream::connect(lab.socket("m1")).expect("the daemon listens");
    (&half)
        .write_all(head(100).as_bytes())
        .and_then(|()| (&half).write_all(b"{\"Name\""))
        .expect("it is taken");
    goes_on(&lab, "m1");
    drop(half);
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"GET\r\n\r\n", b"\0\0\0\0", b"GET / HTTP/9.9\r\n\r\n"]
    {
        raw(&lab, &[garbage, b"\r\n\r\n"]);
    }
    // Whoever connects and says nothing holds nobody up.
    let silent: Vec<UnixStream> =
        (0..200).filter_map(|_| UnixStream::connect(lab.socket("m1")).ok()).collect();
    goes_on(&lab, "m1");
    drop(silent);

    // Noise on the control port: from another host, in all sizes.
    let noise = "for n in 1 20 100 1200 1472; do for i in $(seq 40); do head -c $n /dev/urandom > /dev/udp/10.77.0.11/2377; done; done";
    lab.script(&["exec", "hub", "bash", "-c", noise]).ok();
    let initial = "for i in $(seq 200); do { printf '\\xc3\\x00\\x00\\x00\\x01\\x08'; head -c 1194 /dev/urandom; } > /dev/udp/10.77.0.11/2377; done";
    lab.script(&["exec", "hub", "bash", "-c", initial]).ok();
    goes_on(&lab, "m1");
    wait::stays(2, "the tasks", &kept, || lab.running(lab.hosts()));
    assert_eq!(lab.node("m1", "w1")[0], "ready");
}

/// The daemon of a host, started by hand: it has to end by itself. What it said.
fn refuses_to_start(lab: &Lab, host: &str) -> String {
    let directory = lab.directory(host);
    let binary = std::env::var("COVEY_BIN").expect("looked at before");
    let (data, socket) = (directory.join("data"), format!("unix://{}", lab.socket(host).display()));
    let reply = lab.script(&[
        "exec",
        host,
        "timeout",
        "10",
        &binary,
        "daemon",
        "-H",
        &socket,
        "--data-root",
        data.to_str().expect("a plain path"),
        "--exec-root",
        "/run/covey",
    ]);
    let reason = reply.refused().to_owned();
    assert_ne!(reply.code, 124, "it starts: {reason}");
    reason
}

/// Ends the daemon of a host, by its own pid.
fn stop_daemon(lab: &Lab, host: &str) {
    let pid = fs::read_to_string(lab.directory(host).join("pid")).expect("a pid file");
    lab.script(&["exec", host, "kill", pid.trim()]).ok();
    wait::until(REPAIR, "its end", || !lab.directory(host).join("pid").exists());
}

/// QRM-01, QRM-16: a daemon that cannot trust its data says so and touches nothing; put right, it goes on.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn data_of_a_newer_version_or_damaged_data_is_not_touched() {
    let Some(lab) = Lab::cluster(1, 0) else { return };
    lab.create_sleepers("m1", "web", 1);
    wait::until_equal(REPAIR, "a task", &vec![1], || lab.slots("web", ["m1"]));
    let kept = lab.running(["m1"]);
    stop_daemon(&lab, "m1");
    let raft = lab.directory("m1").join("data/swarm/raft");

    let identity = fs::read_to_string(raft.join("identity")).expect("the log has an owner");
    let (_, rest) = identity.split_once(' ').expect("its format comes first");
    fs::write(raft.join("identity"), format!("9999 {rest}")).expect("it is written");
    let reason = refuses_to_start(&lab, "m1");
    assert!(reason.contains("format 9999") && reason.contains("newer"), "{reason}");
    assert!(!reason.contains("panicked"), "{reason}");
    fs::write(raft.join("identity"), &identity).expect("it is written");

    let log = fs::read(raft.join("log.redb")).expect("there is a log");
    let mut damaged = log.clone();
    for page in damaged.chunks_mut(4096).skip(1) {
        page[100..200].iter_mut().for_each(|byte| *byte ^= 0xa5);
    }
    fs::write(raft.join("log.redb"), &damaged).expect("it is written");
    let reason = refuses_to_start(&lab, "m1");
    // The database itself gives up loudly; the last line is ours.
    let last = reason.lines().rfind(|line| line.contains("log.redb")).unwrap_or_else(|| panic!("{reason}"));
    assert!(last.contains("corrupt") || last.contains("damaged"), "{reason}");
    assert_eq!(fs::read(raft.join("log.redb")).expect("it is there").len(), damaged.len(), "it is kept");
    fs::write(raft.join("log.redb"), &log).expect("it is written");

    let certificate = lab.directory("m1").join("data/swarm/node.crt");
    let good = fs::read(&certificate).expect("there is a certificate");
    fs::write(&certificate, b"no certificate at all").expect("it is written");
    let reason = refuses_to_start(&lab, "m1");
    assert!(reason.contains("node.crt") || reason.contains("certificate"), "{reason}");
    assert!(!reason.contains("panicked"), "{reason}");
    fs::write(&certificate, &good).expect("it is written");

    lab.script(&["start", "m1"]).ok();
    wait::until(REPAIR, "its leadership", || lab.leader("m1").as_deref() == Some("m1"));
    wait::stays(2, "the task", &kept, || lab.running(["m1"]));
}

/// PKI-01, PKI-05: a member of another cluster is nobody here.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_certificate_of_another_cluster_opens_nothing() {
    let Some(lab) = Lab::up(Wanted { managers: 2, workers: 1, swarm: false }) else { return };
    for host in ["m1", "m2"] {
        lab.docker(host, &["swarm", "init", "--advertise-addr", &lab.address(host)]).ok();
    }
    let token = lab.docker("m1", &["swarm", "join-token", "-q", "worker"]).ok().to_owned();
    lab.docker("w1", &["swarm", "join", "--token", &token, &format!("{}:2377", lab.address("m1"))]).ok();
    // The worker's identity is replaced by one of the other cluster, at the address of the first.
    stop_daemon(&lab, "w1");
    let data = |host: &str| lab.directory(host).join("data/swarm");
    for file in ["node.key", "node.crt", "ca.crt"] {
        fs::copy(data("m2").join(file), data("w1").join(file)).expect("it is copied");
    }
    // Whether it starts or not, the cluster does not take it for one of its own.
    lab.script(&["start", "w1"]);
    wait::until(REPAIR, "w1 being down", || lab.node("m1", "w1")[0] == "down");
    assert_eq!(lab.leader("m1").as_deref(), Some("m1"));
    assert_eq!(lab.leader("m2").as_deref(), Some("m2"));
    assert_eq!(lab.get("m1", "/nodes").and_then(|nodes| nodes.as_array().map(Vec::len)), Some(2));
    assert!(!lab.log("m1").contains("panicked"), "{}", lab.log("m1"));
}

/// A disk that is full: a clear error, and room again is all that it needs.
#[test]
#[ignore = "needs root and the release binary: scripts/test runs it"]
fn a_full_disk_is_said_and_survived() {
    let Some(lab) = Lab::cluster(1, 0) else { return };
    stop_daemon(&lab, "m1");
    let directory = lab.directory("m1");
    let small = format!(
        "mkdir -p /run/small && mount -t tmpfs -o size=24m small /run/small && cp -a {data}/. /run/small/ && \
         mount --bind /run/small {data}",
        data = directory.join("data").display()
    );
    lab.script(&["exec", "m1", "sh", "-c", &small]).ok();
    lab.script(&["start", "m1"]).ok();
    wait::until(REPAIR, "its leadership", || lab.leader("m1").as_deref() == Some("m1"));
    lab.script(&["exec", "m1", "sh", "-c", "cat /dev/zero > /run/small/fill 2>/dev/null; true"]).ok();
    let reply = lab.covey("m1", &["run", "-d", "--name", "one", ALPINE, "sleep", "1000"]);
    let reason = reply.refused();
    assert!(reason.to_lowercase().contains("no space left"), "{reason}");
    lab.script(&["exec", "m1", "rm", "/run/small/fill"]).ok();
    // Its log may have stopped: then a restart is what it asks for.
    if lab.covey("m1", &["service", "ls"]).code != 0 {
        lab.script(&["restart", "m1"]).ok();
    }
    wait::until(REPAIR, "its leadership", || lab.leader("m1").as_deref() == Some("m1"));
    lab.create_sleepers("m1", "web", 1);
    wait::until_equal(REPAIR, "a task", &vec![1], || lab.slots("web", ["m1"]));
    assert!(!lab.log("m1").contains("panicked"), "{}", lab.log("m1"));
}
