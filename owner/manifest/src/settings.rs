//! Settings of the pod as a whole: names, resolver, identity, ending.

use std::collections::BTreeMap;

use ah_pod::{
    DnsPolicy, DnsSettings, FsGroup, FsGroupChange, HostAlias, PodSecurity, RestartPolicy, RunAs,
};
use k8s_openapi::api::core::v1::{PodSecurityContext, PodSpec};

use crate::checks::{is_dns_name, missing, require, value};
use crate::error::ManifestError;
use crate::identity;
use crate::workload::Workload;

pub(crate) fn host_aliases(spec: &PodSpec, path: &str) -> Result<Vec<HostAlias>, ManifestError> {
    let aliases = spec.host_aliases.iter().flatten();
    aliases
        .enumerate()
        .map(|(index, alias)| {
            let path = format!("{path}.hostAliases[{index}]");
            require(&path, &alias.ip, "an address", |ip| ip.parse::<std::net::IpAddr>().is_ok())?;
            let hostnames = alias.hostnames.clone().unwrap_or_default();
            for name in &hostnames {
                require(&path, name, "a DNS name", is_dns_name)?;
            }
            Ok(HostAlias { ip: alias.ip.clone(), hostnames })
        })
        .collect()
}

pub(crate) fn dns(spec: &PodSpec, path: &str) -> Result<DnsSettings, ManifestError> {
    let config = spec.dns_config.clone().unwrap_or_default();
    let policy_path = format!("{path}.dnsPolicy");
    let policy = match spec.dns_policy.as_deref() {
        None | Some("ClusterFirst" | "ClusterFirstWithHostNet" | "Default") => DnsPolicy::FromHost,
        Some("None") => DnsPolicy::OnlyConfig,
        Some(other) => {
            let expected = "ClusterFirst, ClusterFirstWithHostNet, Default or None";
            return Err(value(&policy_path, other, expected));
        }
    };
    let settings = DnsSettings {
        policy,
        nameservers: config.nameservers.unwrap_or_default(),
        searches: config.searches.unwrap_or_default(),
        options: config
            .options
            .unwrap_or_default()
            .into_iter()
            .map(|option| match (option.name.unwrap_or_default(), option.value) {
                (name, Some(value)) => format!("{name}:{value}"),
                (name, None) => name,
            })
            .collect(),
    };
    let path = format!("{path}.dnsConfig");
    if policy == DnsPolicy::OnlyConfig && settings.nameservers.is_empty() {
        return Err(missing(&format!("{path}.nameservers"), "a server, since dnsPolicy is None"));
    }
    for server in &settings.nameservers {
        require(&path, server, "an address", |ip| ip.parse::<std::net::IpAddr>().is_ok())?;
    }
    // each becomes a word of a line: a blank or line break in it would be another word or line
    for word in settings.searches.iter().chain(&settings.options) {
        require(&path, word, "one word", |word| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic())
        })?;
    }
    Ok(settings)
}

pub(crate) fn security(spec: &PodSpec, path: &str) -> Result<PodSecurity, ManifestError> {
    let Some(context) = &spec.security_context else { return Ok(PodSecurity::default()) };
    let path = format!("{path}.securityContext");
    let change_path = format!("{path}.fsGroupChangePolicy");
    let change = match context.fs_group_change_policy.as_deref() {
        None | Some("Always") => FsGroupChange::Always,
        Some("OnRootMismatch") => FsGroupChange::OnRootMismatch,
        Some(other) => return Err(value(&change_path, other, "Always or OnRootMismatch")),
    };
    let policy_path = format!("{path}.supplementalGroupsPolicy");
    let ignore_image_groups = match context.supplemental_groups_policy.as_deref() {
        None | Some("Merge") => false,
        Some("Strict") => true,
        Some(other) => return Err(value(&policy_path, other, "Merge or Strict")),
    };
    let groups = context.supplemental_groups.iter().flatten();
    Ok(PodSecurity {
        run_as: RunAs {
            user: identity::id(context.run_as_user, &format!("{path}.runAsUser"))?,
            group: identity::id(context.run_as_group, &format!("{path}.runAsGroup"))?,
        },
        fs_group: identity::id(context.fs_group, &format!("{path}.fsGroup"))?
            .map(|gid| FsGroup { gid, change }),
        supplemental_groups: groups
            .filter_map(|gid| {
                identity::id(Some(*gid), &format!("{path}.supplementalGroups")).transpose()
            })
            .collect::<Result<_, _>>()?,
        ignore_image_groups,
        sysctls: sysctls(context, &path)?,
    })
}

/// Kubernetes' safe ones, which a cluster allows without asking its admin, and nothing that is not namespaced.
fn sysctls(
    context: &PodSecurityContext,
    path: &str,
) -> Result<BTreeMap<String, String>, ManifestError> {
    let mut sysctls = BTreeMap::new();
    for (index, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let path = format!("{path}.sysctls[{index}]");
        let name = sysctl.name.replace('/', ".");
        require(&format!("{path}.name"), &name, &ah_pod::SYSCTLS.join(", "), |name| {
            ah_pod::SYSCTLS.contains(&name)
        })?;
        let expected = "numbers separated by blanks, commas or -";
        require(&format!("{path}.value"), &sysctl.value, expected, ah_pod::is_sysctl_value)?;
        if sysctls.insert(name, sysctl.value.clone()).is_some() {
            return Err(value(&path, &sysctl.name, "each name once"));
        }
    }
    Ok(sysctls)
}

pub(crate) fn restart_policy(
    workload: &Workload,
    spec: &PodSpec,
    path: &str,
) -> Result<RestartPolicy, ManifestError> {
    let path = format!("{path}.restartPolicy");
    let policy = match spec.restart_policy.as_deref() {
        None => None,
        Some("Always") => Some(RestartPolicy::Always),
        Some("OnFailure") => Some(RestartPolicy::OnFailure),
        Some("Never") => Some(RestartPolicy::Never),
        Some(other) => return Err(value(&path, other, workload.restart.words())),
    };
    if workload.restart.accepts(policy) {
        return Ok(policy.unwrap_or(RestartPolicy::Always));
    }
    let expected = format!("{}, as a {} needs", workload.restart.words(), workload.kind);
    match &spec.restart_policy {
        Some(found) => Err(value(&path, found, &expected)),
        None => Err(missing(&path, &expected)),
    }
}

pub(crate) fn grace(spec: &PodSpec, path: &str) -> Result<u64, ManifestError> {
    let seconds = spec.termination_grace_period_seconds.unwrap_or(30);
    u64::try_from(seconds).map_err(|_| {
        value(&format!("{path}.terminationGracePeriodSeconds"), &seconds.to_string(), "0 or more")
    })
}
