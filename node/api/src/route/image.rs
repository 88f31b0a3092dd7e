//! Images, and what registries say of them.

use axum::{
    Json as Reply, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use covey_state::service::Platform;
use futures_util::{StreamExt, TryStreamExt};

use crate::{
    app::App,
    convert::{self, reference::Reference},
    engine::{Image, Import, Pull, Upload},
    failure::Failure,
    filters::Filters,
    params::{Params, registry_auth},
    stream::lines::{self, Style},
    wire::image as wire,
};

const FILTERS: &[&str] = &["dangling", "label", "reference", "before", "since", "until"];

pub fn routes() -> Router<App> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        // An image's name may have slashes: what is asked of it comes after the last one.
        .route("/images/{*rest}", get(look).post(change).delete(remove))
        .route("/distribution/{*rest}", get(distribution))
}

async fn list(State(app): State<App>, params: Params) -> Result<Reply<Vec<wire::Summary>>, Failure> {
    let filters = params.filters(FILTERS)?;
    for key in ["before", "since", "until"] {
        if filters.get(key).is_some() {
            return Err(Failure::not_yet(format!("filter {key} of images")));
        }
    }
    let dangling = filters.switch("dangling")?;
    let containers = app.engine.containers().await?;
    let mut images = app.engine.images().await?;
    images.retain(|image| matches(image, &filters, dangling));
    images.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    let users = |image: &Image| containers.iter().filter(|container| container.image_id == image.id).count();
    Ok(Reply(images.iter().map(|image| convert::image::summary(image, users(image))).collect()))
}

fn matches(image: &Image, filters: &Filters, dangling: Option<bool>) -> bool {
    dangling.is_none_or(|wanted| wanted == image.tags.is_empty())
        && filters.labels("label", &image.labels)
        && filters.any("reference", |pattern| {
            image.tags.iter().any(|tag| {
                let name = tag.rsplit_once(':').map_or(tag.as_str(), |(name, _)| name);
                like(pattern, tag) || like(pattern, name)
            })
        })
}

/// True if `text` is `pattern`, in which `*` stands for any characters but a slash.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|tail| {
            let reach = tail.find('/').unwrap_or(tail.len());
            (0..=reach).filter(|at| tail.is_char_boundary(*at)).any(|at| like(rest, &tail[at..]))
        }),
    }
}

/// A pull, or an import where a source is named.
async fn create(
    State(app): State<App>,
    params: Params,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Failure> {
    match (params.text("fromImage"), params.text("fromSrc")) {
        ("", "-") => {
            let repository = params.text("repo");
            let reference = match repository {
                "" => String::new(),
                _ => reference(repository, params.text("tag"))?,
            };
            let import = Import {
                reference,
                changes: params.texts("changes"),
                message: params.text("message").to_owned(),
            };
            lines::progress(app.engine.import(import, upload(request)), Style::Status).await
        }
        ("", "") => Err(Failure::invalid("fromImage or fromSrc is needed")),
        ("", _) => Err(Failure::not_yet("importing from a URL")),
        (image, _) => {
            let pull = Pull {
                reference: reference(image, params.text("tag"))?,
                platform: platform(params.text("platform"))?,
                auth: registry_auth(&headers)?,
            };
            lines::progress(app.engine.pull(pull), Style::Status).await
        }
    }
}

/// `tag` may also be a digest.
fn reference(image: &str, tag: &str) -> Result<String, Failure> {
    let text = match tag {
        "" => image.to_owned(),
        _ if tag.starts_with("sha256:") => format!("{image}@{tag}"),
        _ => format!("{image}:{tag}"),
    };
    Ok(Reference::parse(&text)?.tagged().to_string())
}

/// `os/architecture`, or only one of them.
pub(super) fn platform(text: &str) -> Result<Option<Platform>, Failure> {
    let mut parts = text.split('/');
    Ok(match (parts.next().unwrap_or(""), parts.next()) {
        ("", _) => None,
        ("linux", None) => None,
        ("linux", Some(architecture)) => {
            Some(Platform { os: "linux".to_owned(), architecture: architecture.to_owned() })
        }
        (architecture, None) => {
            Some(Platform { os: "linux".to_owned(), architecture: architecture.to_owned() })
        }
        _ => return Err(Failure::invalid(format!("invalid platform {text:?}: only linux images run here"))),
    })
}

fn upload(request: Request) -> Upload {
    request.into_body().into_data_stream().map_err(std::io::Error::other).boxed()
}

async fn load(State(app): State<App>, request: Request) -> Result<Response, Failure> {
    lines::progress(app.engine.load(upload(request)), Style::Plain).await
}

async fn look(State(app): State<App>, Path(rest): Path<String>) -> Result<Response, Failure> {
    match rest.rsplit_once('/') {
        Some((name, "json")) => {
            let image = app.engine.image(name).await?;
            Ok(Reply(convert::image::inspect(&image)).into_response())
        }
        Some((_, "history")) => Err(Failure::not_yet("docker history")),
        Some((_, "get")) => Err(Failure::not_yet("docker save")),
        _ => Err(Failure::not_found("page not found")),
    }
}

async fn change(
    State(app): State<App>,
    Path(rest): Path<String>,
    params: Params,
) -> Result<StatusCode, Failure> {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => {
            let new = reference(params.text("repo"), params.text("tag"))?;
            if Reference::parse(&new)?.is_pinned() {
                return Err(Failure::invalid("refusing to create a tag with a digest reference"));
            }
            app.engine.tag(name, &new).await?;
            Ok(StatusCode::CREATED)
        }
        Some((_, "push")) => Err(Failure::not_yet("docker push")),
        _ => Err(Failure::not_found("page not found")),
    }
}

async fn remove(
    State(app): State<App>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Reply<Vec<wire::Removed>>, Failure> {
    let removed = app.engine.image_remove(&name, params.flag("force")).await?;
    Ok(Reply(removed.into_iter().map(convert::image::removed).collect()))
}

async fn distribution(
    State(app): State<App>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Result<Reply<wire::Distribution>, Failure> {
    let name = rest.strip_suffix("/json").ok_or_else(|| Failure::not_found("page not found"))?;
    let reference = Reference::parse(name)?.tagged().to_string();
    let resolved = app.engine.resolve(&reference, registry_auth(&headers)?).await?;
    Ok(Reply(convert::image::distribution(resolved)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_but_a_slash() {
        assert!(like("busybox", "busybox") && like("busy*", "busybox") && like("*box:1.*", "busybox:1.36"));
        assert!(!like("busy*", "library/busybox") && !like("*", "a/b") && like("*/*", "a/b"));
        assert!(!like("busy", "busybox"));
    }

    #[test]
    fn a_pull_names_tag_or_digest_apart() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(reference("busybox", ""), Ok("busybox:latest".into()));
        assert_eq!(reference("127.0.0.1:5000/a", "v1"), Ok("127.0.0.1:5000/a:v1".into()));
        assert_eq!(reference("busybox", &digest), Ok(format!("busybox@{digest}")));
        assert!(reference("BUSY", "x").is_err());
    }
}
