//! Security context of a container, the pod's put in where it is the default.

use ah_pod::{ContainerSecurity, RunAs, Seccomp};
use k8s_openapi::api::core::v1::{self as api, SeccompProfile};

use crate::error::ManifestError;
use crate::template::{PodContext, value};

/// A user or group id (Kubernetes API: 0 to 2147483647).
pub(crate) fn id(found: Option<i64>, path: &str) -> Result<Option<u32>, ManifestError> {
    let Some(found) = found else { return Ok(None) };
    let in_range = i32::try_from(found).ok().and_then(|id| u32::try_from(id).ok());
    match in_range {
        Some(id) => Ok(Some(id)),
        None => Err(value(path, &found.to_string(), "an id from 0 to 2147483647")),
    }
}

/// The container's security settings.
pub(crate) fn security(
    context: &PodContext<'_>,
    container: &api::Container,
    path: &str,
) -> Result<ContainerSecurity, ManifestError> {
    let path = format!("{path}.securityContext");
    let pod = context.spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let capabilities = own.capabilities.unwrap_or_default();
    let security = ContainerSecurity {
        run_as: RunAs {
            user: id(own.run_as_user.or(pod.run_as_user), &format!("{path}.runAsUser"))?,
            group: id(own.run_as_group.or(pod.run_as_group), &format!("{path}.runAsGroup"))?,
        },
        must_not_be_root: own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false),
        privileged: own.privileged.unwrap_or(false),
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        capabilities_add: capabilities.add.unwrap_or_default(),
        capabilities_drop: capabilities.drop.unwrap_or_default(),
        seccomp: seccomp(own.seccomp_profile.or(pod.seccomp_profile).as_ref()),
    };
    let all_rights = security.privileged
        || security.capabilities_add.iter().any(|name| name.eq_ignore_ascii_case("SYS_ADMIN"));
    match security.no_new_privileges && all_rights {
        true => {
            let expected = "true or unset with privileged or SYS_ADMIN (Kubernetes refuses it too)";
            Err(value(&format!("{path}.allowPrivilegeEscalation"), "false", expected))
        }
        false => Ok(security),
    }
}

/// The table of fields refused every other type.
fn seccomp(profile: Option<&SeccompProfile>) -> Seccomp {
    match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => Seccomp::RuntimeDefault,
        _ => Seccomp::Unconfined,
    }
}
