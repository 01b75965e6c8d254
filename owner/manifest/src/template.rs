//! One pod of a manifest: read whole at once, joined with its images' facts later.

use std::collections::{BTreeMap, BTreeSet};

use ah_pod::{
    Accounts, DnsPolicy, DnsSettings, FsGroup, FsGroupChange, HostAlias, ImageFacts,
    Medium, Pod, PodSecurity, RestartPolicy, RunAs, Text, Volume,
};
use k8s_openapi::api::core::v1::{self as api, PodSpec};
use serde_json::Value;

use crate::error::{ManifestError, Place, Problem};
use crate::kinds::{Workload, join};
use crate::manifest::Sources;
use crate::quantity::Quantity;
use crate::{annotations, containers, fields, identity};

/// A pod that a manifest declares, without what only its images know.
#[derive(Debug, Clone)]
pub struct PodTemplate {
    document: usize,
    kind: &'static str,
    object_name: String,
    template_path: &'static str,
    annotations: BTreeMap<String, String>,
    /// The pod with empty image facts.
    draft: Pod,
    /// Image as written and path of the field, for each container of the draft.
    images: Vec<(String, String)>,
}

/// What containers need to know of their pod.
pub(crate) struct PodContext<'a> {
    pub(crate) spec: &'a PodSpec,
    pub(crate) name: Text,
    pub(crate) namespace: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) sources: &'a Sources,
    pub(crate) choices: annotations::Choices,
}

impl PodTemplate {
    pub(crate) fn new(
        document: usize,
        value: &Value,
        workload: Workload,
        sources: &Sources,
    ) -> Result<Self, ManifestError> {
        let spec_path = join(workload.template_path, "spec");
        let spec_pointer = format!("/{}", spec_path.replace('.', "/"));
        fields::check_spec(value.pointer(&spec_pointer).unwrap_or(&Value::Null), &spec_path)?;
        let annotations = workload.metadata.annotations.clone().unwrap_or_default();
        let spec = &workload.spec;
        let names: Vec<&str> = all_containers(spec).map(|(_, c)| c.name.as_str()).collect();
        let annotations_path = join(workload.template_path, "metadata.annotations");
        let context = PodContext {
            spec,
            name: workload.pod_name.text(),
            namespace: workload.namespace.clone(),
            labels: workload.metadata.labels.clone().unwrap_or_default(),
            annotations: annotations.clone(),
            sources,
            choices: annotations::choices(&annotations, &names, &annotations_path)?,
        };
        check_names(&context, &spec_path)?;
        let mut images = Vec::new();
        for (path, container) in all_containers(spec) {
            let path = format!("{spec_path}.{path}");
            let image = container.image.clone().filter(|image| !image.is_empty());
            let image_path = format!("{path}.image");
            let image = image.ok_or_else(|| missing(&image_path, "an image"))?;
            images.push((image, image_path));
        }
        let draft = draft(&workload, &context, &spec_path)?;
        Ok(Self {
            document,
            kind: workload.kind,
            object_name: workload.object_name,
            template_path: workload.template_path,
            annotations,
            draft,
            images,
        })
    }

    /// Number of its YAML document, from 1, empty documents not counted.
    pub fn document(&self) -> usize {
        self.document
    }

    /// Kind of the object that declares it.
    pub fn kind(&self) -> &str {
        self.kind
    }

    /// Name of the object that declares it.
    pub fn object_name(&self) -> &str {
        &self.object_name
    }

    /// Its annotations, as written.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// Its images as written, container by container.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        self.images.iter().map(|(image, _)| image.as_str())
    }

    /// The pod with the facts of its images, by name as written.
    ///
    /// # Errors
    /// When an image is missing, or its facts and the manifest together do not make a process.
    pub fn to_pod(&self, images: &BTreeMap<String, ImageFacts>) -> Result<Pod, ManifestError> {
        let mut pod = self.draft.clone();
        for (container, (image, path)) in pod.containers.iter_mut().zip(&self.images) {
            let facts = images
                .get(image)
                .ok_or_else(|| fail(path, Problem::NoImage { image: image.clone() }))?;
            container.image = facts.clone();
        }
        let spec_path = join(self.template_path, "spec");
        ah_pod::requests::check(&pod)
            .map_err(|error| fail(&self.path_of(&error, &spec_path), Problem::Request(error)))?;
        Ok(pod)
    }

    pub(crate) fn template_path(&self) -> &'static str {
        self.template_path
    }

    pub(crate) fn image_paths(&self) -> impl Iterator<Item = String> {
        self.images.iter().map(|(_, path)| path.clone())
    }

    /// The container's path where the error is about one.
    fn path_of(&self, error: &ah_pod::RequestError, spec_path: &str) -> String {
        use ah_pod::RequestError as E;
        let name = match error {
            E::NoCommand { container }
            | E::UnknownCapability { container, .. }
            | E::UnknownVolume { container, .. }
            | E::FileNameTaken { container, .. }
            | E::User { container, .. } => container,
            _ => return spec_path.into(),
        };
        let index = self.draft.container(name).map(|(index, _)| index);
        let image = index.and_then(|index| self.images.get(index));
        image.and_then(|(_, path)| path.strip_suffix(".image")).unwrap_or(spec_path).into()
    }
}

/// Init containers, then the others, each with its path below the spec.
pub(crate) fn all_containers(spec: &PodSpec) -> impl Iterator<Item = (String, &api::Container)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(index, container)| (format!("initContainers[{index}]"), container));
    let main = spec.containers.iter().enumerate();
    init.chain(main.map(|(index, container)| (format!("containers[{index}]"), container)))
}

fn draft(workload: &Workload, context: &PodContext<'_>, path: &str) -> Result<Pod, ManifestError> {
    let spec = &workload.spec;
    let count_init = spec.init_containers.iter().flatten().count();
    let mut drafts = Vec::new();
    for (index, (container_path, container)) in all_containers(spec).enumerate() {
        let path = format!("{path}.{container_path}");
        drafts.push(containers::container(context, container, index < count_init, &path)?);
    }
    Ok(Pod {
        name: workload.pod_name.clone(),
        namespace: workload.namespace.clone(),
        hostname: spec.hostname.clone().filter(|name| !name.is_empty()),
        subdomain: spec.subdomain.clone().filter(|name| !name.is_empty()),
        host_aliases: host_aliases(spec, path)?,
        dns: dns(spec, path)?,
        security: security(spec, path)?,
        share_process_namespace: spec.share_process_namespace.unwrap_or(false),
        volumes: volumes(spec, path)?,
        containers: drafts,
        restart_policy: restart_policy(workload, path)?,
        termination_grace_seconds: grace(spec, path)?,
        logs: context.choices.logs,
    })
}

fn host_aliases(spec: &PodSpec, path: &str) -> Result<Vec<HostAlias>, ManifestError> {
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

fn dns(spec: &PodSpec, path: &str) -> Result<DnsSettings, ManifestError> {
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

fn security(spec: &PodSpec, path: &str) -> Result<PodSecurity, ManifestError> {
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
        sysctls: BTreeMap::new(),
    })
}

fn volumes(spec: &PodSpec, path: &str) -> Result<Vec<Volume>, ManifestError> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .enumerate()
        .map(|(index, volume)| {
            let path = format!("{path}.volumes[{index}]");
            // the other kinds were refused by the table; none at all is an emptyDir (Kubernetes API)
            let source = volume.empty_dir.clone().unwrap_or_default();
            let medium = match source.medium.as_deref() {
                Some("Memory") => Medium::Memory,
                _ => Medium::Disk,
            };
            let limit_path = format!("{path}.emptyDir.sizeLimit");
            let size_limit_bytes = match &source.size_limit {
                None => None,
                Some(text) => Some(bytes(&limit_path, &text.0)?).filter(|bytes| *bytes > 0),
            };
            Ok(Volume { name: volume.name.clone(), medium, size_limit_bytes })
        })
        .collect()
}

fn restart_policy(workload: &Workload, path: &str) -> Result<RestartPolicy, ManifestError> {
    let policy = match workload.spec.restart_policy.as_deref() {
        None | Some("Always") => RestartPolicy::Always,
        Some("OnFailure") => RestartPolicy::OnFailure,
        Some("Never") => RestartPolicy::Never,
        Some(other) => {
            return Err(value(
                &format!("{path}.restartPolicy"),
                other,
                "Always, OnFailure or Never",
            ));
        }
    };
    match workload.always_restarts && policy != RestartPolicy::Always {
        true => {
            let found = workload.spec.restart_policy.as_deref().unwrap_or_default();
            let expected = format!("Always, as a {} needs", workload.kind);
            Err(value(&format!("{path}.restartPolicy"), found, &expected))
        }
        false => Ok(policy),
    }
}

fn grace(spec: &PodSpec, path: &str) -> Result<u64, ManifestError> {
    let seconds = spec.termination_grace_period_seconds.unwrap_or(30);
    u64::try_from(seconds).map_err(|_| {
        value(&format!("{path}.terminationGracePeriodSeconds"), &seconds.to_string(), "0 or more")
    })
}

/// Names that end up in paths, host names and annotations.
fn check_names(context: &PodContext<'_>, path: &str) -> Result<(), ManifestError> {
    let spec = context.spec;
    if spec.containers.is_empty() {
        return Err(missing(&format!("{path}.containers"), "a container"));
    }
    let mut seen = BTreeSet::new();
    for (container_path, container) in all_containers(spec) {
        let path = format!("{path}.{container_path}.name");
        require(&path, &container.name, "a DNS label", is_dns_label)?;
        if !seen.insert(&container.name) {
            return Err(value(&path, &container.name, "a name that no other container has"));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = format!("{path}.volumes[{index}].name");
        require(&path, &volume.name, "a DNS label", is_dns_label)?;
        if !seen.insert(&volume.name) {
            return Err(value(&path, &volume.name, "a name that no other volume has"));
        }
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            require(&format!("{path}.{field}"), name, "a DNS label", is_dns_label)?;
        }
    }
    if let Some(name) = context.name.as_literal() {
        require("metadata.name", name, "a DNS name", is_dns_name)?;
    }
    if let Some(namespace) = &context.namespace {
        require("metadata.namespace", namespace, "a DNS label", is_dns_label)?;
    }
    Ok(())
}

/// RFC 1123 label.
fn is_dns_label(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.chars().all(|c| alphanumeric(c) || c == '-')
        && name.starts_with(alphanumeric)
        && name.ends_with(alphanumeric)
}

/// RFC 1123 subdomain.
fn is_dns_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns_label)
}

/// Whole bytes of a quantity.
pub(crate) fn bytes(path: &str, text: &str) -> Result<u64, ManifestError> {
    Quantity::parse(text)
        .and_then(Quantity::units)
        .ok_or_else(|| value(path, text, "a quantity of bytes"))
}

pub(crate) fn require(
    path: &str,
    found: &str,
    expected: &str,
    fine: impl Fn(&str) -> bool,
) -> Result<(), ManifestError> {
    match fine(found) {
        true => Ok(()),
        false => Err(value(path, found, expected)),
    }
}

pub(crate) fn value(path: &str, found: &str, expected: &str) -> ManifestError {
    fail(path, Problem::Value { found: found.into(), expected: expected.into() })
}

pub(crate) fn missing(path: &str, expected: &str) -> ManifestError {
    fail(path, Problem::Missing { expected: expected.into() })
}

pub(crate) fn fail(path: &str, problem: Problem) -> ManifestError {
    ManifestError::new(Place { path: path.into(), ..Place::default() }, problem)
}

/// What stands for an image until it is resolved.
pub(crate) fn no_image() -> ImageFacts {
    ImageFacts {
        reference: String::new(),
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: String::new(),
        user: String::new(),
        volumes: Vec::new(),
        stop_signal: None,
        accounts: Accounts::default(),
        layers: Vec::new(),
    }
}
