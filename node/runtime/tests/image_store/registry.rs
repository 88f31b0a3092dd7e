//! `pull` and `resolve`, against Debian's registry and against one that lies.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use covey_runtime::image::{Digest, PullError, Reference, RegistryError};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fixture::{Fixture, Recorded, Tar, architecture, chain, config, have, run, silent, umoci_layout};

/// The product does this in `main`.
fn provider() {
    // Another test of this process may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Debian's `docker-registry` on a free loopback port, holding `box:1`.
struct Registry {
    child: Child,
    dir: TempDir,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    fn start() -> Option<Self> {
        provider();
        if !have(&["docker-registry", "skopeo", "umoci", "busybox"]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (child, address) = (0..5).find_map(|_| serve(dir.path())).expect("the registry listens");
        let registry = Self { child, dir, address };
        let layout = umoci_layout(registry.dir.path());
        let (from, to) =
            (format!("oci:{}:box", layout.display()), format!("docker://{}/box:1", registry.address));
        run("skopeo", &["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &from, &to]);
        Some(registry)
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }

    /// The file in which the registry keeps a blob.
    fn blob(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir.path().join("data/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

/// Starts a registry; `None` where somebody else took the port in between.
fn serve(dir: &Path) -> Option<(Child, String)> {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = dir.join("config.yml");
    let text = format!(
        "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem: {{ rootdirectory: {}/data }}\nhttp: {{ addr: '{address}' }}\n",
        dir.display()
    );
    fs::write(&config, text).unwrap();
    let mut child = Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
        if TcpStream::connect(&address).is_ok() {
            return Some((child, address));
        }
        std::thread::yield_now();
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// CTR-02, CTR-08, SVC-06, SVC-08
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_pulled_once_and_shown_as_docker_shows_it() {
    let Some(registry) = Registry::start() else { return };
    let fixture = Fixture::new();
    let reference = registry.reference("box:1");
    let resolved = fixture.store.resolve(&reference, None).await.unwrap();
    let recorded = Recorded::default();
    let pulled = fixture.store.pull(&reference, None, recorded.sink()).await.unwrap();
    assert_eq!((pulled.digest, pulled.newer), (resolved.digest, true));
    assert_eq!(resolved.platforms[0].architecture, architecture());
    assert_eq!(resolved.platforms[0].os, "linux");
    let lines = recorded.lines();
    assert_eq!(lines[0], "1: Pulling from box");
    for status in ["Pulling fs layer", "Pull complete", "Extracting"] {
        assert_eq!(recorded.count(status), 2, "{status}: {lines:?}");
    }
    assert!(recorded.count("Downloading") > 1);
    let end =
        [format!("Digest: {}", pulled.digest), format!("Status: Downloaded newer image for {reference}")];
    assert_eq!(lines[lines.len() - 2..], end);
    let lower = fixture.lower(&reference.to_string()).await;
    assert!(lower[1].join("bin/busybox").is_file() && lower[0].join("added").is_file());
    assert_eq!(
        fixture.store.list().await[0].digests,
        [format!("{}/box@{}", registry.address, pulled.digest)]
    );

    let again = Recorded::default();
    assert!(!fixture.store.pull(&reference, None, again.sink()).await.unwrap().newer);
    assert_eq!((again.count("Already exists"), again.count("Pull complete")), (2, 0));
    assert_eq!(again.lines().last().unwrap(), &format!("Status: Image is up to date for {reference}"));

    let pinned = reference.pinned(resolved.digest);
    fixture.store.pull(&pinned, None, silent()).await.unwrap();
    assert_eq!(fixture.store.rootfs(&pinned.to_string()).await.unwrap().image, pulled.id);
    let wrong = reference.pinned(Digest::of(b"another"));
    let error = fixture.store.pull(&wrong, None, silent()).await.unwrap_err();
    assert!(matches!(error, PullError::Registry(RegistryError::NotFound(_))), "{error:?}");
    assert!(fixture.leftovers().is_empty());
}

/// CTR-02
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_at_the_same_time_fetch_a_layer_once() {
    let Some(registry) = Registry::start() else { return };
    let fixture = Fixture::new();
    let recorded = Recorded::default();
    let reference = registry.reference("box:1");
    let pull = || fixture.store.pull(&reference, None, recorded.sink());
    let (a, b, c, d) = tokio::join!(pull(), pull(), pull(), pull());
    let ids = [a, b, c, d].map(|pulled| pulled.unwrap().id);
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!((recorded.count("Pull complete"), recorded.count("Already exists")), (2, 6));
    assert!(fixture.leftovers().is_empty());
}

/// CTR-02
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_with_the_wrong_content_is_refused_and_leaves_nothing() {
    let Some(registry) = Registry::start() else { return };
    let fixture = Fixture::new();
    let reference = registry.reference("box:1");
    let raw = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]);
    let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
    let top: Digest = manifest["layers"][1]["digest"].as_str().unwrap().parse().unwrap();
    let good = fs::read(registry.blob(top)).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(registry.blob(top), bad).unwrap();
    let error = chain(&fixture.store.pull(&reference, None, silent()).await.unwrap_err());
    assert!(error.contains(&format!("layer {top} has the wrong content: its digest is")), "{error}");
    assert!(fixture.store.list().await.is_empty() && fixture.leftovers().is_empty());
    assert_eq!(fixture.layer_dirs().len(), 1, "the layer below was right and stays for the next try");
    fs::write(registry.blob(top), good).unwrap();
    let recorded = Recorded::default();
    fixture.store.pull(&reference, None, recorded.sink()).await.unwrap();
    assert_eq!((recorded.count("Already exists"), recorded.count("Pull complete")), (1, 1));
}

/// An answer that breaks off in the middle unless it is asked for the rest.
const CUT: u16 = 0;

/// A registry of the test's own: paths and their answers, everything else is 404.
async fn fake(answers: BTreeMap<String, (u16, Vec<u8>)>) -> String {
    provider();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match socket.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => break,
                }
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let (status, body) = answers.get(path).cloned().unwrap_or((404, b"{}".to_vec()));
            let range = request.to_lowercase().split("range: bytes=").nth(1).map(str::to_owned);
            let from = range.and_then(|range| range.split('-').next()?.parse::<usize>().ok());
            let (status, body, sent) = match (status, from) {
                (_, Some(from)) => (206, body[from..].to_vec(), body.len() - from),
                (CUT, None) => (200, body.clone(), body.len() / 2),
                (status, None) => (status, body.clone(), body.len()),
            };
            let head =
                format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = socket.write_all(&[head.as_bytes(), &body[..sent]].concat()).await;
        }
    });
    address
}

/// An image of one layer, as its three answers; `twist` may change the layer that is served.
fn image(layer: &[u8], served: Vec<u8>, os: &str) -> BTreeMap<String, (u16, Vec<u8>)> {
    let config = config(&[layer.to_vec()], json!({})).replace("\"linux\"", &format!("\"{os}\""));
    let [config_digest, layer_digest] = [Digest::of(config.as_bytes()), Digest::of(&served)];
    let manifest = json!({ "schemaVersion": 2, "config": { "digest": config_digest, "size": config.len() },
        "layers": [{ "digest": layer_digest, "size": served.len(), "urls": ["http://127.0.0.1:1/elsewhere"] }] });
    BTreeMap::from([
        ("/v2/x/manifests/latest".to_owned(), (200, manifest.to_string().into_bytes())),
        (format!("/v2/x/blobs/{config_digest}"), (200, config.into_bytes())),
        (format!("/v2/x/blobs/{layer_digest}"), (200, served)),
    ])
}

async fn pull_error(answers: BTreeMap<String, (u16, Vec<u8>)>) -> String {
    let fixture = Fixture::new();
    let reference = format!("{}/x", fake(answers).await).parse().unwrap();
    let error = fixture.store.pull(&reference, None, silent()).await.unwrap_err();
    assert!(fixture.layer_dirs().is_empty() && fixture.leftovers().is_empty());
    assert!(fixture.store.list().await.is_empty());
    chain(&error)
}

/// CTR-02
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_lies_is_found_out() {
    let layer = Tar::default().file("x", "content").end();
    let mut answers = image(&layer, layer.clone(), "linux");
    let fixture = Fixture::new();
    let reference = format!("{}/x", fake(answers.clone()).await).parse().unwrap();
    fixture.store.pull(&reference, None, silent()).await.unwrap();

    let other = Tar::default().file("y", "content").end();
    let error = pull_error(image(&layer, other.clone(), "linux")).await;
    assert!(error.contains("its diff id is"), "{error}");
    let path = format!("/v2/x/blobs/{}", Digest::of(&layer));
    answers.insert(path.clone(), (200, other));
    let error = pull_error(answers.clone()).await;
    assert!(error.contains("has the wrong content: its digest is"), "{error}");
    answers.insert(path, (200, [layer.clone(), vec![0; 512]].concat()));
    let error = pull_error(answers).await;
    assert!(error.contains(&format!("bytes instead of {}", layer.len())), "{error}");

    let error = pull_error(image(&layer, layer.clone(), "windows")).await;
    assert_eq!(error, "image operating system \"windows\" cannot be used on this platform: it is linux");
    for (manifest, expected) in [
        ("{}".to_owned(), "not an image manifest"),
        (" ".repeat(5 << 20), "the manifest is too large"),
        (
            json!({ "manifests": [{ "digest": Digest::of(b""), "size": 1,
            "platform": { "os": "linux", "architecture": "s390x" } }] })
            .to_string(),
            "no matching manifest for linux/",
        ),
    ] {
        let answers = BTreeMap::from([("/v2/x/manifests/latest".to_owned(), (200, manifest.into_bytes()))]);
        let error = pull_error(answers).await;
        assert!(error.contains(expected), "{error}");
    }
}

/// CTR-02
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_transfer_goes_on_where_it_stopped() {
    let layer = Tar::default().file("x", &"content".repeat(100_000)).end();
    let mut answers = image(&layer, layer.clone(), "linux");
    let path = format!("/v2/x/blobs/{}", Digest::of(&layer));
    answers.insert(path, (CUT, layer));
    let fixture = Fixture::new();
    let reference = format!("{}/x", fake(answers).await).parse().unwrap();
    fixture.store.pull(&reference, None, silent()).await.unwrap();
    assert_eq!(fixture.store.list().await[0].size, 700_000);
}

/// SVC-07
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_unknown_and_forbidden_are_told_apart() {
    provider();
    let fixture = Fixture::new();
    let resolve = async |address: &str| {
        let reference = format!("{address}/x").parse().unwrap();
        fixture.store.resolve(&reference, None).await.unwrap_err()
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = resolve(&closed).await;
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("registry {closed} cannot be reached"));
    let unknown = fake(BTreeMap::new()).await;
    let error = resolve(&unknown).await;
    assert_eq!(error.to_string(), format!("manifest for {unknown}/x:latest not found: manifest unknown"));
    let denied = BTreeMap::from([("/v2/x/manifests/latest".to_owned(), (401, b"{}".to_vec()))]);
    let error = resolve(&fake(denied).await).await;
    assert!(matches!(error, RegistryError::Unauthorized(_)), "{error:?}");
    let broken = BTreeMap::from([("/v2/x/manifests/latest".to_owned(), (500, b"oops".to_vec()))]);
    let error = resolve(&fake(broken).await).await;
    assert!(matches!(error, RegistryError::Refused { .. }), "{error:?}");
}
