//! What goes wrong below, as the API tells it: clients decide by the kind and read the words.

use std::error::Error;

use covey_api::Failure;
use covey_runtime::{
    CreateError, ExecError, LookupError, OperationError, RewireError, StartError,
    image::{
        self, ImportError, LoadError, PullError, Reference, ReferenceError, RegistryError, RemoveError,
        TagError,
    },
};

use crate::network::local::LocalError;

/// Exit codes of a program that may not be run and of one that is not there.
const UNRUNNABLE: std::ops::RangeInclusive<i32> = 126..=127;

/// Something went wrong here: the error with all its causes.
pub fn internal(error: &dyn Error) -> Failure {
    Failure::internal(words(error))
}

/// `error: its cause: the cause of that`.
fn words(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

pub fn lookup(error: LookupError) -> Failure {
    match error {
        LookupError::NotFound(_) => Failure::not_found(error.to_string()),
        LookupError::Ambiguous(_) => Failure::invalid(error.to_string()),
    }
}

pub fn operation(error: OperationError) -> Failure {
    match error {
        OperationError::Lookup(error) => lookup(error),
        OperationError::NotRunning(_) | OperationError::Running { .. } => {
            Failure::conflict(error.to_string())
        }
        OperationError::Signal(_) => Failure::invalid(error.to_string()),
        OperationError::Io { .. } => internal(&error),
    }
}

pub fn create(error: CreateError) -> Failure {
    match error {
        // Clients pull what this names, then try again.
        CreateError::NoSuchImage(name) => {
            let name = name.parse::<Reference>().map_or(name, |reference| reference.to_string());
            Failure::not_found(format!("No such image: {name}"))
        }
        CreateError::Image(error) => image_lookup(error),
        CreateError::Conflict { .. } => Failure::conflict(error.to_string()),
        CreateError::Name(_) | CreateError::NoCommand | CreateError::Invalid(_) => {
            Failure::invalid(error.to_string())
        }
        CreateError::Io(_) | CreateError::Json(_) => internal(&error),
    }
}

/// Clients tell from the words of the kernel how they end themselves: 127, 126 or 125.
pub fn start(error: StartError) -> Failure {
    match error {
        StartError::Lookup(error) => lookup(error),
        StartError::Running(_) => Failure::not_modified(),
        StartError::Failed { code, .. } if UNRUNNABLE.contains(&code) => Failure::invalid(error.to_string()),
        StartError::Failed { .. } | StartError::Network(_) | StartError::Io { .. } => internal(&error),
    }
}

pub fn rewire(error: RewireError) -> Failure {
    match error {
        RewireError::Lookup(error) => lookup(error),
        RewireError::Network(text) => Failure::forbidden(text),
        RewireError::Io { .. } => internal(&error),
    }
}

pub fn local(error: LocalError) -> Failure {
    match error {
        LocalError::NotFound(_) => Failure::not_found(error.to_string()),
        LocalError::NameTaken(_) => Failure::conflict(error.to_string()),
        LocalError::File(_) => Failure::internal(error.to_string()),
        _ => Failure::forbidden(error.to_string()),
    }
}

pub fn exec(error: ExecError) -> Failure {
    match error {
        ExecError::Lookup(error) => lookup(error),
        ExecError::NotRunning(_) => Failure::conflict(error.to_string()),
        ExecError::NoCommand => Failure::invalid(error.to_string()),
        ExecError::Failed { .. } | ExecError::Io { .. } | ExecError::Spec(_) | ExecError::Json(_) => {
            internal(&error)
        }
    }
}

pub fn reference(error: ReferenceError) -> Failure {
    Failure::invalid(error.to_string())
}

pub fn image_lookup(error: image::LookupError) -> Failure {
    match error {
        image::LookupError::NotFound(_) => Failure::not_found(error.to_string()),
        image::LookupError::Ambiguous(_) => Failure::invalid(error.to_string()),
        image::LookupError::Incomplete(_) => internal(&error),
    }
}

pub fn tag(error: TagError) -> Failure {
    match error {
        TagError::Lookup(error) => image_lookup(error),
        TagError::Digest => Failure::invalid(error.to_string()),
        TagError::Store(_) => internal(&error),
    }
}

pub fn image_remove(error: RemoveError) -> Failure {
    match error {
        RemoveError::Lookup(error) => image_lookup(error),
        RemoveError::Store(_) => internal(&error),
        _ => Failure::conflict(error.to_string()),
    }
}

/// A registry does not tell an image that is hidden from one that is not there, so both are not found, as in Docker.
pub fn registry(error: RegistryError) -> Failure {
    match error {
        RegistryError::NotFound(_) | RegistryError::Unauthorized(_) | RegistryError::Platform(_) => {
            Failure::not_found(error.to_string())
        }
        _ => internal(&error),
    }
}

pub fn pull(error: PullError) -> Failure {
    match error {
        PullError::Registry(error) => registry(error),
        _ => internal(&error),
    }
}

/// What the client sent is at fault, unless it is our own disk.
pub fn load(error: LoadError) -> Failure {
    match error {
        LoadError::Store(_) => internal(&error),
        _ => Failure::invalid(words(&error)),
    }
}

/// What the client sent is at fault, unless it is our own disk.
pub fn import(error: ImportError) -> Failure {
    match error {
        ImportError::Store(_) => internal(&error),
        _ => Failure::invalid(words(&error)),
    }
}

#[cfg(test)]
mod tests {
    use covey_api::FailureKind;

    use super::*;

    /// CTR-02: `run` pulls what `create` says is not there, and does so by these words.
    #[test]
    fn an_image_that_is_not_here_is_named_in_full() {
        for (asked, told) in [
            ("busybox", "No such image: busybox:latest"),
            ("docker.io/library/busybox:1", "No such image: busybox:1"),
            ("not//valid", "No such image: not//valid"),
        ] {
            let failure = create(CreateError::NoSuchImage(asked.to_owned()));
            assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::NotFound, told));
        }
        let failure = image_lookup(image::LookupError::NotFound("x:latest".into()));
        assert_eq!(failure, Failure::not_found("No such image: x:latest"));
    }

    /// `run` ends with 127 or 126 by the words of the failure.
    #[test]
    fn a_program_that_cannot_be_run_is_the_requests_fault() {
        let text = "exec: \"nosuch\": executable file not found in $PATH".to_owned();
        let failure = start(StartError::Failed { code: 127, text: text.clone() });
        assert_eq!(failure.kind, FailureKind::Invalid);
        assert!(failure.message.contains(&text), "{failure}");
        let failure = start(StartError::Failed { code: 128, text: "mount /proc: busy".into() });
        assert_eq!(failure.kind, FailureKind::Internal);
    }

    #[test]
    fn a_failure_of_our_own_tells_its_causes() {
        let error = LoadError::Read(std::io::Error::other("the client left"));
        assert_eq!(load(error), Failure::invalid("cannot read the archive: the client left"));
    }

    #[test]
    fn containers_that_are_not_meant_are_told_apart() {
        let failure = lookup(LookupError::NotFound("x".into()));
        assert_eq!(failure, Failure::not_found("No such container: x"));
        assert_eq!(lookup(LookupError::Ambiguous("a".into())).kind, FailureKind::Invalid);
    }
}
