//! `rmi`: names go first, and the image with its last one, unless a container stands on it.

use std::collections::BTreeSet;

use super::{
    Digest, ImageStore, LookupError, Reference, StoreError,
    catalog::Catalog,
    layers::{Draft, Layers},
    store::collect,
};

/// A line of `rmi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A name is gone: `alpine:latest`.
    Untagged(String),
    /// An image or a layer is gone: its digest.
    Deleted(Digest),
}

/// A container that stands on an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUse {
    /// Its short id.
    pub container: String,
    /// It runs.
    pub running: bool,
}

/// Why an image stays, in Docker's words.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such image.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The last name of an image that a container uses.
    #[error(
        "conflict: unable to remove repository reference \"{name}\" (must force) - \
         container {container} is using its referenced image {image}"
    )]
    LastName {
        /// As the user wrote it.
        name: String,
        /// Short id.
        container: String,
        /// Short id.
        image: String,
    },
    /// The id does not say which of its names should go.
    #[error("conflict: unable to delete {0} (must be forced) - image is referenced in multiple repositories")]
    ManyNames(String),
    /// A container that has ended uses it.
    #[error(
        "conflict: unable to delete {image} (must be forced) - image is being used by stopped container {container}"
    )]
    Stopped {
        /// Short id.
        image: String,
        /// Short id.
        container: String,
    },
    /// A container that runs uses it.
    #[error(
        "conflict: unable to delete {image} (cannot be forced) - image is being used by running container {container}"
    )]
    Running {
        /// Short id.
        image: String,
        /// Short id.
        container: String,
    },
    /// It could not be written down.
    #[error("cannot remove the image")]
    Store(#[from] StoreError),
}

impl ImageStore {
    /// Removes a name, or an image with all its names. `in_use` says which container stands on an image, if any; a
    /// running one is the better answer where there are several. It is called while the store is locked.
    pub async fn remove(
        &self,
        name: &str,
        force: bool,
        in_use: impl Fn(Digest) -> Option<ImageUse> + Send + 'static,
    ) -> Result<Vec<Removal>, RemoveError> {
        let (name, layers) = (name.to_owned(), self.layers.clone());
        let (removals, freed) = self
            .change(move |catalog| {
                let mut freed = Vec::new();
                let request = Request { name: &name, force, in_use: &in_use };
                request.run(catalog, &layers, &mut freed).map(|removals| (removals, freed))
            })
            .await?;
        drop(tokio::task::spawn_blocking(|| drop(freed)));
        Ok(removals)
    }
}

struct Request<'a, F> {
    name: &'a str,
    force: bool,
    in_use: &'a F,
}

impl<F: Fn(Digest) -> Option<ImageUse>> Request<'_, F> {
    fn run(
        &self,
        catalog: &mut Catalog,
        layers: &Layers,
        freed: &mut Vec<Draft>,
    ) -> Result<Vec<Removal>, RemoveError> {
        let id = catalog.find(self.name)?.id;
        let reference = self.name.parse::<Reference>().ok();
        let named =
            reference.filter(|reference| catalog.named(reference).is_some_and(|image| image.id == id));
        let mut removals = match named {
            Some(reference) => match self.one_name(catalog, &reference, id)? {
                Kept::Image(removals) => return Ok(removals),
                Kept::Nothing(removals) => removals,
            },
            None => self.all_names(catalog, id)?,
        };
        self.image(catalog, id)?;
        removals.push(Removal::Deleted(id));
        for (chain, draft) in collect(catalog, layers)? {
            removals.push(Removal::Deleted(chain));
            freed.push(draft);
        }
        Ok(removals)
    }

    /// Removes one name. The digests of its repository go with the repository's last tag.
    fn one_name(
        &self,
        catalog: &mut Catalog,
        reference: &Reference,
        id: Digest,
    ) -> Result<Kept, RemoveError> {
        let gone = match reference.digest() {
            Some(digest) => reference.at(digest),
            None => reference.clone(),
        };
        let (tags, digests) = catalog.names(id);
        let tags: Vec<_> = tags.into_iter().filter(|name| *name != gone.canonical()).collect();
        let same_repository = |name: &String| repository(name) == gone.name();
        let last_tag = reference.digest().is_none() && !tags.iter().any(same_repository);
        let (with_it, left): (Vec<_>, Vec<_>) = digests
            .into_iter()
            .filter(|name| *name != gone.canonical())
            .partition(|name| last_tag && same_repository(name));
        let stays = !tags.is_empty() || !left.is_empty();
        let used = (self.in_use)(id);
        if let (false, false, Some(used)) = (stays, self.force, &used) {
            return Err(RemoveError::LastName {
                name: self.name.to_owned(),
                container: used.container.clone(),
                image: id.short(),
            });
        }
        let mut names = vec![gone.canonical()];
        names.extend(with_it);
        let removals = untag(catalog, names)?;
        // Forced from under a container: the image stays without a name.
        Ok(if stays || used.is_some() { Kept::Image(removals) } else { Kept::Nothing(removals) })
    }

    /// Removes all names of an image that is removed by id.
    fn all_names(&self, catalog: &mut Catalog, id: Digest) -> Result<Vec<Removal>, RemoveError> {
        if catalog.visible().all(|image| image.id != id) {
            return Err(LookupError::NotFound(self.name.to_owned()).into());
        }
        let (tags, digests) = catalog.names(id);
        let repositories: BTreeSet<_> = tags.iter().chain(&digests).map(|name| repository(name)).collect();
        if !self.force && (repositories.len() > 1 || tags.len() > 1) {
            return Err(RemoveError::ManyNames(id.short()));
        }
        match (self.in_use)(id) {
            Some(ImageUse { container, running: true }) => {
                return Err(RemoveError::Running { image: id.short(), container });
            }
            Some(ImageUse { container, running: false }) if !self.force => {
                return Err(RemoveError::Stopped { image: id.short(), container });
            }
            _ => {}
        }
        Ok(untag(catalog, tags.into_iter().chain(digests).collect())?)
    }

    /// Removes an image without names; its layers stay under whoever stands on them.
    fn image(&self, catalog: &mut Catalog, id: Digest) -> Result<(), StoreError> {
        if catalog.is_held(id) || (self.in_use)(id).is_some() {
            catalog.change(|references| _ = references.hidden.insert(id))
        } else {
            catalog.forget(id)
        }
    }
}

/// What is left after a name is gone.
enum Kept {
    Image(Vec<Removal>),
    Nothing(Vec<Removal>),
}

fn untag(catalog: &mut Catalog, names: Vec<String>) -> Result<Vec<Removal>, StoreError> {
    catalog.change(|references| {
        for name in &names {
            references.tags.remove(name);
            references.digests.remove(name);
        }
    })?;
    let shown = |name: String| name.parse::<Reference>().map_or(name, |reference| reference.to_string());
    Ok(names.into_iter().map(shown).map(Removal::Untagged).collect())
}

/// The part of a canonical name before its tag or digest.
fn repository(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.name())
}
