//! Sealed values of a pod: each has to be where the guest opens it, and keys have to be there in time.

use ah_pod::{Container, FileContent, Part, Pod, Text, VolumeFile, VolumeSource, WholePod};
use ah_release_api::{KeyId, Place, Sealed, holds_sealed, is_sealed};

use crate::agent::Agent;
use crate::generate::GenerateError;

/// Checks the sealed values of all containers.
///
/// # Errors
/// [`GenerateError::Sealed`], [`GenerateError::SealedTooLate`], [`GenerateError::NotOnKata`].
pub(crate) fn check(pod: &Pod, agent: Agent) -> Result<(), GenerateError> {
    for container in &pod.containers {
        let keys = keys(pod, container)?;
        check_words(container)?;
        check_files(pod, container)?;
        check_image(container)?;
        check_renewed(pod, container)?;
        check_mutable(pod, container)?;
        if keys.is_empty() {
            continue;
        }
        if agent == Agent::Kata {
            return Err(GenerateError::NotOnKata {
                what: format!("container {:?} has sealed values", container.name),
                remedy: "only this project's guest opens them: --for anchorhold",
            });
        }
        if pod.whole == WholePod::Awaited {
            return Err(GenerateError::SealedTooLate { container: container.name.clone() });
        }
    }
    Ok(())
}

/// The guest opens every sealed variable: an image's maker could have the owner's text opened in a container of his own.
fn check_image(container: &Container) -> Result<(), GenerateError> {
    let sealed = container.image.env.iter().filter_map(|entry| entry.split_once('=')).find(
        |(name, value)| {
            is_sealed(value.as_bytes()) && !container.env.iter().any(|own| own.name == *name)
        },
    );
    match sealed {
        Some((name, _)) => Err(GenerateError::Sealed {
            container: container.name.clone(),
            detail: format!(
                "env:{name}: the image brings a sealed value, expected those of the pod only: set the variable in the pod"
            ),
        }),
        None => Ok(()),
    }
}

/// A sealed variable opens under its name in any container of the pod. Where the host may choose that variable's value in another
/// container, it could have the text opened there.
fn check_mutable(pod: &Pod, container: &Container) -> Result<(), GenerateError> {
    let sealed = |name: &String| {
        pod.containers.iter().find(|other| {
            let mut env = other.env.iter().filter(|variable| variable.name == *name);
            env.any(|variable| {
                variable.value.as_literal().is_some_and(|text| is_sealed(text.as_bytes()))
            })
        })
    };
    let mut mutable = container.choices.mutable.keys();
    match mutable.find_map(|name| Some((name, sealed(name)?))) {
        Some((name, other)) => Err(GenerateError::Sealed {
            container: container.name.clone(),
            detail: format!(
                "env:{name}: the host may choose its value, and container {:?} has a sealed value of that name, expected another name: the host could have that value opened here",
                other.name
            ),
        }),
        None => Ok(()),
    }
}

/// What the cluster renews under a running container is not opened again, so that it would not be renewed at all.
fn check_renewed(pod: &Pod, container: &Container) -> Result<(), GenerateError> {
    for mount in &container.mounts {
        let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume);
        let Some(VolumeSource::Files(files)) = volume.map(|volume| &volume.source) else {
            continue;
        };
        let renewed = files.unpinned.is_some()
            || files
                .files
                .iter()
                .any(|file| matches!(file.content, FileContent::Free(_) | FileContent::Token));
        let sealed = files.files.iter().find(|file| match &file.content {
            FileContent::Fixed(bytes) => is_sealed(bytes.0.trim_ascii_end()),
            _ => false,
        });
        if let (true, Some(file)) = (renewed, sealed) {
            return Err(GenerateError::Sealed {
                container: container.name.clone(),
                detail: format!(
                    "file {:?} of volume {:?}: a sealed file beside files that the cluster renews, expected a volume of its own",
                    file.path, mount.volume
                ),
            });
        }
    }
    Ok(())
}

/// The first container of a pod that has sealed values: it needs a key service.
///
/// # Errors
/// [`GenerateError::Sealed`].
pub fn has_sealed(pod: &Pod) -> Result<Option<&Container>, GenerateError> {
    for container in &pod.containers {
        if !keys(pod, container)?.is_empty() {
            return Ok(Some(container));
        }
    }
    Ok(None)
}

/// The key that a variable's value is sealed to, for a value that may be shown as that.
pub(crate) fn key_of(name: &str, value: &str) -> Option<KeyId> {
    let sealed =
        is_sealed(value.as_bytes()).then(|| Sealed::parse(value, &Place::Env(name.into())));
    sealed?.ok().map(|sealed| sealed.key_id().clone())
}

/// Which keys a container's sealed values are sealed to.
fn keys(pod: &Pod, container: &Container) -> Result<Vec<KeyId>, GenerateError> {
    let mut keys = Vec::new();
    for variable in &container.env {
        let text = variable.value.as_literal().unwrap_or_default();
        if is_sealed(text.as_bytes()) {
            keys.push(read(container, text, Place::Env(variable.name.clone()))?);
        }
    }
    for (path, file) in files(pod, container) {
        let FileContent::Fixed(bytes) = &file.content else { continue };
        let bytes = bytes.0.trim_ascii_end();
        if is_sealed(bytes) {
            keys.push(read(container, &String::from_utf8_lossy(bytes), Place::File(path))?);
        }
    }
    Ok(keys)
}

fn read(container: &Container, text: &str, place: Place) -> Result<KeyId, GenerateError> {
    match Sealed::parse(text, &place) {
        Ok(sealed) => Ok(sealed.key_id().clone()),
        Err(error) => Err(GenerateError::Sealed {
            container: container.name.clone(),
            detail: format!("{place}: {error}"),
        }),
    }
}

/// The files that a container sees, by their paths there.
fn files<'a>(
    pod: &'a Pod,
    container: &'a Container,
) -> impl Iterator<Item = (String, &'a VolumeFile)> {
    container.mounts.iter().flat_map(move |mount| {
        let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume);
        let files = volume.and_then(|volume| match &volume.source {
            VolumeSource::Files(files) => Some(files.files.iter()),
            VolumeSource::EmptyDir { .. } => None,
        });
        let at = mount.path.trim_end_matches('/');
        files.into_iter().flatten().filter_map(move |file| match mount.sub_path.as_deref() {
            Some(part) if part == file.path => Some((at.to_owned(), file)),
            Some(part) => {
                let below = file.path.strip_prefix(part)?.strip_prefix('/')?;
                Some((format!("{at}/{below}"), file))
            }
            None => Some((format!("{at}/{}", file.path), file)),
        })
    })
}

/// A sealed value opens as the whole of a variable only: one that was put into another text by `$(NAME)` would reach the program as
/// it is.
fn check_words(container: &Container) -> Result<(), GenerateError> {
    let marked = |text: &Text, from: usize| {
        text.parts().iter().enumerate().any(|(number, part)| match part {
            Part::Literal(text) => holds_sealed(text, if number == 0 { from } else { 0 }),
            Part::Host(_) => false,
        })
    };
    for variable in &container.env {
        // The one at the beginning was read before.
        let whole = variable.value.as_literal().is_some_and(|text| is_sealed(text.as_bytes()));
        if marked(&variable.value, usize::from(whole)) {
            return Err(inside(container, &format!("env:{}", variable.name)));
        }
    }
    match container.command.iter().chain(&container.args).any(|word| marked(word, 0)) {
        true => Err(inside(container, "command")),
        false => Ok(()),
    }
}

/// The same for the files that the policy pins.
fn check_files(pod: &Pod, container: &Container) -> Result<(), GenerateError> {
    let marked = files(pod, container).find(|(_, file)| match &file.content {
        FileContent::Fixed(bytes) => {
            let whole = is_sealed(bytes.0.trim_ascii_end());
            holds_sealed(&String::from_utf8_lossy(&bytes.0), usize::from(whole))
        }
        _ => false,
    });
    match marked {
        Some((path, _)) => Err(inside(container, &format!("file:{path}"))),
        None => Ok(()),
    }
}

fn inside(container: &Container, place: &str) -> GenerateError {
    GenerateError::Sealed {
        container: container.name.clone(),
        detail: format!(
            "{place}: a sealed value stands inside another text, where it is not opened: give the whole text as a sealed value"
        ),
    }
}
