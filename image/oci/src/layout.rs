use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ah_digest::{DigestError, Sha256};
use oci_spec::image::{Descriptor, ImageIndex};
use serde::Deserialize;

use crate::path::{self, PathError};
use crate::resolve::{
    self, ImageError, LayerDescriptor, MAX_DOCUMENT_BYTES, Platform, ResolvedImage,
};
use crate::tar::{Entries, EntryKind, TarError};
use crate::verified::{VerifiedReader, read_document};

/// Largest unpacked archive, bytes.
const MAX_ARCHIVE_BYTES: u64 = 64 << 30;
/// Indexes inside indexes that are followed.
const MAX_INDEX_DEPTH: usize = 3;
const NAME_ANNOTATIONS: [&str; 2] =
    ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// An OCI image layout: a folder, or a tar of one (`oci-archive`, also gzipped); or the folder of containerd's content
/// store (`…/io.containerd.content.v1.content`), which has the same blobs and no names: images are found in it by the
/// digest in their name, and by those that [`Layout::named`] gives it.
#[derive(Debug, Clone)]
pub struct Layout {
    files: Files,
    /// Names; none in a content store, whose names are in a database of containerd's own.
    index: Option<ImageIndex>,
    /// Names that somebody else has for its documents.
    others: Vec<(String, Sha256)>,
}

#[derive(Debug, Clone)]
enum Files {
    Folder(PathBuf),
    /// The tar, and offset and length of each regular file in it.
    Archive(Arc<File>, HashMap<Vec<u8>, (u64, u64)>),
}

/// Why a layout is not read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file could not be read.
    #[error("{path} not read")]
    File {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The archive is no acceptable tar.
    #[error("archive is not acceptable")]
    Archive(#[from] TarError),
    /// The archive holds a path that leads out of it.
    #[error("archive entry {path:?} is refused")]
    Path {
        /// The path, lossy.
        path: String,
        /// What is wrong.
        source: PathError,
    },
    /// `oci-layout` is not there or of another version.
    #[error("not an OCI image layout of version 1.0.0: found {found:?}")]
    Version {
        /// The version found.
        found: String,
    },
    /// What `docker save` wrote before it wrote layouts: it has no manifest, so nothing that a digest could name.
    #[error(
        "archive is one of docker save without an OCI layout, which does not have the image's manifest"
    )]
    DockerSave,
    /// No image has the name.
    #[error("layout has no image named {name:?}, but {known:?}")]
    NotFound {
        /// The name asked for.
        name: String,
        /// The names that are there.
        known: Vec<String>,
    },
    /// Two images have the name.
    #[error("layout has several images named {name:?}")]
    Ambiguous {
        /// The name asked for.
        name: String,
    },
    /// Indexes are nested too deep.
    #[error("image indexes are nested too deep: expected at most {MAX_INDEX_DEPTH}")]
    Depth,
    /// A document is not an image's.
    #[error("image {name:?} is not acceptable")]
    Image {
        /// The name asked for.
        name: String,
        /// What is wrong.
        source: ImageError,
    },
}

impl LayoutError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::DockerSave => Some(
                "take the image as `skopeo copy docker-daemon:NAME oci-archive:FILE:NAME` or with a docker of version 25 \
                 or later; for the digest that a registry gives it, read it from there"
                    .into(),
            ),
            Self::Image { source, .. } => source.hint(),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutVersion {
    image_layout_version: String,
}

impl Layout {
    /// Opens a layout folder.
    ///
    /// # Errors
    /// [`LayoutError`] when it is none.
    pub fn open_dir(folder: impl Into<PathBuf>) -> Result<Self, LayoutError> {
        Self::open(Files::Folder(folder.into()))
    }

    /// Opens an archive. A gzipped one is unpacked into a temporary file without a name first.
    ///
    /// # Errors
    /// [`LayoutError`] when it is none.
    pub fn open_archive(file: &Path) -> Result<Self, LayoutError> {
        let failed = |source| LayoutError::File { path: file.display().to_string(), source };
        let mut tar = File::open(file).map_err(failed)?;
        let mut magic = [0; 2];
        let gzip = matches!(tar.read_exact_at(&mut magic, 0), Ok(()) if magic == [0x1f, 0x8b]);
        if gzip {
            tar = unpack_gzip(tar).map_err(failed)?;
        }
        let contents = list_archive(&tar)?;
        Self::open(Files::Archive(Arc::new(tar), contents))
    }

    fn open(files: Files) -> Result<Self, LayoutError> {
        let version = match files.small("oci-layout") {
            Err(LayoutError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Self::without_index(files, source);
            }
            version => version?,
        };
        let version = serde_json::from_slice::<LayoutVersion>(&version)
            .map_or_else(|error| error.to_string(), |version| version.image_layout_version);
        if version != "1.0.0" {
            return Err(LayoutError::Version { found: version.chars().take(160).collect() });
        }
        let index = resolve::parse_index(&files.small("index.json")?)
            .map_err(|source| LayoutError::Image { name: "index.json".into(), source })?;
        Ok(Self { files, index: Some(index), others: Vec::new() })
    }

    /// What else has blobs or layers, and is no layout.
    fn without_index(files: Files, source: io::Error) -> Result<Self, LayoutError> {
        match &files {
            Files::Folder(folder) if folder.join("blobs/sha256").is_dir() => {
                Ok(Self { files, index: None, others: Vec::new() })
            }
            _ if files.open("manifest.json").is_ok() => Err(LayoutError::DockerSave),
            _ => Err(LayoutError::File { path: "oci-layout".into(), source }),
        }
    }

    /// The same content store with names for its documents, as containerd keeps them.
    #[must_use]
    pub fn named(self, names: Vec<(String, Sha256)>) -> Self {
        Self { others: names, ..self }
    }

    fn manifests(&self) -> &[Descriptor] {
        self.index.as_ref().map_or(&[], |index| index.manifests().as_slice())
    }

    /// Names of the images, as their annotations give them.
    pub fn names(&self) -> Vec<String> {
        let own = self.manifests().iter().flat_map(names);
        own.chain(self.others.iter().map(|(name, _)| name.as_str())).map(str::to_owned).collect()
    }

    /// Finds an image by name (`busybox`, `localhost/app:1`, `name@sha256:…`) and reads its documents.
    ///
    /// Names are compared in their full form, so that `busybox` is `docker.io/library/busybox:latest`; an annotation
    /// that is the text asked for fits as well. A digest, when given, must be that of the named document.
    ///
    /// A content store has only what this machine needed: an image of which it lacks a blob (a document of another platform, a layer
    /// that was unpacked and discarded) is not found there.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn resolve(&self, name: &str, platform: Platform) -> Result<ResolvedImage, LayoutError> {
        let found = self.resolve_here(name, platform);
        if self.index.is_some() {
            return found;
        }
        let absent = || LayoutError::NotFound { name: name.to_owned(), known: Vec::new() };
        match found {
            Err(LayoutError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(absent())
            }
            Ok(image) => {
                let has =
                    |layer: &LayerDescriptor| self.files.open(&blob_path(&layer.digest)).is_ok();
                if image.layers.iter().all(has) { Ok(image) } else { Err(absent()) }
            }
            other => other,
        }
    }

    fn resolve_here(&self, name: &str, platform: Platform) -> Result<ResolvedImage, LayoutError> {
        let image = |source| LayoutError::Image { name: name.to_owned(), source };
        let (target_digest, size) = match self.index {
            Some(_) => {
                let descriptor = self.find(name)?;
                let digest = digest_of(descriptor).map_err(|error| image(error.into()))?;
                (digest, descriptor.size())
            }
            None => self.find_blob(name)?,
        };
        let (mut digest, mut size) = (target_digest, size);
        for _ in 0..MAX_INDEX_DEPTH {
            let document = self.document(digest, size)?;
            if !resolve::is_index(&document).map_err(image)? {
                let manifest = resolve::parse_manifest(&document).map_err(image)?;
                let described = manifest.config();
                let config_digest = digest_of(described).map_err(|error| image(error.into()))?;
                let config = self.document(config_digest, described.size())?;
                let config = resolve::parse_config(&config, platform).map_err(image)?;
                return ResolvedImage::new(target_digest, digest, &manifest, config).map_err(image);
            }
            let index = resolve::parse_index(&document).map_err(image)?;
            let next = resolve::select_manifest(&index, platform).map_err(image)?;
            digest = digest_of(next).map_err(|error| image(error.into()))?;
            size = next.size();
        }
        Err(LayoutError::Depth)
    }

    fn find(&self, name: &str) -> Result<&Descriptor, LayoutError> {
        let (wanted, digest) = match name.split_once('@') {
            Some((wanted, digest)) => (wanted, Some(digest)),
            None => (name, None),
        };
        let mut found: Vec<&Descriptor> = Vec::new();
        for descriptor in self.manifests() {
            let named = names(descriptor)
                .any(|known| known == name || full_name(known) == full_name(wanted));
            let pinned = digest.is_none_or(|digest| descriptor.digest().as_ref() == digest);
            // The same document under several names is one image.
            if named && pinned && !found.iter().any(|other| other.digest() == descriptor.digest()) {
                found.push(descriptor);
            }
        }
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(LayoutError::NotFound { name: name.to_owned(), known: self.names() }),
            _ => Err(LayoutError::Ambiguous { name: name.to_owned() }),
        }
    }

    /// The digest that [`Layout::named`] has for a name.
    pub fn digest_named(&self, name: &str) -> Option<Sha256> {
        let mut others = self.others.iter();
        others.find_map(|(known, digest)| (full_name(known) == full_name(name)).then_some(*digest))
    }

    /// The document that a name's digest names, or the name by itself, and its length.
    fn find_blob(&self, name: &str) -> Result<(Sha256, u64), LayoutError> {
        let digest = match name.split_once('@') {
            Some((_, text)) => Sha256::from_oci(text).ok(),
            None => self.digest_named(name),
        };
        let found = digest.and_then(|d| Some((d, self.files.open(&blob_path(&d)).ok()?.1)));
        found.ok_or_else(|| LayoutError::NotFound { name: name.to_owned(), known: Vec::new() })
    }

    fn document(&self, digest: Sha256, size_bytes: u64) -> Result<Vec<u8>, LayoutError> {
        let path = blob_path(&digest);
        let failed = |source| LayoutError::File { path: path.clone(), source };
        let (source, _) = self.files.open(&path).map_err(failed)?;
        read_document(source, digest, size_bytes, MAX_DOCUMENT_BYTES).map_err(failed)
    }

    /// Opens a blob (a layer). Its digest and length are checked while it is read, and reading fails at its end when
    /// they differ.
    ///
    /// # Errors
    /// When there is no such blob.
    pub fn open_blob(
        &self,
        digest: Sha256,
        size_bytes: u64,
    ) -> io::Result<VerifiedReader<Box<dyn Read + Send>>> {
        let (source, _) = self.files.open(&blob_path(&digest))?;
        Ok(VerifiedReader::new(source, digest, size_bytes))
    }
}

impl Files {
    fn open(&self, path: &str) -> io::Result<(Box<dyn Read + Send>, u64)> {
        match self {
            Self::Folder(folder) => {
                let file = File::open(folder.join(path))?;
                let metadata = file.metadata()?;
                if !metadata.is_file() {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
                }
                Ok((Box::new(file), metadata.len()))
            }
            Self::Archive(tar, contents) => {
                let found = contents.get(path.as_bytes()).copied();
                let (offset, length) = found.ok_or(io::ErrorKind::NotFound)?;
                let section = Section { file: Arc::clone(tar), offset, end: offset + length };
                Ok((Box::new(section), length))
            }
        }
    }

    fn small(&self, path: &str) -> Result<Vec<u8>, LayoutError> {
        let failed = |source| LayoutError::File { path: path.to_owned(), source };
        let (source, length) = self.open(path).map_err(failed)?;
        if length > MAX_DOCUMENT_BYTES {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "file is too large")));
        }
        let mut bytes = Vec::new();
        source.take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}

/// A part of a file; reading does not move the file's own position.
struct Section {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

fn unpack_gzip(file: File) -> io::Result<File> {
    let mut tar = tempfile::tempfile()?;
    let mut unpacked = flate2::bufread::MultiGzDecoder::new(BufReader::new(file));
    let bytes = io::copy(&mut (&mut unpacked).take(MAX_ARCHIVE_BYTES + 1), &mut tar)?;
    if bytes > MAX_ARCHIVE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "archive is too large"));
    }
    tar.rewind()?;
    Ok(tar)
}

fn list_archive(tar: &File) -> Result<HashMap<Vec<u8>, (u64, u64)>, LayoutError> {
    let mut entries = Entries::new(BufReader::with_capacity(128 << 10, tar));
    let mut contents = HashMap::new();
    while let Some(entry) = entries.next_entry()? {
        if entry.kind != EntryKind::File || entry.sparse.is_some() {
            continue;
        }
        let parts = path::parts(&entry.path).map_err(|source| {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            LayoutError::Path { path, source }
        })?;
        contents.insert(parts.join(&b"/"[..]), (entries.position(), entry.size));
    }
    Ok(contents)
}

fn blob_path(digest: &Sha256) -> String {
    format!("blobs/sha256/{digest}")
}

fn digest_of(descriptor: &Descriptor) -> Result<Sha256, DigestError> {
    Sha256::from_oci(descriptor.digest().as_ref())
}

fn names(descriptor: &Descriptor) -> impl Iterator<Item = &str> {
    NAME_ANNOTATIONS.iter().filter_map(|key| {
        descriptor.annotations().as_ref().and_then(|map| map.get(*key)).map(String::as_str)
    })
}

/// The name with registry, path and tag, as Docker and containerd complete it.
fn full_name(name: &str) -> String {
    let (registry, rest) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", name),
    };
    let library = if registry == "docker.io" && !rest.contains('/') { "library/" } else { "" };
    let tag = if rest.contains(':') { "" } else { ":latest" };
    format!("{registry}/{library}{rest}{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_containerd_does() {
        let check = |name: &str, expect: &str| assert_eq!(full_name(name), expect);
        check("busybox", "docker.io/library/busybox:latest");
        check("docker.io/library/busybox:latest", "docker.io/library/busybox:latest");
        check("team/app:2", "docker.io/team/app:2");
        check("localhost/x", "localhost/x:latest");
        check("localhost:5000/x:1", "localhost:5000/x:1");
    }
}
