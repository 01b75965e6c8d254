//! Volumes of a pod: emptyDir, and those whose files come from objects, fields and tokens.

use std::collections::{BTreeMap, BTreeSet};

use ah_pod::{
    FileBytes, FileContent, FileVolume, Medium, Part, Text, Unpinned, Volume, VolumeFile,
    VolumeSource, trees,
};
use k8s_openapi::api::core::v1::{self as api, KeyToPath, VolumeProjection};

use crate::annotations::UNPINNED_ANNOTATION;
use crate::error::{ManifestError, Problem};
use crate::sources::Key;
use crate::template::{PodContext, bytes, fail, missing, require, value};
use crate::{env, token};

/// Default of `defaultMode` (Kubernetes API).
const DEFAULT_MODE: i32 = 0o644;

/// The pod's volumes, in its order.
pub(crate) fn volumes(context: &PodContext<'_>, path: &str) -> Result<Vec<Volume>, ManifestError> {
    let all = context.spec.volumes.iter().flatten().enumerate();
    let volumes: Vec<Volume> = all
        .map(|(index, volume)| {
            let source = source(context, volume, &format!("{path}.volumes[{index}]"))?;
            Ok(Volume { name: volume.name.clone(), source })
        })
        .collect::<Result<_, ManifestError>>()?;
    check_choices(context, &volumes)?;
    Ok(volumes)
}

fn source(
    context: &PodContext<'_>,
    volume: &api::Volume,
    path: &str,
) -> Result<VolumeSource, ManifestError> {
    let kinds = [
        volume.empty_dir.is_some(),
        volume.config_map.is_some(),
        volume.secret.is_some(),
        volume.downward_api.is_some(),
        volume.projected.is_some(),
    ];
    if kinds.into_iter().filter(|set| *set).count() > 1 {
        return Err(value(path, "several kinds", "one kind of volume"));
    }
    let at = |field: &str| format!("{path}.{field}");
    let files = |mode: Option<i32>, field: &str| Files::new(context, mode, &at(field));
    Ok(VolumeSource::Files(if let Some(map) = &volume.config_map {
        let mut files = files(map.default_mode, "configMap")?;
        let object = Object { kind: Kind::ConfigMap, name: &map.name, optional: map.optional };
        files.object(object, map.items.as_deref(), &at("configMap"))?;
        files.finish(&at("configMap"))?
    } else if let Some(secret) = &volume.secret {
        let mut files = files(secret.default_mode, "secret")?;
        let name = secret.secret_name.as_deref().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| missing(&at("secret.secretName"), "a name"))?;
        let object = Object { kind: Kind::Secret, name, optional: secret.optional };
        files.object(object, secret.items.as_deref(), &at("secret"))?;
        files.finish(&at("secret"))?
    } else if let Some(fields) = &volume.downward_api {
        let mut files = files(fields.default_mode, "downwardAPI")?;
        files.fields(fields.items.as_deref(), &at("downwardAPI"))?;
        files.finish(&at("downwardAPI"))?
    } else if let Some(projected) = &volume.projected {
        let mut files = files(projected.default_mode, "projected")?;
        let sources = projected.sources.as_deref().unwrap_or_default();
        files.has_token = sources.iter().any(|source| source.service_account_token.is_some());
        for (index, source) in sources.iter().enumerate() {
            files.projection(source, &format!("{path}.projected.sources[{index}]"))?;
        }
        files.finish(&at("projected"))?
    } else {
        // the other kinds were refused by the table; none at all is an emptyDir (Kubernetes API)
        return empty_dir(volume.empty_dir.clone().unwrap_or_default(), path);
    }))
}

fn empty_dir(source: api::EmptyDirVolumeSource, path: &str) -> Result<VolumeSource, ManifestError> {
    let medium = match source.medium.as_deref() {
        Some("Memory") => Medium::Memory,
        _ => Medium::Disk,
    };
    let limit_path = format!("{path}.emptyDir.sizeLimit");
    let size_limit_bytes = match &source.size_limit {
        None => None,
        Some(text) => Some(bytes(&limit_path, &text.0)?).filter(|bytes| *bytes > 0),
    };
    Ok(VolumeSource::EmptyDir { medium, size_limit_bytes })
}

/// Nothing that the owner leaves to the host is left to it by mistake.
fn check_choices(context: &PodContext<'_>, volumes: &[Volume]) -> Result<(), ManifestError> {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for volume in volumes {
        let VolumeSource::Files(files) = &volume.source else { continue };
        used.extend(
            files.unpinned.iter().flat_map(|unpinned| &unpinned.objects).map(String::as_str),
        );
        used.extend(files.files.iter().filter_map(|file| match &file.content {
            FileContent::Free(what) => Some(what.as_str()),
            _ => None,
        }));
    }
    match context.choices.unpinned.iter().find(|choice| !used.contains(choice.as_str())) {
        None => Ok(()),
        Some(choice) => {
            let path = format!("{}.{UNPINNED_ANNOTATION}", context.annotations_path);
            Err(value(&path, choice, "what a volume names and the file does not have"))
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    ConfigMap,
    Secret,
}

#[derive(Clone, Copy)]
struct Object<'a> {
    kind: Kind,
    name: &'a str,
    optional: Option<bool>,
}

impl Object<'_> {
    fn data<'c>(&self, context: &PodContext<'c>) -> Option<&'c BTreeMap<String, Vec<u8>>> {
        let key: Key = (context.namespace.clone(), self.name.to_owned());
        match self.kind {
            Kind::ConfigMap => context.sources.config_map_files.get(&key),
            Kind::Secret => context.sources.secret_files.get(&key),
        }
    }

    /// As the annotation has it.
    fn choice(&self) -> String {
        let kind = match self.kind {
            Kind::ConfigMap => "configMap",
            Kind::Secret => "secret",
        };
        format!("{kind}/{}", self.name)
    }
}

/// The files of one volume while its sources are read.
struct Files<'a, 'c> {
    context: &'a PodContext<'c>,
    default_mode: u32,
    files: BTreeMap<String, VolumeFile>,
    unpinned: Vec<String>,
    /// It holds a service account's token, so the cluster's certificates beside it are the cluster's to say.
    has_token: bool,
}

impl<'a, 'c> Files<'a, 'c> {
    fn new(
        context: &'a PodContext<'c>,
        mode: Option<i32>,
        path: &str,
    ) -> Result<Self, ManifestError> {
        let default_mode = file_mode(mode.unwrap_or(DEFAULT_MODE), &format!("{path}.defaultMode"))?;
        let (files, unpinned) = (BTreeMap::new(), Vec::new());
        Ok(Self { context, default_mode, files, unpinned, has_token: false })
    }

    fn projection(&mut self, source: &VolumeProjection, path: &str) -> Result<(), ManifestError> {
        let at = |field: &str| format!("{path}.{field}");
        if let Some(map) = &source.config_map {
            let object = Object { kind: Kind::ConfigMap, name: &map.name, optional: map.optional };
            self.object(object, map.items.as_deref(), &at("configMap"))
        } else if let Some(secret) = &source.secret {
            let name = &secret.name;
            let object = Object { kind: Kind::Secret, name, optional: secret.optional };
            self.object(object, secret.items.as_deref(), &at("secret"))
        } else if let Some(fields) = &source.downward_api {
            self.fields(fields.items.as_deref(), &at("downwardAPI"))
        } else if let Some(token) = &source.service_account_token {
            let path = at("serviceAccountToken.path");
            self.add(&token.path, self.default_mode, FileContent::Token, &path)
        } else {
            let kinds = "configMap, secret, downwardAPI or serviceAccountToken";
            Err(missing(path, kinds))
        }
    }

    fn object(
        &mut self,
        object: Object<'_>,
        items: Option<&[KeyToPath]>,
        path: &str,
    ) -> Result<(), ManifestError> {
        match (object.data(self.context), items) {
            (Some(data), None | Some([])) => {
                for (key, bytes) in data {
                    let content = FileContent::Fixed(FileBytes(bytes.clone()));
                    self.add(key, self.default_mode, content, path)?;
                }
                Ok(())
            }
            (Some(data), Some(items)) => self.items(object, items, path, |key| {
                data.get(key).map(|bytes| FileContent::Fixed(FileBytes(bytes.clone())))
            }),
            (None, _) if object.optional == Some(true) => Ok(()),
            (None, items) => self.not_given(object, items.unwrap_or_default(), path),
        }
    }

    /// The contents are the host's to say where the owner says so, and for the certificates beside a token.
    fn not_given(
        &mut self,
        object: Object<'_>,
        items: &[KeyToPath],
        path: &str,
    ) -> Result<(), ManifestError> {
        let choice = object.choice();
        let beside_token = self.has_token && choice == token::CERTIFICATES;
        if !self.context.choices.unpinned.contains(&choice) && !beside_token {
            return Err(fail(path, Problem::NotPinned { what: choice }));
        }
        if items.is_empty() {
            self.unpinned.push(choice);
            return Ok(());
        }
        self.items(object, items, path, |_| Some(FileContent::Free(choice.clone())))
    }

    fn items(
        &mut self,
        object: Object<'_>,
        items: &[KeyToPath],
        path: &str,
        content: impl Fn(&str) -> Option<FileContent>,
    ) -> Result<(), ManifestError> {
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}.items[{index}]");
            match content(&item.key) {
                Some(content) => {
                    let mode = self.mode(item.mode, &path)?;
                    self.add(&item.path, mode, content, &format!("{path}.path"))?;
                }
                None if object.optional == Some(true) => {}
                None => {
                    let what = format!("key {:?} of {}", item.key, object.choice());
                    return Err(fail(&path, Problem::NotInFile { what }));
                }
            }
        }
        Ok(())
    }

    fn fields(
        &mut self,
        items: Option<&[api::DownwardAPIVolumeFile]>,
        path: &str,
    ) -> Result<(), ManifestError> {
        for (index, item) in items.unwrap_or_default().iter().enumerate() {
            let path = format!("{path}.items[{index}]");
            let content = self.field(item, &path)?;
            let mode = self.mode(item.mode, &path)?;
            self.add(&item.path, mode, content, &format!("{path}.path"))?;
        }
        Ok(())
    }

    fn field(
        &self,
        item: &api::DownwardAPIVolumeFile,
        path: &str,
    ) -> Result<FileContent, ManifestError> {
        if let Some(selector) = &item.resource_field_ref {
            let path = format!("{path}.resourceFieldRef");
            let text = env::from_named_resource(self.context, selector, &path)?;
            return one_value(&text, &path);
        }
        let Some(selector) = &item.field_ref else {
            return Err(missing(path, "fieldRef or resourceFieldRef"));
        };
        let path = format!("{path}.fieldRef.fieldPath");
        let found = selector.field_path.as_str();
        let is_name = matches!(found, "metadata.name" | "metadata.namespace" | "metadata.uid");
        let is_keyed =
            found.starts_with("metadata.labels['") || found.starts_with("metadata.annotations['");
        match found {
            "metadata.labels" | "metadata.annotations" => self.whole_map(found, &path),
            _ if is_name || is_keyed => {
                one_value(&env::from_field(self.context, selector, &path)?, &path)
            }
            other => Err(value(&path, other, FIELD_PATHS)),
        }
    }

    /// Known for a pod that is applied as it is; a controller adds labels, and everybody annotations.
    fn whole_map(&self, field: &str, path: &str) -> Result<FileContent, ManifestError> {
        let choice = format!("downwardAPI/{field}");
        let is_known = field == "metadata.labels" && self.context.is_bare_pod;
        if self.context.choices.unpinned.contains(&choice) {
            return Ok(FileContent::Free(choice));
        }
        if !is_known {
            return Err(fail(path, Problem::NotPinned { what: choice }));
        }
        let lines: Vec<String> =
            self.context.labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        Ok(FileContent::Fixed(FileBytes(lines.join("\n").into_bytes())))
    }

    fn mode(&self, own: Option<i32>, path: &str) -> Result<u32, ManifestError> {
        match own {
            Some(mode) => file_mode(mode, &format!("{path}.mode")),
            None => Ok(self.default_mode),
        }
    }

    /// A later file of the same path takes the place of the earlier one, as the kubelet has it.
    fn add(
        &mut self,
        name: &str,
        mode: u32,
        content: FileContent,
        path: &str,
    ) -> Result<(), ManifestError> {
        require(path, name, "a relative path without .., not starting with ..", is_file_path)?;
        if let FileContent::Fixed(bytes) = &content
            && bytes.0.len() > trees::MAX_FILE_BYTES
        {
            let found = format!("{name} of {} bytes", bytes.0.len());
            return Err(value(path, &found, "files of at most 1 MiB"));
        }
        let name = relative(name);
        self.files.insert(name.clone(), VolumeFile { path: name, mode, content });
        Ok(())
    }

    fn finish(self, path: &str) -> Result<FileVolume, ManifestError> {
        let files: Vec<VolumeFile> = self.files.into_values().collect();
        if let Some(both) = trees::is_file_and_folder(&files) {
            return Err(value(path, both, "paths that are a file or a folder, not both"));
        }
        let mode = self.default_mode;
        let unpinned = Some(self.unpinned).filter(|objects| !objects.is_empty());
        Ok(FileVolume { files, unpinned: unpinned.map(|objects| Unpinned { objects, mode }) })
    }
}

const FIELD_PATHS: &str = "metadata.name, metadata.namespace, metadata.uid, metadata.labels, \
     metadata.annotations, metadata.labels['KEY'] or metadata.annotations['KEY']";

fn one_value(text: &Text, path: &str) -> Result<FileContent, ManifestError> {
    match (text.as_literal(), text.parts()) {
        (Some(text), _) => Ok(FileContent::Fixed(FileBytes(text.as_bytes().to_vec()))),
        (None, [Part::Host(fact)]) => Ok(FileContent::Host(*fact)),
        (None, [Part::Literal(before), Part::Host(fact)]) => {
            Ok(FileContent::Behind { before: before.clone(), fact: *fact })
        }
        _ => Err(value(path, "several values", "one value")),
    }
}

fn file_mode(mode: i32, path: &str) -> Result<u32, ManifestError> {
    match u32::try_from(mode) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(value(path, &mode.to_string(), "0 to 511 (octal 0777)")),
    }
}

/// Kubernetes' rule for paths in a volume, and nothing that reads as a placeholder of the policy.
fn is_file_path(path: &str) -> bool {
    !path.starts_with('/')
        && !path.starts_with("..")
        && !relative(path).is_empty()
        && path.len() <= 1024
        && path.split('/').all(|part| part != "..")
        && !path.contains("$(")
        && !path.chars().any(char::is_control)
}

/// Without empty parts and `.`, as Go's `filepath.Clean` leaves it.
pub(crate) fn relative(path: &str) -> String {
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    parts.join("/")
}
