//! Images on their way in: long work whose progress a client watches.

use std::sync::Arc;

use covey_api::{
    Failure,
    engine::{Import, Progress, ProgressStream, Pull, RegistryAuth, Resolved, Upload},
};
use covey_runtime::image::{self, ProgressSink, Reference};
use covey_state::service::Platform;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_util::{io::StreamReader, task::AbortOnDropHandle};

use super::{LocalEngine, failure};

/// Steps that a client may be behind before it loses some.
const BEHIND_MAX: usize = 1024;
/// Places that are kept for lines: a step of a bar can be missed, since the next one says all.
const LINES: usize = BEHIND_MAX / 2;

/// The progress of `work`, which goes on by itself, however slowly the client reads, and is cancelled with the stream.
pub fn stream<F>(work: impl FnOnce(ProgressSink) -> F) -> ProgressStream
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (to, from) = mpsc::channel(BEHIND_MAX);
    let work = work(sink(to.clone()));
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(failure) = work.await {
            // A client that left does not mind.
            let _ = to.send(Err(failure)).await;
        }
    }));
    stream::unfold((from, Some(task)), |(mut from, task)| async {
        match from.recv().await {
            Some(step) => Some((step, (from, task))),
            // The end, unless the work broke down: a client must not take that for success.
            None => {
                let broken = task?.await.err()?;
                Some((Err(failure::internal(&broken)), (from, None)))
            }
        }
    })
    .boxed()
}

fn sink(to: mpsc::Sender<Result<Progress, Failure>>) -> ProgressSink {
    Arc::new(move |step: image::Progress| {
        if step.bytes.is_some() && to.capacity() <= LINES {
            return;
        }
        let step = Progress { id: step.id, status: step.status, amount: step.bytes };
        // A client that is that far behind, or has left, misses it.
        let _ = to.try_send(Ok(step));
    })
}

impl LocalEngine {
    pub(super) async fn pull_image(self, request: Pull, progress: ProgressSink) -> Result<(), Failure> {
        let reference = request.reference.parse::<Reference>().map_err(failure::reference)?;
        if let Some(platform) = &request.platform {
            for_this_machine(platform)?;
        }
        let auth = credentials(request.auth, reference.registry())?;
        let pulled = self.images.pull(&reference, auth, progress).await.map_err(failure::pull)?;
        self.tell_image("pull", &pulled.id.to_string(), reference.to_string(), reference.familiar_name())
            .await;
        Ok(())
    }

    pub(super) async fn load_images(self, archive: Upload, progress: ProgressSink) -> Result<(), Failure> {
        for loaded in self.images.load(StreamReader::new(archive), progress).await.map_err(failure::load)? {
            let id = loaded.id.to_string();
            self.tell_image("load", &id, id.clone(), id.clone()).await;
        }
        Ok(())
    }

    pub(super) async fn import_image(
        self,
        request: Import,
        tree: Upload,
        progress: ProgressSink,
    ) -> Result<(), Failure> {
        let reference = match request.reference.as_str() {
            "" => None,
            text => Some(text.parse::<Reference>().map_err(failure::reference)?),
        };
        let tree = StreamReader::new(tree);
        let imported = self.images.import(tree, reference.as_ref(), &request.changes, &request.message).await;
        let id = imported.map_err(failure::import)?.to_string();
        self.tell_image("import", &id, id.clone(), id.clone()).await;
        progress(image::Progress { id: String::new(), status: id, bytes: None });
        Ok(())
    }

    pub(super) async fn resolve_image(
        &self,
        reference: String,
        auth: Option<RegistryAuth>,
    ) -> Result<Resolved, Failure> {
        let reference = reference.parse::<Reference>().map_err(failure::reference)?;
        let auth = credentials(auth, reference.registry())?;
        let resolved = self.images.resolve(&reference, auth).await.map_err(failure::registry)?;
        let platforms = resolved.platforms.into_iter();
        Ok(Resolved {
            digest: resolved.digest.to_string(),
            media_type: resolved.media_type,
            size: resolved.size,
            platforms: platforms.map(|p| Platform { os: p.os, architecture: p.architecture }).collect(),
        })
    }
}

/// Images of other platforms would not run here, so they are not fetched.
fn for_this_machine(platform: &Platform) -> Result<(), Failure> {
    let here = architecture(std::env::consts::ARCH);
    let fits = matches!(platform.os.as_str(), "" | "linux")
        && (platform.architecture.is_empty() || architecture(&platform.architecture) == here);
    if fits {
        return Ok(());
    }
    Err(Failure::not_yet(format!("pulling for {}/{} on linux/{here}", platform.os, platform.architecture)))
}

/// The word of image indexes for what a machine or a user may call otherwise.
fn architecture(word: &str) -> &str {
    match word {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// What `registry` is shown; credentials of another one are no business of it.
fn credentials(auth: Option<RegistryAuth>, registry: &str) -> Result<Option<image::RegistryAuth>, Failure> {
    let Some(auth) = auth.filter(|auth| auth.server.is_empty() || host(&auth.server) == registry) else {
        return Ok(None);
    };
    if !auth.identity_token.is_empty() {
        return Err(Failure::not_yet("logging in to a registry by identity token (use a password)"));
    }
    Ok(Some(image::RegistryAuth::Basic(auth.username, auth.password)))
}

/// The registry that a client means: it may write `https://host:port/v1/`, and Docker Hub in ways of its own.
fn host(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(server: &str) -> Option<RegistryAuth> {
        Some(RegistryAuth {
            username: "u".into(),
            password: "p".into(),
            server: server.to_owned(),
            ..RegistryAuth::default()
        })
    }

    #[test]
    fn credentials_go_to_their_own_registry_only() {
        let basic = Some(image::RegistryAuth::Basic("u".into(), "p".into()));
        for (server, registry) in [
            ("", "example.org"),
            ("example.org:5000", "example.org:5000"),
            ("https://example.org/v2/", "example.org"),
            ("https://index.docker.io/v1/", "docker.io"),
        ] {
            assert_eq!(credentials(auth(server), registry), Ok(basic.clone()), "{server}");
        }
        assert_eq!(credentials(auth("https://example.org/"), "example.com"), Ok(None));
        assert_eq!(credentials(None, "example.com"), Ok(None));
        let token = RegistryAuth { identity_token: "t".into(), ..RegistryAuth::default() };
        assert!(credentials(Some(token), "example.com").is_err());
    }

    #[test]
    fn only_images_for_this_machine_are_fetched() {
        let platform =
            |os: &str, architecture: &str| Platform { os: os.into(), architecture: architecture.into() };
        for fitting in [platform("", ""), platform("linux", std::env::consts::ARCH)] {
            assert_eq!(for_this_machine(&fitting), Ok(()));
        }
        assert!(for_this_machine(&platform("windows", "")).is_err());
        assert!(for_this_machine(&platform("linux", "s390x")).is_err());
    }

    #[tokio::test]
    async fn a_slow_client_loses_bars_before_lines() {
        let step = |status: &str, bytes| image::Progress { id: "layer".into(), status: status.into(), bytes };
        let steps = stream(|sink| async move {
            for done in 0..2 * BEHIND_MAX as u64 {
                sink(step("Downloading", Some((done, done))));
            }
            sink(step("Pull complete", None));
            Err(Failure::internal("in the end"))
        });
        let steps: Vec<_> = steps.collect().await;
        assert_eq!(steps.len(), BEHIND_MAX - LINES + 2);
        let [.., line, end] = steps.as_slice() else { unreachable!() };
        assert!(line.as_ref().is_ok_and(|line| line.status == "Pull complete"), "{line:?}");
        assert_eq!(end, &Err(Failure::internal("in the end")));
    }

    #[tokio::test]
    async fn a_client_that_leaves_cancels_the_work() {
        let (held, gone) = tokio::sync::oneshot::channel::<()>();
        drop(stream(|_| async move {
            let _held = held;
            std::future::pending().await
        }));
        let gone = tokio::time::timeout(std::time::Duration::from_secs(10), gone).await;
        assert!(gone.expect("the work to be dropped").is_err());
    }
}
