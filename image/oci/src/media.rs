use std::fmt;
use std::io::{self, BufReader, Read};
use std::str::FromStr;

/// Largest zstd window accepted, as a power of two (128 MiB): the decoder's memory.
pub const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// How a layer's tar is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LayerMediaType {
    /// Not compressed.
    Tar,
    /// Gzip (RFC 1952), one or several members.
    TarGzip,
    /// Zstandard (RFC 8878), one or several frames.
    TarZstd,
}

/// A layer media type that this project does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "layer media type is not supported: found {found:?}, expected a tar, tar+gzip or tar+zstd layer of OCI or Docker"
)]
pub struct UnsupportedMediaType {
    /// The media type, at most 160 characters of it.
    pub found: String,
}

/// OCI image specification, layer.md; Docker image manifest version 2, schema 2.
const NAMES: [(&str, LayerMediaType); 6] = [
    ("application/vnd.oci.image.layer.v1.tar", LayerMediaType::Tar),
    ("application/vnd.oci.image.layer.v1.tar+gzip", LayerMediaType::TarGzip),
    ("application/vnd.oci.image.layer.v1.tar+zstd", LayerMediaType::TarZstd),
    ("application/vnd.docker.image.rootfs.diff.tar", LayerMediaType::Tar),
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", LayerMediaType::TarGzip),
    ("application/vnd.docker.image.rootfs.diff.tar.zstd", LayerMediaType::TarZstd),
];

impl LayerMediaType {
    /// The OCI name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, media_type)| *media_type == self).map_or("", |(name, _)| name)
    }

    /// A reader of the tar in `layer`.
    ///
    /// # Errors
    /// When the decoder cannot be made.
    pub fn decompress<'a>(
        self,
        layer: impl Read + Send + 'a,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        const BUFFER_BYTES: usize = 128 << 10;
        Ok(match self {
            Self::Tar => Box::new(layer),
            Self::TarGzip => {
                let buffered = BufReader::with_capacity(BUFFER_BYTES, layer);
                Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
            }
            Self::TarZstd => {
                let mut decoder = zstd::Decoder::new(layer)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }
}

impl FromStr for LayerMediaType {
    type Err = UnsupportedMediaType;

    fn from_str(text: &str) -> Result<Self, UnsupportedMediaType> {
        NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, media_type)| *media_type)
            .ok_or_else(|| UnsupportedMediaType { found: text.chars().take(160).collect() })
    }
}

impl fmt::Display for LayerMediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<LayerMediaType>) {
        assert_eq!(text.parse::<LayerMediaType>().ok(), expect, "{text}");
    }

    #[test]
    fn only_the_named_types_are_read() {
        check("application/vnd.oci.image.layer.v1.tar+gzip", Some(LayerMediaType::TarGzip));
        check("application/vnd.docker.image.rootfs.diff.tar.zstd", Some(LayerMediaType::TarZstd));
        check("application/vnd.oci.image.layer.v1.tar+gzip ", None);
        check("application/vnd.oci.image.layer.v1.tar+encrypted", None);
        check("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", None);
        check("application/vnd.oci.image.layer.nondistributable.v1.tar", None);
        check("", None);
        assert_eq!(LayerMediaType::TarZstd.to_string().parse(), Ok(LayerMediaType::TarZstd));
    }
}
