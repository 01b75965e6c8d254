use ah_convert::{CONVERSION_VERSION, Converted};
use ah_digest::Sha256;
use ah_verity::VerityInfo;
use serde::{Deserialize, Serialize};

use crate::check::CheckError;

/// What stands beside an image.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    conversion_version: u32,
    diff_id: Sha256,
    root_hash: Sha256,
    data_blocks: u64,
    salt: Sha256,
    image_bytes: u64,
    tar_bytes: u64,
}

impl Record {
    pub(crate) fn of(converted: &Converted) -> Self {
        Self {
            conversion_version: converted.conversion_version,
            diff_id: converted.diff_id,
            root_hash: converted.info.root_hash,
            data_blocks: converted.info.data_blocks,
            salt: Sha256::new(converted.info.salt),
            image_bytes: converted.sizes.image_bytes,
            tar_bytes: converted.sizes.tar_bytes,
        }
    }

    /// Reads a record that must be about `diff_id`.
    pub(crate) fn parse(text: &[u8], diff_id: &Sha256) -> Result<VerityInfo, CheckError> {
        let record: Self = serde_json::from_slice(text).map_err(CheckError::Record)?;
        let salt = *record.salt.as_bytes();
        let info =
            VerityInfo { root_hash: record.root_hash, data_blocks: record.data_blocks, salt };
        let info = info.checked()?;
        let consistent = record.conversion_version == CONVERSION_VERSION
            && record.diff_id == *diff_id
            && record.image_bytes == info.image_bytes();
        if consistent { Ok(info) } else { Err(CheckError::Inconsistent) }
    }
}
