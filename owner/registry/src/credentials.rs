//! Credentials as docker and podman users have them: config.json, auth.json, credential helpers and stores, identity
//! tokens.

use std::fs::File;
use std::path::Path;

use docker_credential::{CredentialRetrievalError, DockerCredential};

use crate::remote::RemoteError;

/// Docker Hub's name in Docker's configuration.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What the user has for a registry.
#[derive(PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) secret: Secret,
    /// Whose configuration had it.
    from: &'static str,
}

/// What is shown to a registry, or to its token service.
#[derive(PartialEq, Eq)]
pub(crate) enum Secret {
    None,
    Password { user: String, password: String },
    Identity(String),
}

/// What a configuration says of a server.
type Found = Result<DockerCredential, CredentialRetrievalError>;
/// A configuration's name and the function that looks a server up in it.
type Configuration<'a> = (&'static str, Box<dyn Fn(&str) -> Found + 'a>);

/// What the configurations have for a repository of a registry; nothing there is no secret. Podman's may name a
/// repository or a part of its path, and the longest such name counts (containers-auth.json(5)). With a file, that one
/// is read and no other.
pub(crate) fn of(
    file: Option<&Path>,
    registry: &str,
    repository: &str,
) -> Result<Stored, RemoteError> {
    let configurations: Vec<Configuration<'_>> = match file {
        Some(file) => vec![("the credentials file", Box::new(|server| in_file(file, server)))],
        None => vec![
            ("docker's configuration", Box::new(docker_credential::get_credential)),
            ("podman's configuration", Box::new(docker_credential::get_podman_credential)),
        ],
    };
    look_up(&configurations, registry, repository)
        .map_err(|reason| RemoteError::Credentials { reason })
}

fn in_file(file: &Path, server: &str) -> Found {
    let file = File::open(file).map_err(|_| CredentialRetrievalError::ConfigReadError)?;
    docker_credential::get_credential_from_reader(file, server)
}

fn look_up(
    configurations: &[Configuration<'_>],
    registry: &str,
    repository: &str,
) -> Result<Stored, String> {
    for (from, get) in configurations {
        for name in names(registry, repository) {
            if let Some(secret) = judge(get(&name)).map_err(|reason| format!("{from}: {reason}"))? {
                return Ok(Stored { secret, from });
            }
        }
    }
    Ok(Stored { secret: Secret::None, from: "the user's configuration" })
}

/// The names under which credentials may be kept, the narrowest first.
fn names(registry: &str, repository: &str) -> Vec<String> {
    let host = match registry {
        "registry-1.docker.io" | "index.docker.io" => "docker.io",
        other => other,
    };
    let mut path = format!("{host}/{repository}");
    let mut names = vec![path.clone()];
    while let Some((parent, _)) = path.rsplit_once('/') {
        path = parent.to_owned();
        names.push(path.clone());
    }
    if host == "docker.io" {
        names.push(DOCKER_HUB.into());
    }
    names
}

impl Stored {
    /// A Basic header's value, if this is a user with a password.
    pub(crate) fn basic(&self) -> Option<String> {
        use base64::Engine as _;
        let Secret::Password { user, password } = &self.secret else { return None };
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Some(format!("Basic {text}"))
    }

    /// For messages: which credentials these are, without their secret.
    pub(crate) fn shown(&self) -> String {
        match &self.secret {
            Secret::None => format!("no credentials: {} has none for it", self.from),
            Secret::Password { user, .. } => format!("user {user:?} of {}", self.from),
            Secret::Identity(_) => format!("the identity token of {}", self.from),
        }
    }
}

/// `None` where there is nothing; a broken configuration is not taken for an empty one.
fn judge(
    found: Result<DockerCredential, CredentialRetrievalError>,
) -> Result<Option<Secret>, String> {
    use CredentialRetrievalError as E;
    match found {
        // what `docker logout` and some helpers leave behind
        Ok(DockerCredential::UsernamePassword(user, password))
            if user.is_empty() && password.is_empty() =>
        {
            Ok(None)
        }
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(Secret::Password { user, password }))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Secret::Identity(token))),
        Err(E::ConfigNotFound | E::NoCredentialConfigured) => Ok(None),
        Err(E::ConfigReadError) => Err("the file is not readable or not valid JSON".into()),
        // helpers answer so when they know nothing of the server
        Err(E::HelperFailure { stdout, .. }) if stdout.contains("not found") => Ok(None),
        // the helper's own output may hold secrets
        Err(E::HelperFailure { helper, .. }) => Err(format!("credential helper {helper} failed")),
        Err(other) => Err(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_configuration_is_anonymous_and_a_broken_one_is_not() {
        use CredentialRetrievalError as E;
        assert!(judge(Err(E::ConfigNotFound)).unwrap().is_none());
        assert!(judge(Err(E::NoCredentialConfigured)).unwrap().is_none());
        assert!(judge(Err(E::CredentialDecodingError)).is_err());
        assert!(judge(Err(E::ConfigReadError)).is_err());
        let identity = judge(Ok(DockerCredential::IdentityToken("t".into())));
        assert!(matches!(identity, Ok(Some(Secret::Identity(token))) if token == "t"));
        let failed = |stdout: &str| E::HelperFailure {
            helper: "h".into(),
            stdout: stdout.into(),
            stderr: "secret".into(),
        };
        assert!(judge(Err(failed("credentials not found in native keychain"))).unwrap().is_none());
        assert_eq!(judge(Err(failed("x"))).err().unwrap(), "credential helper h failed");
        let basic = |user: &str| DockerCredential::UsernamePassword(user.into(), user.into());
        assert!(matches!(judge(Ok(basic("u"))), Ok(Some(Secret::Password { .. }))));
        assert!(judge(Ok(basic(""))).unwrap().is_none());
    }

    #[test]
    fn the_narrowest_name_counts_and_docker_comes_before_podman() {
        fn docker(server: &str) -> Result<DockerCredential, CredentialRetrievalError> {
            match server {
                "one.example" => Ok(DockerCredential::UsernamePassword("d".into(), "p".into())),
                _ => Err(CredentialRetrievalError::NoCredentialConfigured),
            }
        }
        fn podman(server: &str) -> Result<DockerCredential, CredentialRetrievalError> {
            match server {
                "one.example" | "two.example" | "two.example/team" | DOCKER_HUB => {
                    Ok(DockerCredential::UsernamePassword(server.into(), "p".into()))
                }
                _ => Err(CredentialRetrievalError::NoCredentialConfigured),
            }
        }
        let check = |registry, repository, expect: &str| {
            let stored = look_up(
                &[("docker", Box::new(docker)), ("podman", Box::new(podman))],
                registry,
                repository,
            );
            assert_eq!(stored.unwrap().shown(), expect);
        };
        check("one.example", "a/b", "user \"d\" of docker");
        check("two.example", "a/b", "user \"two.example\" of podman");
        check("two.example", "team/b", "user \"two.example/team\" of podman");
        check("registry-1.docker.io", "library/x", &format!("user {DOCKER_HUB:?} of podman"));
        let none = "no credentials: the user's configuration has none for it";
        check("three.example", "a", none);
    }

    #[test]
    fn attack_messages_never_hold_the_secret() {
        let password = Secret::Password { user: "u".into(), password: "hunter2".into() };
        for secret in [password, Secret::Identity("hunter2".into())] {
            assert!(!Stored { secret, from: "x" }.shown().contains("hunter2"));
        }
    }
}
