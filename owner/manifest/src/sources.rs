//! Objects that pods take values and settings from.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use k8s_openapi::api::core::v1::{ConfigMap, LimitRange, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};

use crate::error::Problem;
use crate::strict::Failure;
use crate::workload::Workload;

/// Namespace, where it is said, and name.
pub(crate) type Key = (Option<String>, String);

/// What pods are read with, by namespace and name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<Key, BTreeMap<String, String>>,
    pub(crate) secrets: BTreeMap<Key, BTreeMap<String, Option<String>>>,
    /// Files that ConfigMaps make in volumes.
    pub(crate) config_map_files: BTreeMap<Key, BTreeMap<String, Vec<u8>>>,
    /// Files that Secrets make in volumes.
    pub(crate) secret_files: BTreeMap<Key, BTreeMap<String, Vec<u8>>>,
    /// Services, read when one is named: most manifests have some that no pod needs.
    pub(crate) services: BTreeMap<Key, Value>,
    accounts: BTreeMap<Key, Account>,
    limits: BTreeMap<Option<String>, Defaults>,
}

/// What a ServiceAccount says for pods that do not say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Account {
    automount: Option<bool>,
    pull_secrets: Vec<String>,
}

/// What LimitRanges of a namespace say for containers that do not say it: by resource.
#[derive(Debug, Clone, Default)]
struct Defaults {
    limits: BTreeMap<String, String>,
    requests: BTreeMap<String, String>,
}

impl Sources {
    pub(crate) fn add_config_map(&mut self, map: &ConfigMap) -> Result<(), Failure> {
        let what = format!("ConfigMap {:?}", map.metadata.name.as_deref().unwrap_or_default());
        let values = map.data.clone().unwrap_or_default();
        let binary = map.binary_data.iter().flatten();
        let binary = binary.map(|(key, bytes)| (key.clone(), bytes.0.clone()));
        let files = values.iter().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
        let files = files.chain(binary).collect();
        insert(&mut self.config_map_files, key(&map.metadata), files, what.clone())?;
        insert(&mut self.config_maps, key(&map.metadata), values, what)
    }

    /// `stringData` over `data`; `None` for a value that is not text.
    pub(crate) fn add_secret(&mut self, secret: &Secret) -> Result<(), Failure> {
        let bytes = secret.data.iter().flatten();
        let decoded =
            bytes.map(|(key, value)| (key.clone(), String::from_utf8(value.0.clone()).ok()));
        let plain = secret.string_data.iter().flatten();
        let plain = plain.map(|(key, value)| (key.clone(), Some(value.clone())));
        let what = format!("Secret {:?}", secret.metadata.name.as_deref().unwrap_or_default());
        let bytes = secret.data.iter().flatten();
        let bytes = bytes.map(|(key, bytes)| (key.clone(), bytes.0.clone()));
        let text = secret.string_data.iter().flatten();
        let text = text.map(|(key, text)| (key.clone(), text.clone().into_bytes()));
        let files = bytes.chain(text).collect();
        insert(&mut self.secret_files, key(&secret.metadata), files, what.clone())?;
        insert(&mut self.secrets, key(&secret.metadata), decoded.chain(plain).collect(), what)
    }

    /// Of the kinds without pods, Services may be named by a pod.
    pub(crate) fn add_other(&mut self, value: &Value) {
        let text =
            |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        if text("/apiVersion").as_deref() == Some("v1")
            && text("/kind").as_deref() == Some("Service")
        {
            let name = text("/metadata/name").unwrap_or_default();
            self.services.insert((text("/metadata/namespace"), name), value.clone());
        }
    }

    pub(crate) fn add_service_account(&mut self, account: &ServiceAccount) -> Result<(), Failure> {
        let names = account.image_pull_secrets.iter().flatten();
        let facts = Account {
            automount: account.automount_service_account_token,
            pull_secrets: names.map(|secret| secret.name.clone()).collect(),
        };
        let name = account.metadata.name.as_deref().unwrap_or_default();
        let what = format!("ServiceAccount {name:?}");
        insert(&mut self.accounts, key(&account.metadata), facts, what)
    }

    /// Defaults as the API server fills them in: a limit from the maximum, a request from the
    /// limit and then from the minimum (`SetDefaults_LimitRangeItem` of Kubernetes).
    pub(crate) fn add_limit_range(&mut self, range: &LimitRange) -> Result<(), Failure> {
        let defaults = self.limits.entry(range.metadata.namespace.clone()).or_default();
        let items = range.spec.iter().flat_map(|spec| &spec.limits);
        for item in items.filter(|item| item.type_ == "Container") {
            let mut limits = item.default.clone().unwrap_or_default();
            for (name, most) in item.max.iter().flatten() {
                limits.entry(name.clone()).or_insert_with(|| most.clone());
            }
            let mut requests = item.default_request.clone().unwrap_or_default();
            for (name, value) in limits.iter().chain(item.min.iter().flatten()) {
                requests.entry(name.clone()).or_insert_with(|| value.clone());
            }
            let what = |part: &str, name: &str| format!("LimitRange's default {part} for {name}");
            for (name, value) in limits {
                let what = what("limit", &name);
                insert(&mut defaults.limits, name, value.0, what)?;
            }
            for (name, value) in requests {
                let what = what("request", &name);
                insert(&mut defaults.requests, name, value.0, what)?;
            }
        }
        Ok(())
    }

    /// Fills in what the pod does not say and an object given with it does.
    pub(crate) fn complete(&self, workload: &mut Workload) {
        let namespace = &workload.namespace;
        let Value::Object(spec) = &mut workload.spec else { return };
        let said = |spec: &Map<String, Value>, field: &str| {
            let text = spec.get(field).and_then(Value::as_str).filter(|name| !name.is_empty());
            text.map(str::to_owned)
        };
        let account = said(spec, "serviceAccountName").or_else(|| said(spec, "serviceAccount"));
        let account = account.unwrap_or_else(|| "default".into());
        if let Some(account) = self.accounts.get(&(namespace.clone(), account)) {
            account.complete(spec);
        }
        if let Some(defaults) = self.limits.get(namespace) {
            for list in ["initContainers", "containers"] {
                let containers = spec.get_mut(list).and_then(Value::as_array_mut);
                for container in containers.into_iter().flatten() {
                    defaults.complete(container);
                }
            }
        }
    }
}

impl Account {
    fn complete(&self, spec: &mut Map<String, Value>) {
        let automount = spec.get("automountServiceAccountToken").is_none_or(Value::is_null);
        if let Some(value) = self.automount.filter(|_| automount) {
            spec.insert("automountServiceAccountToken".into(), value.into());
        }
        let pull = spec.get("imagePullSecrets").and_then(Value::as_array);
        if pull.is_none_or(Vec::is_empty) && !self.pull_secrets.is_empty() {
            let names = self.pull_secrets.iter().map(|name| serde_json::json!({"name": name}));
            spec.insert("imagePullSecrets".into(), names.collect());
        }
    }
}

impl Defaults {
    /// A request that only a limit says is the limit before the defaults are looked at.
    fn complete(&self, container: &mut Value) {
        let Value::Object(container) = container else { return };
        let resources = container.entry("resources").or_insert(Value::Null);
        if resources.is_null() {
            *resources = Value::Object(Map::new());
        }
        let Value::Object(resources) = resources else { return };
        let own = resources.get("limits").and_then(Value::as_object).cloned().unwrap_or_default();
        let as_values = |map: &BTreeMap<String, String>| -> Vec<(String, Value)> {
            map.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect()
        };
        let requests = own.into_iter().chain(as_values(&self.requests)).collect();
        for (part, defaults) in [("requests", requests), ("limits", as_values(&self.limits))] {
            let said = resources.entry(part).or_insert(Value::Null);
            if said.is_null() {
                *said = Value::Object(Map::new());
            }
            let Value::Object(said) = said else { continue };
            for (name, value) in defaults {
                said.entry(name).or_insert(value);
            }
        }
    }
}

fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone(), metadata.name.clone().unwrap_or_default())
}

/// The same again is nothing new; something else under the same key is a mistake, of which the
/// order of files and objects must not decide.
fn insert<K: Ord, V: PartialEq>(
    map: &mut BTreeMap<K, V>,
    key: K,
    value: V,
    what: String,
) -> Result<(), Failure> {
    match map.entry(key) {
        Entry::Vacant(vacant) => {
            vacant.insert(value);
            Ok(())
        }
        Entry::Occupied(found) if *found.get() == value => Ok(()),
        Entry::Occupied(_) => Err((String::new(), Problem::Twice { what })),
    }
}
