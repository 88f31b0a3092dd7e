//! `images`: those of this host (CTR-06).

use anyhow::Result;
use time::OffsetDateTime;

use crate::{
    client::{Client, Target, model::Image},
    command::{age, moment, options, quantity::size_text, table::Table, terminal},
};

/// What stands where an image has no name.
const NONE: &str = "<none>";

#[derive(clap::Args)]
pub struct Args {
    /// Those without a name, too
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    listing: options::Listing,
    /// Only images of this name
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

pub async fn run(args: Args, client: &Client) -> Result<()> {
    let mut filters = args.listing.filters()?;
    filters.extend(args.name.as_deref().map(|name| ("reference", name)));
    let target = Target::new(&["images", "json"]).with_flag("all", args.all).with_filters(&filters);
    let images: Vec<Image> = client.get(target).await?;
    Ok(terminal::print(&text(&images, &args.listing, moment::now()))?)
}

fn text(images: &[Image], listing: &options::Listing, now: OffsetDateTime) -> String {
    if listing.quiet {
        return images.iter().map(|image| listing.id(&image.id) + "\n").collect();
    }
    let mut table = Table::new(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    for image in images {
        let created = OffsetDateTime::from_unix_timestamp(image.created);
        let created = created.map(|created| age::ago(created, now)).unwrap_or_default();
        for (repository, tag) in names(image) {
            table.row([repository, tag, listing.id(&image.id), created.clone(), size_text(image.size)]);
        }
    }
    table.text()
}

/// One row for each name; an image without any has one row, too.
fn names(image: &Image) -> Vec<(String, String)> {
    let split = |name: &String| match name.rsplit_once(':') {
        Some((repository, tag)) => (repository.to_owned(), tag.to_owned()),
        None => (name.clone(), NONE.to_owned()),
    };
    let mut names: Vec<_> = image.repo_tags.iter().map(split).collect();
    if names.is_empty() {
        let pinned = image.repo_digests.first().and_then(|digest| digest.split_once('@'));
        let repository = pinned.map_or(NONE, |(repository, _)| repository);
        names.push((repository.to_owned(), NONE.to_owned()));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CTR-06
    #[test]
    fn each_name_has_a_row() {
        let named = Image {
            id: format!("sha256:{}", "0123456789abcdef".repeat(4)),
            repo_tags: vec!["localhost:5000/web:1".into(), "web:latest".into()],
            created: 0,
            size: 4_262_822,
            ..Image::default()
        };
        let nameless =
            Image { repo_tags: Vec::new(), repo_digests: vec!["web@sha256:77".into()], ..named.clone() };
        let now = OffsetDateTime::from_unix_timestamp(3 * 86_400).unwrap();
        let expected = "\
REPOSITORY           TAG       IMAGE ID       CREATED      SIZE
localhost:5000/web   1         0123456789ab   3 days ago   4.26MB
web                  latest    0123456789ab   3 days ago   4.26MB
web                  <none>    0123456789ab   3 days ago   4.26MB
";
        assert_eq!(text(&[named, nameless], &options::Listing::default(), now), expected);
    }
}
