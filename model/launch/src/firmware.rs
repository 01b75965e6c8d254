//! What OVMF firmware says about itself at its end: the GUIDed table (OVMF `ResetVectorVtf0.asm`) and, through it, the SEV
//! metadata (`OvmfSevMetadata.asm`).

use crate::PAGE_BYTES;
use crate::hash_table::guid;

/// The table ends this many bytes before the end of the firmware.
const FOOTER_FROM_END: usize = 32;
/// u16 length and GUID, behind the data of each entry.
const ENTRY_TAIL_BYTES: usize = 18;

const FOOTER: [u8; 16] = guid(0x96b582de, 0x1fb2, 0x45f7, 0xbaea_a366c55a082d);
const HASH_TABLE: [u8; 16] = guid(0x7255371f, 0x3a3b, 0x4b04, 0x927b_1da6efa8d454);
const RESET_BLOCK: [u8; 16] = guid(0x00f771de, 0x1a7e, 0x4fcb, 0x890e_68c77e2fb44e);
const SEV_METADATA: [u8; 16] = guid(0xdc886566, 0x984a, 0x4798, 0xa75e_5585a7bf67cc);

const METADATA_MAGIC: [u8; 4] = *b"ASEV";
const MAX_SECTIONS: u32 = 64;
/// Largest section, bytes; OVMF's are below 1 MiB.
const MAX_SECTION_BYTES: u32 = 64 * 1024 * 1024;

/// What the VMM has to do with a range of guest memory before launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// Zeroed memory for the firmware's first code.
    SecMem,
    /// The secrets page.
    Secrets,
    /// The CPUID page.
    Cpuid,
    /// Calling area of a service module.
    SvsmCaa,
    /// The page of the SEV hash table.
    KernelHashes,
}

/// One section of the SEV metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// What it is.
    pub kind: SectionKind,
    /// First byte, a guest physical address; a multiple of 4096.
    pub gpa: u64,
    /// Length, a multiple of 4096.
    pub size_bytes: u64,
}

/// Why firmware is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// An entry of the table at the firmware's end does not fit into it.
    #[error("firmware table is broken {from_end} bytes before the end")]
    Table {
        /// Where.
        from_end: usize,
    },
    /// The SEV metadata is not where the table says, or is not of version 1.
    #[error("firmware sev metadata is broken: {what}")]
    Metadata {
        /// What was expected.
        what: &'static str,
    },
    /// A section type that is not known.
    #[error("firmware sev metadata has a section of type {found:#x}")]
    SectionKind {
        /// Type found.
        found: u32,
    },
    /// A section that is not whole pages.
    #[error("firmware section at {gpa:#x} has {size:#x} bytes, expected whole pages up to 64 MiB")]
    SectionRange {
        /// Address found.
        gpa: u32,
        /// Length found, bytes.
        size: u32,
    },
}

/// What a firmware image says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Firmware {
    /// Sections of the SEV metadata in file order; empty for firmware without any, such as SeaBIOS.
    pub sections: Vec<Section>,
    /// Guest physical address of the SEV hash table.
    pub hash_table_gpa: Option<u64>,
    /// Where processors other than the first start.
    pub ap_reset_vector: Option<u32>,
}

impl Firmware {
    /// Reads the table and the metadata at the end of `image`.
    ///
    /// # Errors
    /// [`FirmwareError`] if there is a table that cannot be read; an image without a table is fine and says nothing.
    pub fn parse(image: &[u8]) -> Result<Self, FirmwareError> {
        let mut firmware = Self::default();
        let Some(table) = footer_table(image)? else {
            return Ok(firmware);
        };
        let mut rest = table;
        while !rest.is_empty() {
            let Entry { before, guid, data } = last_entry(rest, FOOTER_FROM_END)?;
            firmware.entry(image, guid, data)?;
            rest = before;
        }
        Ok(firmware)
    }

    fn entry(&mut self, image: &[u8], guid: [u8; 16], data: &[u8]) -> Result<(), FirmwareError> {
        let word = || {
            let bytes = data.first_chunk::<4>();
            bytes
                .map(|bytes| u32::from_le_bytes(*bytes))
                .ok_or(FirmwareError::Metadata { what: "table entry of at least 4 bytes" })
        };
        match guid {
            HASH_TABLE => self.hash_table_gpa = Some(word()?.into()),
            RESET_BLOCK => self.ap_reset_vector = Some(word()?),
            SEV_METADATA => self.sections = read_metadata(image, word()?)?,
            _ => {}
        }
        Ok(())
    }
}

/// The entries of the table, without the footer; None without a footer.
fn footer_table(image: &[u8]) -> Result<Option<&[u8]>, FirmwareError> {
    let Some((head, _)) = image.len().checked_sub(FOOTER_FROM_END).map(|at| image.split_at(at))
    else {
        return Ok(None);
    };
    if !head.ends_with(&FOOTER) {
        return Ok(None);
    }
    let broken = FirmwareError::Table { from_end: FOOTER_FROM_END };
    let (_, [length_low, length_high, ..]) =
        head.split_last_chunk::<ENTRY_TAIL_BYTES>().ok_or(broken.clone())?;
    let length = usize::from(u16::from_le_bytes([*length_low, *length_high]));
    let start = head.len().checked_sub(length).ok_or(broken.clone())?;
    let end = head.len().checked_sub(ENTRY_TAIL_BYTES).ok_or(broken.clone())?;
    head.get(start..end).map(Some).ok_or(broken)
}

/// One entry of the table, with what stands before it.
struct Entry<'a> {
    before: &'a [u8],
    guid: [u8; 16],
    data: &'a [u8],
}

/// Entries are read from the end: data, u16 length of data and tail, GUID.
fn last_entry(table: &[u8], from_end: usize) -> Result<Entry<'_>, FirmwareError> {
    let broken = || FirmwareError::Table { from_end: from_end.saturating_add(table.len()) };
    let (rest, guid) = table.split_last_chunk::<16>().ok_or_else(broken)?;
    let (data, length) = rest.split_last_chunk::<2>().ok_or_else(broken)?;
    let length = usize::from(u16::from_le_bytes(*length));
    let data_bytes = length.checked_sub(ENTRY_TAIL_BYTES).ok_or_else(broken)?;
    let start = data.len().checked_sub(data_bytes).ok_or_else(broken)?;
    let (before, data) = data.split_at(start);
    Ok(Entry { before, guid: *guid, data })
}

fn read_metadata(image: &[u8], from_end: u32) -> Result<Vec<Section>, FirmwareError> {
    let broken = |what| FirmwareError::Metadata { what };
    let outside = || broken("offset within the firmware");
    let from_end = usize::try_from(from_end).map_err(|_| outside())?;
    let start = image.len().checked_sub(from_end).ok_or_else(outside)?;
    let (magic, rest) =
        image.get(start..).and_then(<[u8]>::split_first_chunk::<4>).ok_or_else(outside)?;
    if *magic != METADATA_MAGIC {
        return Err(broken("signature ASEV"));
    }
    let mut words = rest.chunks_exact(4).map(|word| match word {
        [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => 0,
    });
    let mut word = || words.next().ok_or_else(outside);
    let length = word()?;
    if word()? != 1 {
        return Err(broken("version 1"));
    }
    let count = word()?;
    if count > MAX_SECTIONS || count.checked_mul(12).and_then(|n| n.checked_add(16)) != Some(length)
    {
        return Err(broken("a length that fits the number of sections, at most 64"));
    }
    (0..count).map(|_| section(word()?, word()?, word()?)).collect()
}

fn section(gpa: u32, size: u32, kind: u32) -> Result<Section, FirmwareError> {
    let kind = match kind {
        1 => SectionKind::SecMem,
        2 => SectionKind::Secrets,
        3 => SectionKind::Cpuid,
        4 => SectionKind::SvsmCaa,
        0x10 => SectionKind::KernelHashes,
        found => return Err(FirmwareError::SectionKind { found }),
    };
    let page = PAGE_BYTES as u64;
    let (start, length) = (u64::from(gpa), u64::from(size));
    if !start.is_multiple_of(page)
        || length == 0
        || !length.is_multiple_of(page)
        || size > MAX_SECTION_BYTES
    {
        return Err(FirmwareError::SectionRange { gpa, size });
    }
    Ok(Section { kind, gpa: start, size_bytes: length })
}
