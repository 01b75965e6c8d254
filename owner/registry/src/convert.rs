//! Who turns layers into block images, or into what a policy needs of them.

use std::fs::File;
use std::io::{self, Read};

use ah_convert::{ConvertError, Converted, Seen};
use ah_digest::Sha256;
use ah_oci::{LayerDescriptor, LayerMediaType};
use ah_verity::VerityInfo;

use crate::error::BoxError;

/// What is kept of a layer that streams by: the way to the account files.
const KEPT_PATHS: [&str; 3] = ["etc", "etc/passwd", "etc/group"];

/// A converted layer.
#[derive(Debug)]
pub struct ConvertedLayer {
    /// What opens it.
    pub verity: VerityInfo,
    /// Where the account files are read from.
    pub files: LayerFiles,
}

/// The files of a layer.
#[derive(Debug)]
pub enum LayerFiles {
    /// All of them: the block image.
    Image(File),
    /// Those that decide who a process runs as.
    Kept(KeptFiles),
}

/// What a layer says of `/etc`, `/etc/passwd` and `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFiles(pub(crate) [Seen; 3]);

impl KeptFiles {
    /// Reads a layer once, for its root hash and these files.
    ///
    /// # Errors
    /// [`ConvertError`].
    pub fn while_converting(
        layer: impl Read + Send,
        media_type: LayerMediaType,
        diff_id: &Sha256,
    ) -> Result<(Converted, Self), ConvertError> {
        let (converted, seen) =
            ah_convert::root_hash_and_files(layer, media_type, diff_id, &KEPT_PATHS)?;
        let seen = seen.try_into().unwrap_or([Seen::NotTaken, Seen::NotTaken, Seen::NotTaken]);
        Ok((converted, Self(seen)))
    }

    /// What the layer has under a path; `None` when that was not kept.
    pub(crate) fn get(&self, path: &str) -> Option<&Seen> {
        KEPT_PATHS.iter().zip(&self.0).find(|(kept, _)| **kept == path).map(|(_, seen)| seen)
    }
}

/// Turns layers into block images or root hashes; `host/layers`' store behind it shares one cache with runs.
pub trait LayerConverter: Send + Sync {
    /// Converts a layer whose blob `open` gives. The converter must check the diff id.
    ///
    /// # Errors
    /// When the layer cannot be opened, read or converted.
    fn convert(
        &self,
        layer: &LayerDescriptor,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>,
    ) -> Result<ConvertedLayer, BoxError>;
}

/// Converts into temporary files without names: nothing is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct TemporaryFiles;

impl LayerConverter for TemporaryFiles {
    fn convert(
        &self,
        layer: &LayerDescriptor,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>,
    ) -> Result<ConvertedLayer, BoxError> {
        let image = tempfile::tempfile()?;
        let converted =
            ah_convert::convert_layer(open()?, layer.media_type, &layer.diff_id, &image)?;
        Ok(ConvertedLayer { verity: converted.info, files: LayerFiles::Image(image) })
    }
}
