//! Variables that tell containers of services (kubelet, service links).

use ah_pod::{EnvVar, HostFact, Text, expand};
use k8s_openapi::api::core::v1::Service;

use crate::annotations::SERVICES_ANNOTATION;
use crate::error::{ManifestError, Problem};
use crate::manifest::Sources;
use crate::options::Platform;
use crate::template::{fail, value};

/// The variables of all services that a pod is told of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links {
    /// Services whose address the host says, as [`ah_pod::Pod::services`].
    pub(crate) services: Vec<String>,
    pub(crate) env: Vec<EnvVar>,
}

/// What is asked for.
pub(crate) struct Wanted<'a> {
    /// `spec.enableServiceLinks`.
    pub(crate) enabled: Option<bool>,
    /// The annotation's names, in its order.
    pub(crate) names: &'a [String],
    pub(crate) annotations_path: &'a str,
    pub(crate) namespace: &'a Option<String>,
    pub(crate) platform: Platform,
}

/// A service's name and ports.
struct Target {
    name: String,
    label: String,
    /// An address that the manifest fixes.
    address: Option<String>,
    ports: Vec<Port>,
}

struct Port {
    name: String,
    port: i32,
    protocol: String,
}

/// A cluster tells every pod of its own API; of other services only with `enableServiceLinks`, and here only of named ones.
pub(crate) fn links(wanted: &Wanted<'_>, sources: &Sources) -> Result<Links, ManifestError> {
    let mut links = Links::default();
    let enabled = wanted.enabled == Some(true);
    if enabled || wanted.platform == Platform::Cluster {
        links.add(kubernetes());
    }
    let path = format!("{}.{SERVICES_ANNOTATION}", wanted.annotations_path);
    for name in wanted.names {
        if !enabled {
            return Err(value(&path, name, "no service, since enableServiceLinks is not true"));
        }
        links.add(target(name, wanted, sources, &path)?);
    }
    Ok(links)
}

/// The API's service, the same in every cluster.
fn kubernetes() -> Target {
    let port = Port { name: "https".into(), port: 443, protocol: "TCP".into() };
    Target {
        name: "kubernetes".into(),
        label: "default/kubernetes".into(),
        address: None,
        ports: vec![port],
    }
}

fn target(
    name: &str,
    wanted: &Wanted<'_>,
    sources: &Sources,
    path: &str,
) -> Result<Target, ManifestError> {
    let key = (wanted.namespace.clone(), name.to_owned());
    let what = || format!("Service {name:?}");
    let object = sources.services.get(&key);
    let object = object.ok_or_else(|| fail(path, Problem::NotInFile { what: what() }))?;
    let service: Service = serde_json::from_value(object.clone())
        .map_err(|error| fail(path, Problem::Type { detail: format!("{}: {error}", what()) }))?;
    let spec = service.spec.unwrap_or_default();
    let address = spec.cluster_ip.filter(|address| !address.is_empty());
    let is_headless = address.as_deref() == Some("None");
    let ports: Vec<Port> = spec.ports.unwrap_or_default().into_iter().map(Port::from).collect();
    if is_headless || ports.is_empty() || spec.type_.as_deref() == Some("ExternalName") {
        return Err(value(path, name, "a service with an address and ports"));
    }
    let namespace = wanted.namespace.as_deref().map(|namespace| format!("{namespace}/"));
    let label = format!("{}{name}", namespace.unwrap_or_default());
    Ok(Target { name: name.into(), label, address, ports })
}

impl From<k8s_openapi::api::core::v1::ServicePort> for Port {
    fn from(port: k8s_openapi::api::core::v1::ServicePort) -> Self {
        Self {
            name: port.name.unwrap_or_default(),
            port: port.port,
            protocol: port.protocol.unwrap_or_else(|| "TCP".into()),
        }
    }
}

impl Links {
    /// The variables of one service (kubelet, `envvars.FromServices`).
    fn add(&mut self, target: Target) {
        let address = match target.address {
            Some(address) => Text::from(address),
            None => {
                self.services.push(target.label);
                Text::host(HostFact::ServiceIp(self.services.len().saturating_sub(1)))
            }
        };
        let prefix = variable_name(&target.name);
        self.push(format!("{prefix}_SERVICE_HOST"), address.clone());
        for (index, port) in target.ports.iter().enumerate() {
            let number = port.port.to_string();
            if index == 0 {
                self.push(format!("{prefix}_SERVICE_PORT"), number.clone().into());
            }
            if !port.name.is_empty() {
                let name = variable_name(&port.name);
                self.push(format!("{prefix}_SERVICE_PORT_{name}"), number.clone().into());
            }
        }
        for (index, port) in target.ports.iter().enumerate() {
            self.push_port(&prefix, index == 0, port, &address);
        }
    }

    fn push_port(&mut self, prefix: &str, is_first: bool, port: &Port, address: &Text) {
        let protocol = port.protocol.to_lowercase();
        let url = expand(&format!("{protocol}://$(A):{}", port.port), |_| Some(address.clone()));
        if is_first {
            self.push(format!("{prefix}_PORT"), url.clone());
        }
        let prefix = format!("{prefix}_PORT_{}_{}", port.port, port.protocol.to_uppercase());
        self.push(format!("{prefix}_PROTO"), protocol.into());
        self.push(format!("{prefix}_PORT"), port.port.to_string().into());
        self.push(format!("{prefix}_ADDR"), address.clone());
        self.push(prefix, url);
    }

    fn push(&mut self, name: String, value: Text) {
        self.env.push(EnvVar { name, value });
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}
