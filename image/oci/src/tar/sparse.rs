use std::io::BufRead;

use super::entry::Body;
use super::header::Header;
use super::{RECORD_BYTES, TarError, pax};

/// Most data regions of one sparse file.
pub(crate) const MAX_REGIONS: usize = 1 << 16;

/// Where the data of a sparse file belongs; everything else of it is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseMap {
    /// Length of the file, bytes.
    pub size: u64,
    /// Offset and length of each region, ascending and apart, bytes.
    pub regions: Vec<(u64, u64)>,
}

impl SparseMap {
    /// Checks regions: ascending, inside the file, and together exactly the `data_bytes` that follow. GNU tar begins
    /// each region's data on a block boundary, other readers directly behind the one before; only whole blocks in front
    /// of the last region have one reading.
    fn checked(self, data_bytes: u64) -> Result<Self, TarError> {
        let (mut end, mut sum) = (0u64, 0u64);
        for (offset, length) in &self.regions {
            if *offset < end {
                return Err(TarError::Sparse { what: "regions overlap" });
            }
            end =
                offset.checked_add(*length).ok_or(TarError::Sparse { what: "region too long" })?;
            if *length > 0 && sum % RECORD_BYTES as u64 != 0 {
                return Err(TarError::Sparse {
                    what: "a region before the last has a part of a block",
                });
            }
            sum = sum.saturating_add(*length);
        }
        if end > self.size {
            return Err(TarError::Sparse { what: "a region ends behind the file" });
        }
        if sum != data_bytes {
            return Err(TarError::Sparse { what: "regions and data differ in length" });
        }
        Ok(self)
    }
}

/// The old GNU form: four regions in the header, 21 in each extension block.
pub(crate) fn read_gnu<R: BufRead>(
    header: &Header<'_>,
    body: &mut Body<R>,
) -> Result<SparseMap, TarError> {
    let size = header.unsigned("sparse real size", 483, 12)?;
    let mut regions = Vec::new();
    let mut ended = take_regions(header, 386, 4, &mut regions)?;
    let mut more = header.0[482];
    while more != 0 {
        let mut block = [0; RECORD_BYTES];
        body.read_outside(&mut block)?;
        let extension = Header(&block);
        ended |= take_regions(&extension, 0, 21, &mut regions)?;
        more = block[504];
        if regions.len() > MAX_REGIONS || (ended && more != 0) {
            return Err(TarError::Sparse { what: "too many regions" });
        }
    }
    SparseMap { size, regions }.checked(body.left())
}

/// Takes regions up to the first empty slot; true when there was one.
fn take_regions(
    header: &Header<'_>,
    start: usize,
    count: usize,
    regions: &mut Vec<(u64, u64)>,
) -> Result<bool, TarError> {
    for slot in 0..count {
        let at = start + slot * 24;
        if header.0[at..at + 24].iter().all(|byte| *byte == 0) {
            return Ok(true);
        }
        let offset = header.unsigned("sparse offset", at, 12)?;
        let length = header.unsigned("sparse length", at + 12, 12)?;
        regions.push((offset, length));
    }
    Ok(false)
}

/// The pax form 1.0: decimal numbers, one a line, in whole blocks in front of the data: their count, then offset and
/// length of each region.
pub(crate) fn read_pax<R: BufRead>(size: u64, body: &mut Body<R>) -> Result<SparseMap, TarError> {
    let mut lines = Lines { body, block: [0; RECORD_BYTES], at: RECORD_BYTES };
    let count = lines.number()?;
    if count > MAX_REGIONS as u64 {
        return Err(TarError::TooLarge {
            what: "number of sparse regions",
            found: count,
            expected: MAX_REGIONS as u64,
        });
    }
    let regions = (0..count)
        .map(|_| Ok((lines.number()?, lines.number()?)))
        .collect::<Result<_, TarError>>()?;
    let left = body.left();
    SparseMap { size, regions }.checked(left)
}

struct Lines<'a, R> {
    body: &'a mut Body<R>,
    block: [u8; RECORD_BYTES],
    at: usize,
}

impl<R: BufRead> Lines<'_, R> {
    fn number(&mut self) -> Result<u64, TarError> {
        let mut digits = Vec::new();
        loop {
            if self.at == RECORD_BYTES {
                self.body.read_inside(&mut self.block)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            if byte == b'\n' {
                break;
            }
            if digits.len() == 20 {
                return Err(TarError::Sparse { what: "a number is too long" });
            }
            digits.push(byte);
        }
        pax::decimal(&digits).ok_or(TarError::Sparse { what: "not a number" })
    }
}
