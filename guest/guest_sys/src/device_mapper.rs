//! The device-mapper requests that layers and the scratch disk need, made directly on `/dev/mapper/control`.
//!
//! Layout of every request (linux/dm-ioctl.h, interface 4.x), little-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 12 | version: 4, 0, 0 |
//! | 12 | 4 | data_size: the whole buffer |
//! | 16 | 4 | data_start: 312 |
//! | 20 | 4 | target_count |
//! | 24 | 4 | open_count |
//! | 28 | 4 | flags |
//! | 32 | 8 | event_nr, padding |
//! | 40 | 8 | dev |
//! | 48 | 128 | name, NUL-padded |
//! | 176 | 129 | uuid, NUL-padded |
//! | 305 | 7 | padding |
//!
//! At data_start a target: sector_start u64, length u64, status i32, next u32, type 16 bytes, then the parameters with a NUL.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::SysError;

const CONTROL: &str = "/dev/mapper/control";
const HEADER_BYTES: usize = 312;
const TARGET_BYTES: usize = 40;
const NAME: std::ops::Range<usize> = 48..176;
const UUID: std::ops::Range<usize> = 176..305;
const FLAGS: std::ops::Range<usize> = 28..32;
const DEV: std::ops::Range<usize> = 40..48;
/// Room for one target's status line; a verity table line is under 400 bytes.
const ANSWER_BYTES: usize = 4096;

const DM_READONLY: u32 = 1;
const DM_BUFFER_FULL: u32 = 1 << 8;
/// The kernel wipes its copies of the request.
const DM_SECURE_DATA: u32 = 1 << 15;

/// `_IOWR(0xfd, nr, struct dm_ioctl)` without the number.
const DM_IOCTL: libc::c_ulong = 0xc138_fd00;
const DEV_CREATE: libc::c_ulong = 3;
const DEV_REMOVE: libc::c_ulong = 4;
const DEV_SUSPEND: libc::c_ulong = 6;
const TABLE_LOAD: libc::c_ulong = 9;
const TABLE_STATUS: libc::c_ulong = 12;

/// One target covering a whole device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    /// Target type, such as `verity`; at most 15 bytes.
    pub kind: &'a str,
    /// Size of the mapped device, in sectors of 512 bytes.
    pub sectors: u64,
    /// Parameters as the target reads them.
    pub parameters: &'a str,
}

/// What may be done with a device, and whether its table holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    ReadOnly,
    /// Reading and writing.
    Writable,
    /// Reading and writing; the parameters hold a key: every copy of them that is made for the request is wiped.
    WritableSecret,
}

impl Access {
    fn flags(self) -> u32 {
        match self {
            Self::ReadOnly => DM_READONLY,
            Self::Writable => 0,
            Self::WritableSecret => DM_SECURE_DATA,
        }
    }
}

/// A mapped device that exists; it stays until [`MappedDevice::remove`].
#[derive(Debug)]
pub struct MappedDevice {
    name: String,
    node: PathBuf,
}

impl MappedDevice {
    /// Creates the device `name` with one target and makes it usable.
    ///
    /// On a failure nothing stays behind.
    ///
    /// # Errors
    /// A name that does not fit, or the kernel's refusal, with the step that it refused.
    pub fn create(name: &str, target: &Target<'_>, access: Access) -> Result<Self, SysError> {
        let control = Control::open()?;
        let mut create = Request::new(name, HEADER_BYTES)?;
        create.put(UUID, name)?;
        control.send(DEV_CREATE, "create mapped device", name, &mut create)?;
        control.activate(name, target, access).inspect_err(|_| {
            let _ = control.remove(name);
        })
    }

    /// The block device node.
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// The name given at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The target's status word. For dm-verity: `V` all reads so far were good, `C` corruption was found.
    ///
    /// # Errors
    /// The device is gone, or the answer does not fit its format.
    pub fn status(&self) -> Result<String, SysError> {
        let mut request = Request::new(&self.name, HEADER_BYTES.saturating_add(ANSWER_BYTES))?;
        Control::open()?.send(TABLE_STATUS, "ask the status of", &self.name, &mut request)?;
        request.status_line().ok_or_else(|| {
            SysError::new("read the status of", &self.name, rustix::io::Errno::PROTO)
        })
    }

    /// Takes the device away; it must be idle.
    ///
    /// # Errors
    /// The device itself, with the kernel's reason, so that the caller can try again.
    pub fn remove(self) -> Result<(), (Self, SysError)> {
        match Control::open().and_then(|control| control.remove(&self.name)) {
            Ok(()) => Ok(()),
            Err(error) => Err((self, error)),
        }
    }
}

struct Control(File);

impl Control {
    fn open() -> Result<Self, SysError> {
        let path = Path::new(CONTROL);
        File::options()
            .read(true)
            .write(true)
            .open(path)
            .map(Self)
            .map_err(|e| SysError::path("open", path, e))
    }

    fn activate(
        &self,
        name: &str,
        target: &Target<'_>,
        access: Access,
    ) -> Result<MappedDevice, SysError> {
        let mut load = Request::with_target(name, target, access)?;
        self.send(TABLE_LOAD, "load the table of", name, &mut load)?;
        // Without the suspend flag, DEV_SUSPEND resumes: the loaded table becomes the live one.
        let mut resume = Request::new(name, HEADER_BYTES)?;
        resume.set_flags(access.flags() & DM_READONLY);
        self.send(DEV_SUSPEND, "activate", name, &mut resume)?;
        let minor = resume.minor();
        let node = PathBuf::from(format!("/dev/dm-{minor}"));
        // devtmpfs makes the node before the table load returns; looking at it makes sure of that.
        crate::block::device_number(&node)?;
        Ok(MappedDevice { name: name.to_owned(), node })
    }

    fn remove(&self, name: &str) -> Result<(), SysError> {
        let mut request = Request::new(name, HEADER_BYTES)?;
        self.send(DEV_REMOVE, "remove mapped device", name, &mut request)
    }

    fn send(
        &self,
        command: libc::c_ulong,
        operation: &'static str,
        name: &str,
        request: &mut Request,
    ) -> Result<(), SysError> {
        // SAFETY: every device-mapper command reads and writes at most `data_size` bytes behind the pointer. `Request` keeps data_size
        // equal to the length of its buffer, which is borrowed mutably for the call; u64 words give the alignment of struct dm_ioctl.
        let result = unsafe {
            libc::ioctl(self.0.as_raw_fd(), DM_IOCTL | command, request.words.as_mut_ptr())
        };
        if result == 0 {
            Ok(())
        } else {
            Err(SysError::new(operation, name, std::io::Error::last_os_error()))
        }
    }
}

/// A request buffer, wiped in the end. Invariant: bytes 12..16 (data_size) equal the buffer's length.
struct Request {
    words: Zeroizing<Vec<u64>>,
}

impl Request {
    fn new(name: &str, size_bytes: usize) -> Result<Self, SysError> {
        let words = size_bytes.div_ceil(8);
        let too_big = || SysError::new("make a request for", name, rustix::io::Errno::TOOBIG);
        let size =
            u32::try_from(words.checked_mul(8).ok_or_else(too_big)?).map_err(|_| too_big())?;
        let mut request = Self { words: Zeroizing::new(vec![0; words]) };
        request.put_u32(0, 4);
        request.put_u32(12, size);
        request.put_u32(16, 312);
        request.put(NAME, name)?;
        Ok(request)
    }

    fn with_target(name: &str, target: &Target<'_>, access: Access) -> Result<Self, SysError> {
        let parameters = HEADER_BYTES.saturating_add(TARGET_BYTES);
        let end = parameters.saturating_add(target.parameters.len());
        let mut request = Self::new(name, end.saturating_add(1))?;
        request.set_flags(access.flags());
        request.put_u32(20, 1);
        request.put_bytes(HEADER_BYTES.saturating_add(8), &target.sectors.to_le_bytes());
        let kind = HEADER_BYTES.saturating_add(24);
        request.put(kind..kind.saturating_add(16), target.kind)?;
        request.put(parameters..end.saturating_add(1), target.parameters)?;
        Ok(request)
    }

    /// Writes `text` and at least one NUL into `range`.
    fn put(&mut self, range: std::ops::Range<usize>, text: &str) -> Result<(), SysError> {
        if text.len() >= range.len() || text.contains('\0') {
            return Err(SysError::new(
                "write into a device-mapper request",
                text,
                rustix::io::Errno::NAMETOOLONG,
            ));
        }
        self.put_bytes(range.start, text.as_bytes());
        Ok(())
    }

    fn set_flags(&mut self, flags: u32) {
        self.put_u32(FLAGS.start, flags);
    }

    fn put_u32(&mut self, offset: usize, value: u32) {
        self.put_bytes(offset, &value.to_le_bytes());
    }

    fn put_bytes(&mut self, offset: usize, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            if let Some(word) = self.words.get_mut(at / 8) {
                let mut parts = word.to_le_bytes();
                if let Some(part) = parts.get_mut(at % 8) {
                    *part = *byte;
                }
                *word = u64::from_le_bytes(parts);
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn u64_at(&self, range: std::ops::Range<usize>) -> u64 {
        self.bytes().get(range).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    /// Minor number out of the kernel's `huge_encode_dev` (linux/kdev_t.h).
    fn minor(&self) -> u64 {
        let dev = self.u64_at(DEV);
        (dev & 0xff) | ((dev >> 12) & 0xfff_ff00)
    }

    fn status_line(&self) -> Option<String> {
        let bytes = self.bytes();
        let flags = u32::from_le_bytes(bytes.get(FLAGS)?.try_into().ok()?);
        let targets = u32::from_le_bytes(bytes.get(20..24)?.try_into().ok()?);
        let start =
            usize::try_from(u32::from_le_bytes(bytes.get(16..20)?.try_into().ok()?)).ok()?;
        if flags & DM_BUFFER_FULL != 0 || targets != 1 {
            return None;
        }
        let text = bytes.get(start.checked_add(TARGET_BYTES)?..)?;
        let line = text.split(|b| *b == 0).next()?;
        std::str::from_utf8(line).ok().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_has_the_documented_layout() {
        let target = Target { kind: "verity", sectors: 8, parameters: "1 /dev/vda" };
        let request = Request::with_target("layer", &target, Access::ReadOnly).unwrap();
        let bytes = request.bytes();
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(bytes[..4], [4, 0, 0, 0]);
        assert_eq!(bytes[12..16], u32::try_from(bytes.len()).unwrap().to_le_bytes());
        assert_eq!(bytes[16..20], 312_u32.to_le_bytes());
        assert_eq!(bytes[20..24], 1_u32.to_le_bytes());
        assert_eq!(bytes[28..32], DM_READONLY.to_le_bytes());
        assert_eq!(&bytes[48..54], b"layer\0");
        assert_eq!(bytes[320..328], 8_u64.to_le_bytes());
        assert_eq!(&bytes[336..343], b"verity\0");
        assert_eq!(&bytes[352..363], b"1 /dev/vda\0");
        let request = Request::with_target("key", &target, Access::WritableSecret).unwrap();
        assert_eq!(request.bytes()[28..32], DM_SECURE_DATA.to_le_bytes());
        let request = Request::with_target("disk", &target, Access::Writable).unwrap();
        assert_eq!(request.bytes()[28..32], [0; 4]);
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert!(Request::new(&"n".repeat(127), HEADER_BYTES).is_ok());
        assert!(Request::new(&"n".repeat(128), HEADER_BYTES).is_err());
        assert!(Request::new("a\0b", HEADER_BYTES).is_err());
    }

    #[test]
    fn minor_number_is_taken_out_of_the_kernels_form() {
        let mut request = Request::new("x", HEADER_BYTES).unwrap();
        request.put_bytes(40, &(254_u64 << 8 | 3).to_le_bytes());
        assert_eq!(request.minor(), 3);
        request.put_bytes(40, &(254_u64 << 8 | 0x2c | 1 << 20).to_le_bytes());
        assert_eq!(request.minor(), 0x12c);
    }
}
