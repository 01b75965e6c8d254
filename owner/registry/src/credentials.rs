//! Credentials as docker and podman users have them.

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::secrets::RegistryAuth;

use crate::error::RegistryError;

/// Docker Hub's name in Docker's configuration.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What the user's docker or podman configuration has for a registry; nothing there is anonymous.
pub(crate) fn for_registry(registry: &str) -> Result<RegistryAuth, RegistryError> {
    let server = match registry {
        "docker.io" | "index.docker.io" => DOCKER_HUB,
        other => other,
    };
    for get in [docker_credential::get_credential, docker_credential::get_podman_credential] {
        match judge(get(server)) {
            Ok(Some(auth)) => return Ok(auth),
            Ok(None) => {}
            Err(reason) => {
                return Err(RegistryError::Credentials { registry: registry.into(), reason });
            }
        }
    }
    Ok(RegistryAuth::Anonymous)
}

/// `None` where there is nothing; a broken configuration is not taken for an empty one.
fn judge(
    found: Result<DockerCredential, CredentialRetrievalError>,
) -> Result<Option<RegistryAuth>, String> {
    use CredentialRetrievalError as E;
    match found {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(RegistryAuth::Basic(user, password)))
        }
        Ok(DockerCredential::IdentityToken(_)) => {
            Err("identity tokens are not supported yet".into())
        }
        Err(E::ConfigNotFound | E::ConfigReadError | E::NoCredentialConfigured) => Ok(None),
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
        assert!(judge(Ok(DockerCredential::IdentityToken("t".into()))).is_err());
        let failed = |stdout: &str| E::HelperFailure {
            helper: "h".into(),
            stdout: stdout.into(),
            stderr: "secret".into(),
        };
        assert!(judge(Err(failed("credentials not found in native keychain"))).unwrap().is_none());
        assert_eq!(judge(Err(failed("x"))).unwrap_err(), "credential helper h failed");
        let basic = DockerCredential::UsernamePassword("u".into(), "p".into());
        assert!(matches!(judge(Ok(basic)), Ok(Some(RegistryAuth::Basic(..)))));
    }
}
