//! One OCI layer to one EROFS image with its dm-verity tree; owns the determinism contract and its version number.
//!
//! # The contract
//!
//! The same unpacked layer bytes and the same [`CONVERSION_VERSION`] give the same image bytes, on every machine, in
//! every build, whatever the compression. The owner pins the root hash in the policy, the host makes the image again,
//! and the guest opens it only if both came to the same bytes. Every change of output is a new version; the digests in
//! `tests/pinned.rs` say when there was one.
//!
//! ```text
//! EROFS image            a multiple of 4096 bytes
//! dm-verity superblock   4096 bytes
//! hash tree              top level first; SHA-256, blocks of 4096, salt of 32 zero bytes
//! ```
//!
//! What a layer says about the layers below it is written as overlayfs reads it: a whiteout is a character device 0:0, an
//! opaque directory has the attribute `trusted.overlay.opaque` with value `y` (the overlay is mounted by root in the
//! guest's first user namespace, where `trusted.` and not `user.` is looked at).
#![forbid(unsafe_code)]

mod output;
mod source;
mod translate;
mod watch;

use std::fs::File;
use std::io::{self, Read};

use ah_digest::Sha256;
use ah_erofs::{ImageWriter, WriteError};
use ah_oci::{LayerError, LayerMediaType};
use ah_verity::{BLOCK_BYTES_U64, Superblock, VerityError, VerityInfo};

use output::{Discard, Output, Pump};
use translate::Files;
use watch::Watch;

pub use watch::{MAX_WATCHED_FILE_BYTES, Seen};

/// Number of the byte-for-byte output format. Part of every cache key; never reused.
pub const CONVERSION_VERSION: u32 = 1;
/// Longest unpacked layer, bytes.
pub const MAX_LAYER_BYTES: u64 = 64 << 30;

/// A converted layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Converted {
    /// What opens the image.
    pub info: VerityInfo,
    /// SHA-256 of the unpacked tar: the one that was expected.
    pub diff_id: Sha256,
    /// The output format.
    pub conversion_version: u32,
    /// How long everything is.
    pub sizes: Sizes,
}

/// Lengths of a layer and its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The unpacked tar, bytes.
    pub tar_bytes: u64,
    /// The EROFS image, bytes.
    pub erofs_bytes: u64,
    /// The whole layer block image, bytes.
    pub image_bytes: u64,
    /// Files of all kinds in the image.
    pub inodes: u64,
}

/// Why a layer was not converted. The output file then holds nothing of use.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The layer is refused.
    #[error("layer is not acceptable")]
    Layer(#[source] LayerError<WriteError>),
    /// The layer's tree cannot be an EROFS image.
    #[error("layer cannot be an image")]
    Image(#[source] WriteError),
    /// The unpacked tar is another than the image config names.
    #[error("layer diff id differs: found {found}, expected {expected}")]
    DiffId {
        /// SHA-256 of the unpacked tar.
        found: Sha256,
        /// The diff id in the image config.
        expected: Sha256,
    },
    /// The output could not be written.
    #[error("image not written")]
    Output(#[source] io::Error),
    /// The layer's decoder could not be made.
    #[error("layer not opened")]
    Open(#[source] io::Error),
    /// The hash tree could not be built.
    #[error("hash tree not built")]
    Verity(#[from] VerityError),
}

/// Converts one layer into `out`, which is written from offset 0 and cut to the image's length.
///
/// One pass: `layer` is read once and nothing of it is kept but names, attributes and the tails of small files.
/// `out` must be regarded as garbage unless the result is `Ok`, for only then the diff id was the expected one.
///
/// # Errors
/// [`ConvertError`].
pub fn convert_layer(
    layer: impl Read + Send,
    media_type: LayerMediaType,
    expected_diff_id: &Sha256,
    out: &File,
) -> Result<Converted, ConvertError> {
    let (converted, _) = run(layer, media_type, expected_diff_id, out, Watch(&[]))?;
    out.set_len(converted.sizes.image_bytes).map_err(ConvertError::Output)?;
    Ok(converted)
}

/// As [`convert_layer`], without keeping the image: what an owner needs to name a layer in a policy.
///
/// # Errors
/// [`ConvertError`].
pub fn root_hash(
    layer: impl Read + Send,
    media_type: LayerMediaType,
    expected_diff_id: &Sha256,
) -> Result<Converted, ConvertError> {
    Ok(run(layer, media_type, expected_diff_id, &Discard, Watch(&[]))?.0)
}

/// As [`root_hash`], with what the layer has under some `paths` (relative, no `.` or `..`), in their order.
///
/// # Errors
/// [`ConvertError`].
pub fn root_hash_and_files(
    layer: impl Read + Send,
    media_type: LayerMediaType,
    expected_diff_id: &Sha256,
    paths: &[&str],
) -> Result<(Converted, Vec<Seen>), ConvertError> {
    run(layer, media_type, expected_diff_id, &Discard, Watch(paths))
}

fn run(
    layer: impl Read + Send,
    media_type: LayerMediaType,
    expected_diff_id: &Sha256,
    out: &dyn Output,
    watch: Watch<'_>,
) -> Result<(Converted, Vec<Seen>), ConvertError> {
    let tar = media_type.decompress(layer).map_err(ConvertError::Open)?;
    std::thread::scope(|scope| {
        let (source, hashed) = source::start(scope, tar);
        let (pump, written) = Pump::start(scope, out);
        let made = image(source, pump, watch);
        // A failing writer ends the pump's channel; its own reason is the one to tell.
        let written = written.finish().map_err(ConvertError::Output)?;
        let (first, summary, seen) = made?;
        let (found, tar_bytes) = hashed.finish();
        let expected = *expected_diff_id;
        if found != expected {
            return Err(ConvertError::DiffId { found, expected });
        }
        let tree = written.finish_with_first(&first)?;
        let info = tree.info();
        let erofs_bytes = summary.blocks * BLOCK_BYTES_U64;
        seal(out, &first, &tree, erofs_bytes).map_err(ConvertError::Output)?;
        let image_bytes = info.image_bytes();
        let sizes = Sizes { tar_bytes, erofs_bytes, image_bytes, inodes: summary.inodes };
        let conversion_version = CONVERSION_VERSION;
        Ok((Converted { info, diff_id: found, conversion_version, sizes }, seen))
    })
}

type Block = ah_verity::Block;

/// Reads the tar and writes everything but block 0, which is returned with what was watched.
fn image(
    source: impl io::BufRead,
    pump: Pump,
    watch: Watch<'_>,
) -> Result<(Block, ah_erofs::Summary, Vec<Seen>), ConvertError> {
    let mut files = Files { writer: ImageWriter::new(pump), watch, taking: None };
    let tree = ah_oci::read_layer(source, &mut files).map_err(ConvertError::Layer)?;
    let seen = files.watch.seen(&tree);
    let tree = translate::tree(tree);
    let (pump, summary) = files.writer.finish(&tree).map_err(ConvertError::Image)?;
    Ok((pump.into_first(), summary, seen))
}

/// Writes block 0, the dm-verity superblock and the hash tree.
fn seal(
    out: &dyn Output,
    first: &Block,
    tree: &ah_verity::Tree,
    erofs_bytes: u64,
) -> io::Result<()> {
    out.write_at(first, 0)?;
    let superblock = Superblock::of(&tree.info()).encode();
    let mut offset = erofs_bytes;
    for part in std::iter::once(&superblock[..]).chain(tree.levels()) {
        out.write_at(part, offset)?;
        offset += part.len() as u64;
    }
    Ok(())
}
