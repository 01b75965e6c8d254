use std::io::{self, Write};

/// Modification time of everything made here: 2023-11-14 22:13:20 UTC.
pub const MTIME: i64 = 1_700_000_000;

const RECORD: usize = 512;

/// One tar entry to write. Numbers and names that do not fit the header go into pax records.
#[derive(Debug, Clone)]
pub struct Entry {
    path: Vec<u8>,
    kind: u8,
    mode: u32,
    uid: u64,
    gid: u64,
    mtime: i64,
    link: Vec<u8>,
    device: (u32, u32),
    data: Vec<u8>,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    fn new(path: impl AsRef<[u8]>, kind: u8, mode: u32) -> Self {
        Self {
            path: path.as_ref().to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: MTIME,
            link: Vec::new(),
            device: (0, 0),
            data: Vec::new(),
            pax: Vec::new(),
        }
    }

    /// A regular file, mode 0644.
    pub fn file(path: impl AsRef<[u8]>, data: impl Into<Vec<u8>>) -> Self {
        Self { data: data.into(), ..Self::new(path, b'0', 0o644) }
    }

    /// A directory, mode 0755.
    pub fn dir(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, b'5', 0o755)
    }

    /// A symbolic link, mode 0777.
    pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(path, b'2', 0o777) }
    }

    /// A hard link to an earlier entry.
    pub fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(path, b'1', 0o644) }
    }

    /// A character device, mode 0600.
    pub fn char_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(path, b'3', 0o600) }
    }

    /// A block device, mode 0600.
    pub fn block_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(path, b'4', 0o600) }
    }

    /// A named pipe, mode 0644.
    pub fn fifo(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, b'6', 0o644)
    }

    /// An entry of any type byte, for what must be refused.
    pub fn of_type(path: impl AsRef<[u8]>, kind: u8) -> Self {
        Self::new(path, kind, 0o644)
    }

    /// Sets the permission bits.
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Sets user and group id.
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        Self { uid, gid, ..self }
    }

    /// Sets the modification time, seconds.
    pub fn mtime(self, mtime: i64) -> Self {
        Self { mtime, ..self }
    }

    /// Adds an extended attribute.
    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }

    /// Adds any pax record.
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.as_bytes().to_vec(), value.as_ref().to_vec()));
        self
    }
}

/// Writes a tar.
#[derive(Debug)]
pub struct TarBuilder<W> {
    out: W,
}

impl TarBuilder<Vec<u8>> {
    /// The tar of `entries`, with its end mark.
    pub fn bytes(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
        let mut builder = TarBuilder::new(Vec::new());
        for entry in entries {
            // A vector takes every write.
            let _ = builder.push(&entry);
        }
        builder.finish().unwrap_or_default()
    }
}

impl<W: Write> TarBuilder<W> {
    /// A tar that goes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// What it writes to, without an end mark.
    pub fn into_inner(self) -> W {
        self.out
    }

    /// Writes one entry.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn push(&mut self, entry: &Entry) -> io::Result<()> {
        self.push_data(entry, entry.data.len() as u64, &mut &*entry.data)
    }

    /// Writes one entry with data from elsewhere.
    ///
    /// # Errors
    /// When `out` or `data` fails.
    pub fn push_data(
        &mut self,
        entry: &Entry,
        size: u64,
        data: &mut dyn io::Read,
    ) -> io::Result<()> {
        let mut pax = entry.pax.clone();
        let mut header = [0; RECORD];
        field(&mut header, 0, 100, &entry.path, "path", &mut pax);
        field(&mut header, 157, 100, &entry.link, "linkpath", &mut pax);
        number(&mut header, 108, 8, entry.uid, "uid", &mut pax);
        number(&mut header, 116, 8, entry.gid, "gid", &mut pax);
        number(&mut header, 124, 12, size, "size", &mut pax);
        match u64::try_from(entry.mtime) {
            Ok(mtime) => number(&mut header, 136, 12, mtime, "mtime", &mut pax),
            Err(_) => {
                octal(&mut header, 136, 12, 0);
                pax.push((b"mtime".to_vec(), entry.mtime.to_string().into_bytes()));
            }
        }
        octal(&mut header, 100, 8, entry.mode.into());
        octal(&mut header, 329, 8, entry.device.0.into());
        octal(&mut header, 337, 8, entry.device.1.into());
        if !pax.is_empty() {
            let records: Vec<u8> =
                pax.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
            self.push_extended(b'x', b"pax", &records)?;
        }
        header[156] = entry.kind;
        self.push_header(header)?;
        let written = io::copy(&mut io::Read::take(data, size), &mut self.out)?;
        if written != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pad(size)
    }

    /// Writes an extended header (`x`, `g`, `L`, `K`) with its data.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn push_extended(&mut self, kind: u8, name: &[u8], data: &[u8]) -> io::Result<()> {
        let mut header = [0; RECORD];
        header[..name.len()].copy_from_slice(name);
        octal(&mut header, 100, 8, 0o644);
        octal(&mut header, 124, 12, data.len() as u64);
        header[156] = kind;
        self.push_header(header)?;
        self.out.write_all(data)?;
        self.pad(data.len() as u64)
    }

    /// Writes a header block, after setting magic (POSIX where there is none) and checksum.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn push_header(&mut self, mut header: [u8; RECORD]) -> io::Result<()> {
        if header[257..265] == [0; 8] {
            header[257..265].copy_from_slice(b"ustar\x0000");
        }
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut header, 148, 7, sum);
        self.out.write_all(&header)
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn push_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Writes the end mark of two zero blocks.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * RECORD])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = (size % RECORD as u64) as usize;
        self.out.write_all(&[0; RECORD][..(RECORD - rest) % RECORD])
    }
}

/// `length key=value\n`, the length counting itself.
pub(crate) fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let digits = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap_or(1);
    [format!("{} ", rest + digits).as_bytes(), key, b"=", value, b"\n"].concat()
}

fn field(
    header: &mut [u8; RECORD],
    start: usize,
    length: usize,
    value: &[u8],
    key: &str,
    pax: &mut Vec<(Vec<u8>, Vec<u8>)>,
) {
    let fits = value.len() <= length;
    if !fits && pax.iter().all(|(known, _)| known != key.as_bytes()) {
        pax.push((key.as_bytes().to_vec(), value.to_vec()));
    }
    let value = &value[..value.len().min(length)];
    header[start..start + value.len()].copy_from_slice(value);
}

fn number(
    header: &mut [u8; RECORD],
    start: usize,
    length: usize,
    value: u64,
    key: &str,
    pax: &mut Vec<(Vec<u8>, Vec<u8>)>,
) {
    if value < 1 << (3 * (length - 1)) {
        octal(header, start, length, value);
    } else {
        pax.push((key.as_bytes().to_vec(), value.to_string().into_bytes()));
        octal(header, start, length, 0);
    }
}

/// Zero-filled octal digits and a NUL.
pub(crate) fn octal(header: &mut [u8; RECORD], start: usize, length: usize, value: u64) {
    let digits = format!("{value:0width$o}", width = length - 1);
    header[start..start + length - 1].copy_from_slice(digits.as_bytes());
    header[start + length - 1] = 0;
}
