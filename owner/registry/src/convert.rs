//! Who turns layers into block images.

use std::fs::File;
use std::io::{self, Read};

use ah_oci::LayerDescriptor;
use ah_verity::VerityInfo;

use crate::error::BoxError;

/// A layer as a block image.
#[derive(Debug)]
pub struct ConvertedLayer {
    /// What opens it.
    pub verity: VerityInfo,
    /// The block image, from which the account files are read.
    pub image: File,
}

/// Turns layers into block images; `host/layers`' store behind it shares one cache.
pub trait LayerConverter: Send + Sync {
    /// The block image of a layer whose blob `open` gives. The converter must check the diff id.
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
        Ok(ConvertedLayer { verity: converted.info, image })
    }
}
