//! `anchorhold guest measure --sign`: reference values that others can believe without the guest image.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ah_guest_image::GuestImage;
use ah_reference::{ReferenceFile, ReferenceGuest, ReferenceSigner};
use anyhow::{Context, Result};

use crate::cli::Tee;
use crate::launches::launches;
use crate::{guest, keys};

const SECONDS_A_DAY: u64 = 86_400;

/// Prints signed reference values with the measurements of `image`, one a firmware.
pub(crate) fn sign(
    image: &GuestImage,
    vcpus: u32,
    tee: Tee,
    key: &Path,
    valid_days: Option<u32>,
) -> Result<()> {
    let signer = ReferenceSigner::from_pem(&keys::read_text(key)?)
        .with_context(|| format!("{}", key.display()))?;
    let tee = guest::tee_of(tee)?;
    let issued = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let days = valid_days.map(|days| u64::from(days).saturating_mul(SECONDS_A_DAY));
    let file = ReferenceFile {
        issued_unix_s: issued,
        expires_unix_s: days.map(|seconds| issued.saturating_add(seconds)),
        guests: launches(image, &[vcpus].into(), tee)?
            .into_iter()
            .map(|launch| ReferenceGuest { tee, measurement: launch.measurement, vcpus })
            .collect(),
    };
    crate::ui::say!("{}", signer.sign(&file)?);
    Ok(())
}
