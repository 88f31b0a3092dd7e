//! `load` and `import`, and what the store remembers of them.

use std::{fs, io::Write as _, process::Command};

use covey_runtime::image::{Digest, ImageDefaults, StoreError};
use serde_json::json;

use crate::fixture::{
    Fixture, Recorded, Tar, chain, config, docker_archive, have, open, run, silent, umoci_layout,
};

async fn read(path: &std::path::Path) -> tokio::fs::File {
    tokio::fs::File::open(path).await.unwrap()
}

/// CTR-02
#[tokio::test]
async fn archives_of_docker_and_layouts_give_the_same_layers() {
    if !have(&["skopeo", "umoci", "busybox"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layout = umoci_layout(dir.path());
    let source = format!("oci:{}:box", layout.display());
    let [docker, oci, packed] = ["docker.tar", "oci.tar", "layout.tar.gz"].map(|name| dir.path().join(name));
    let copy = |target: String| run("skopeo", &["--insecure-policy", "copy", "-q", &source, &target]);
    copy(format!("docker-archive:{}:box:docker", docker.display()));
    copy(format!("oci-archive:{}:box:oci", oci.display()));
    run("tar", &["-czf", packed.to_str().unwrap(), "-C", layout.to_str().unwrap(), "."]);

    let fixture = Fixture::new();
    let recorded = Recorded::default();
    let mut ids = Vec::new();
    for archive in [&docker, &oci, &packed] {
        ids.push(fixture.store.load(read(archive).await, recorded.sink()).await.unwrap()[0].id);
    }
    let lower = fixture.lower("box:docker").await;
    assert_eq!(lower, fixture.lower("box:oci").await);
    assert_eq!(lower, fixture.lower(&ids[2].to_string()).await);
    assert_eq!(fixture.layer_dirs().len(), 2, "each layer is unpacked once");
    assert!(fs::metadata(lower[1].join("bin/busybox")).unwrap().len() > 100_000);
    assert!(lower[0].join("added").is_file() && !lower[0].join("removed").is_file());
    let said = Command::new("chroot").arg(&lower[1]).args(["/bin/sh", "-c", "echo runs"]).output().unwrap();
    assert_eq!(said.stdout, b"runs\n");
    let defaults = fixture.store.rootfs("box:oci").await.unwrap().defaults;
    assert_eq!((defaults.cmd, defaults.labels["a"].as_str()), (vec!["sh".to_owned()], "b"));
    assert!(defaults.env.contains(&"WHO=box".to_owned()));
    assert_eq!(recorded.count("Loaded image: box:docker"), 1);
    assert_eq!(recorded.count("Loaded image: box:oci"), 1);
    assert!(fixture.leftovers().is_empty());
}

/// CTR-02
#[tokio::test]
async fn an_archive_may_end_with_its_table_and_link_its_layers() {
    let fixture = Fixture::new();
    let settings = json!({ "Env": ["A=1"], "Healthcheck": { "Test": ["CMD", "true"] }, "ExposedPorts": { "80/tcp": {} } });
    let archive =
        docker_archive(&[Tar::default().file("x", "12").end()], settings, &["a:1", "localhost:5000/b:2"]);
    let loaded = fixture.store.load(&archive[..], silent()).await.unwrap();
    let names: Vec<_> = loaded[0].tags.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a:1", "localhost:5000/b:2"]);
    let details = fixture.store.inspect("a:1").await.unwrap();
    assert_eq!(details.config["config"]["Healthcheck"]["Test"][1], "true", "what we do not know is kept");
    assert_eq!((details.os.as_str(), details.summary.size), ("linux", 2));
    assert_eq!(details.summary.tags, ["a:1", "localhost:5000/b:2"]);
    let short = details.summary.id.short();
    assert_eq!(fixture.store.inspect(&short[..4]).await.unwrap(), details);
    for name in ["a", "a:2", "b:2", "ffff", "A:1"] {
        let error = fixture.store.inspect(name).await.unwrap_err().to_string();
        assert!(error.starts_with("No such image: "), "{error}");
    }
}

/// CTR-02
#[tokio::test]
async fn archives_that_are_none_or_lie_are_refused() {
    let fixture = Fixture::new();
    let layer = Tar::default().file("x", "").end();
    let lie = Tar::default()
        .file("config.json", &config(&[Tar::default().file("y", "").end()], json!({})))
        .entry(tar::EntryType::Regular, "layer.tar", "", 0o644, &layer)
        .file(
            "manifest.json",
            &json!([{ "Config": "config.json", "RepoTags": null, "Layers": ["layer.tar"] }]).to_string(),
        );
    let missing = Tar::default().file("config.json", &config(&[layer], json!({}))).file(
        "manifest.json",
        &json!([{ "Config": "config.json", "Layers": ["../../etc/passwd"] }]).to_string(),
    );
    let broken = Tar::default().file("manifest.json", "[{");
    let index = json!({ "manifests": [{ "digest": Digest::of(b"x"), "size": 1 }] }).to_string();
    for (archive, expected) in [
        (
            Tar::default().file("x", "").end(),
            "not an image archive: it has neither manifest.json nor index.json",
        ),
        (lie.end(), "has the wrong content: its diff id is"),
        (missing.end(), "the archive lacks ../../etc/passwd"),
        (broken.end(), "manifest.json in the archive is not understood"),
        (Tar::default().file("index.json", &index).end(), "the archive lacks blobs/sha256/"),
        (b"nonsense".repeat(100), "cannot read the archive"),
    ] {
        let error = chain(&fixture.store.load(&archive[..], silent()).await.unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
    assert!(fixture.layer_dirs().is_empty() && fixture.leftovers().is_empty());
}

/// CTR-06
#[tokio::test]
async fn a_root_file_system_becomes_an_image() {
    let fixture = Fixture::new();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&Tar::default().file("hello", "world").end()).unwrap();
    let zstd = zstd::encode_all(&Tar::default().file("hello", "world").end()[..], 1).unwrap();
    let changes = ["CMD [\"cat\", \"/hello\"]".to_owned(), "ENV A=1".to_owned()];
    let name = "mine:1".parse().unwrap();
    let packed = packed.finish().unwrap();
    let id = fixture.store.import(&packed[..], Some(&name), &changes, "Imported from -").await.unwrap();
    fixture.store.import(&zstd[..], None, &[], "").await.unwrap();
    assert_eq!(fixture.layer_dirs().len(), 1, "the same tar is one layer");
    let rootfs = fixture.store.rootfs("mine:1").await.unwrap();
    assert_eq!(rootfs.image, id);
    let expected = ImageDefaults {
        cmd: vec!["cat".into(), "/hello".into()],
        env: vec!["A=1".into()],
        ..ImageDefaults::default()
    };
    assert_eq!(rootfs.defaults, expected);
    assert_eq!(fs::read_to_string(fixture.lower("mine:1").await[0].join("hello")).unwrap(), "world");
    let history = fixture.store.history("mine:1").await.unwrap();
    assert_eq!((history[0].comment.as_str(), history[0].size), ("Imported from -", 5));
    let bad = fixture.store.import(&packed[..], None, &["RUN x".into()], "").await.unwrap_err();
    assert_eq!(bad.to_string(), "RUN is not a valid change command");
}

/// CTR-06
#[tokio::test]
async fn a_store_remembers_and_sweeps_what_a_crash_left_behind() {
    let fixture = Fixture::new();
    let archive = docker_archive(&[Tar::default().file("x", "12").end()], json!({}), &["kept:1"]);
    fixture.store.load(&archive[..], silent()).await.unwrap();
    let before = fixture.store.list().await;
    let unfinished = fixture.root().join("layers").join("0".repeat(64));
    fs::create_dir(&unfinished).unwrap();
    fs::create_dir_all(fixture.root().join("tmp/7/deep")).unwrap();
    let again = open(fixture.dir.path()).unwrap();
    assert_eq!(again.list().await, before);
    assert!(!unfinished.exists() && fixture.leftovers().is_empty());
    assert_eq!(fixture.store.rootfs("kept:1").await.unwrap(), again.rootfs("kept:1").await.unwrap());
}

/// CTR-06
#[tokio::test]
async fn damaged_metadata_is_named() {
    let fixture = Fixture::new();
    let archive = docker_archive(&[Tar::default().file("x", "").end()], json!({}), &["a"]);
    let id = fixture.store.load(&archive[..], silent()).await.unwrap()[0].id;
    let [image, layer] = [
        fixture.root().join("images").join(id.hex() + ".json"),
        fixture.root().join("layers").join(fixture.layer_dirs().remove(0) + ".json"),
    ];
    let references = fixture.root().join("images/references.json");
    for path in [image.clone(), layer, references] {
        let good = fs::read_to_string(&path).unwrap();
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        let error = open(fixture.dir.path()).unwrap_err();
        assert!(
            matches!(error, StoreError::Corrupt { .. }) && error.to_string().contains(path.to_str().unwrap())
        );
        fs::write(&path, good.replace("\"format\":1", "\"format\":2")).unwrap();
        let error = open(fixture.dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("has format 2, which is newer than this program's 1"), "{error}");
        fs::write(&path, good).unwrap();
    }
    let good = fs::read_to_string(&image).unwrap();
    fs::write(&image, good.replace("2026-01-02", "2026-01-03")).unwrap();
    assert!(matches!(open(fixture.dir.path()), Err(StoreError::Mismatch { .. })));
    fs::write(&image, good).unwrap();
    open(fixture.dir.path()).unwrap();
}
