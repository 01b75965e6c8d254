//! Environment of a container, from values, fields, resources, ConfigMaps and Secrets.

use ah_pod::{EnvVar, HostFact, Text, expand};
use k8s_openapi::api::core::v1::{
    self as api, EnvFromSource, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};

use crate::error::{ManifestError, Problem};
use crate::quantity::Quantity;
use crate::template::{PodContext, all_containers, fail, missing, require, value};

/// The variables, names unique, `$(NAME)` expanded: `envFrom` first, then `env`, where a later
/// value replaces an earlier one and sees what stands before it.
pub(crate) fn variables(
    context: &PodContext<'_>,
    container: &api::Container,
    path: &str,
) -> Result<Vec<EnvVar>, ManifestError> {
    let mut variables: Vec<EnvVar> = Vec::new();
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        let path = format!("{path}.envFrom[{index}]");
        for (name, value) in from_object(context, source, &path)? {
            let name = format!("{}{name}", source.prefix.as_deref().unwrap_or_default());
            require(&path, &name, NAME_RULE, is_env_name)?;
            set(&mut variables, name, value);
        }
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let path = format!("{path}.env[{index}]");
        require(&format!("{path}.name"), &variable.name, NAME_RULE, is_env_name)?;
        let written = variable.value.as_deref().unwrap_or_default();
        let value = match &variable.value_from {
            Some(_) if !written.is_empty() => {
                return Err(value(&format!("{path}.valueFrom"), "both", "value or valueFrom"));
            }
            Some(source) => {
                match from_source(context, container, source, &format!("{path}.valueFrom"))? {
                    Some(value) => value,
                    None => continue,
                }
            }
            None => expand(written, |name| {
                // services last (kubelet, `makeEnvironmentVariables`)
                let mut known = variables.iter().chain(&context.links.env);
                known.find(|known| known.name == name).map(|known| known.value.clone())
            }),
        };
        set(&mut variables, variable.name.clone(), value);
    }
    let is_new = |link: &&EnvVar| !variables.iter().any(|variable| variable.name == link.name);
    let links: Vec<EnvVar> = context.links.env.iter().filter(is_new).cloned().collect();
    variables.extend(links);
    Ok(variables)
}

const NAME_RULE: &str = "letters, digits, -, _ and ., no digit first";

/// Kubernetes' rule for names of environment variables.
fn is_env_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || "-._".contains(c);
    name.starts_with(first)
        && name.chars().all(|c| first(c) || c.is_ascii_digit())
        && name != "."
        && !name.starts_with("..")
}

fn set(variables: &mut Vec<EnvVar>, name: String, value: Text) {
    match variables.iter_mut().find(|variable| variable.name == name) {
        Some(variable) => variable.value = value,
        None => variables.push(EnvVar { name, value }),
    }
}

fn from_object(
    context: &PodContext<'_>,
    source: &EnvFromSource,
    path: &str,
) -> Result<Vec<(String, Text)>, ManifestError> {
    match (&source.config_map_ref, &source.secret_ref) {
        (Some(map), None) => {
            let path = format!("{path}.configMapRef");
            let found = context.sources.config_maps.get(&key(context, &map.name));
            match found {
                Some(values) => Ok(values
                    .iter()
                    .map(|(name, value)| (name.clone(), value.as_str().into()))
                    .collect()),
                None => absent(map.optional, &path, &format!("ConfigMap {:?}", map.name)),
            }
        }
        (None, Some(secret)) => {
            let path = format!("{path}.secretRef");
            let what = format!("Secret {:?}", secret.name);
            let Some(values) = context.sources.secrets.get(&key(context, &secret.name)) else {
                return absent(secret.optional, &path, &what);
            };
            values
                .iter()
                .map(|(name, value)| Ok((name.clone(), secret_text(value, &path)?)))
                .collect()
        }
        _ => Err(missing(path, "one of configMapRef and secretRef")),
    }
}

/// Objects are looked up in the pod's own namespace.
fn key(context: &PodContext<'_>, name: &str) -> (Option<String>, String) {
    (context.namespace.clone(), name.to_owned())
}

fn absent<T: Default>(optional: Option<bool>, path: &str, what: &str) -> Result<T, ManifestError> {
    match optional {
        Some(true) => Ok(T::default()),
        _ => Err(fail(path, Problem::NotInFile { what: what.into() })),
    }
}

fn secret_text(value: &Option<String>, path: &str) -> Result<Text, ManifestError> {
    match value {
        Some(text) => Ok(Text::secret(text)),
        None => Err(crate::template::value(path, "bytes", "a secret that is UTF-8 text")),
    }
}

/// `None` where an optional value is not there.
fn from_source(
    context: &PodContext<'_>,
    container: &api::Container,
    source: &EnvVarSource,
    path: &str,
) -> Result<Option<Text>, ManifestError> {
    if let Some(field) = &source.field_ref {
        return from_field(context, field, &format!("{path}.fieldRef.fieldPath")).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        let path = format!("{path}.resourceFieldRef");
        return from_resource(context, container, resource, &path).map(Some);
    }
    if let Some(selector) = &source.config_map_key_ref {
        let path = format!("{path}.configMapKeyRef");
        let values = context.sources.config_maps.get(&key(context, &selector.name));
        let what = format!("key {:?} of ConfigMap {:?}", selector.key, selector.name);
        return match values.and_then(|values| values.get(&selector.key)) {
            Some(value) => Ok(Some(value.as_str().into())),
            None => absent(selector.optional, &path, &what),
        };
    }
    if let Some(selector) = &source.secret_key_ref {
        let path = format!("{path}.secretKeyRef");
        let values = context.sources.secrets.get(&key(context, &selector.name));
        let what = format!("key {:?} of Secret {:?}", selector.key, selector.name);
        return match values.and_then(|values| values.get(&selector.key)) {
            Some(value) => secret_text(value, &path).map(Some),
            None => absent(selector.optional, &path, &what),
        };
    }
    Err(missing(path, "fieldRef, resourceFieldRef, configMapKeyRef or secretKeyRef"))
}

pub(crate) fn from_field(
    context: &PodContext<'_>,
    field: &ObjectFieldSelector,
    path: &str,
) -> Result<Text, ManifestError> {
    let found = field.field_path.as_str();
    let keyed = |prefix: &str| found.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("']"));
    if let Some(key) = keyed("metadata.labels['") {
        return labelled(context, context.labels.get(key), path, &format!("label {key:?}"), key);
    }
    if let Some(key) = keyed("metadata.annotations['") {
        let what = format!("annotation {key:?}");
        return labelled(context, context.annotations.get(key), path, &what, key);
    }
    Ok(match found {
        "metadata.name" => context.name.clone(),
        "metadata.namespace" => context.namespace(),
        "metadata.uid" => Text::host(HostFact::PodUid),
        "spec.nodeName" => Text::host(HostFact::NodeName),
        "spec.serviceAccountName" => context.service_account().into(),
        "status.podIP" => Text::host(HostFact::PodIp),
        "status.podIPs" => Text::host(HostFact::PodIps),
        "status.hostIP" => Text::host(HostFact::HostIp),
        "status.hostIPs" => Text::host(HostFact::HostIps),
        other => return Err(value(path, other, FIELD_PATHS)),
    })
}

const FIELD_PATHS: &str = "metadata.name, metadata.namespace, metadata.uid, metadata.labels['KEY'], \
     metadata.annotations['KEY'], spec.nodeName, spec.serviceAccountName, status.podIP, \
     status.podIPs, status.hostIP or status.hostIPs";

/// What the controller adds counts first; a label that both lack could only come from the cluster.
fn labelled(
    context: &PodContext<'_>,
    found: Option<&String>,
    path: &str,
    what: &str,
    key: &str,
) -> Result<Text, ManifestError> {
    match (context.added.get(key), found) {
        (Some(added), _) => Ok(added.clone()),
        (None, Some(value)) => Ok(value.as_str().into()),
        (None, None) => Err(fail(path, Problem::NotInFile { what: what.into() })),
    }
}

/// As the resource of a container, which has to be named.
pub(crate) fn from_named_resource(
    context: &PodContext<'_>,
    selector: &ResourceFieldSelector,
    path: &str,
) -> Result<Text, ManifestError> {
    let name = selector.container_name.as_deref().unwrap_or_default();
    let container = all_containers(context.spec).find(|(_, container)| container.name == name);
    match container {
        Some((_, container)) => from_resource(context, container, selector, path),
        None => Err(value(&format!("{path}.containerName"), name, "a container of the pod")),
    }
}

fn from_resource(
    context: &PodContext<'_>,
    container: &api::Container,
    selector: &ResourceFieldSelector,
    path: &str,
) -> Result<Text, ManifestError> {
    let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        None => container,
        Some(name) => all_containers(context.spec)
            .map(|(_, container)| container)
            .find(|container| container.name == name)
            .ok_or_else(|| {
                value(&format!("{path}.containerName"), name, "a container of the pod")
            })?,
    };
    let resources = container.resources.clone().unwrap_or_default();
    let (limits, requests) =
        (resources.limits.unwrap_or_default(), resources.requests.unwrap_or_default());
    let resource_path = format!("{path}.resource");
    let (part, name) = selector.resource.split_once('.').unwrap_or_default();
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") {
        let expected = "limits. or requests. with cpu, memory or ephemeral-storage";
        return Err(value(&resource_path, &selector.resource, expected));
    }
    let found = match part {
        // without a limit the value would be the node's
        "limits" => limits.get(name),
        "requests" => requests.get(name).or(limits.get(name)),
        other => return Err(value(&resource_path, other, "limits or requests")),
    };
    let found = match (found, part) {
        (Some(quantity), _) => quantity.0.as_str(),
        (None, "requests") => "0",
        (None, _) => {
            let expected = format!("a limit for {name}, else the value is the node's");
            return Err(missing(&resource_path, &expected));
        }
    };
    let divisor = selector.divisor.as_ref().map_or("1", |divisor| divisor.0.as_str());
    let divisor = if divisor == "0" { "1" } else { divisor };
    let parsed = Quantity::parse(found).zip(Quantity::parse(divisor));
    parsed
        .and_then(|(found, divisor)| found.divided(divisor))
        .map(|value| value.to_string().into())
        .ok_or_else(|| value(&format!("{path}.divisor"), divisor, "a quantity above 0"))
}
