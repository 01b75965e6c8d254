//! Reports of SEV-SNP and TDX through the kernel's configfs-tsm (Linux Documentation/ABI/testing/configfs-tsm).

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    AUXBLOB_BYTES_MAX, REPORT_BYTES_MAX, REPORT_DATA_BYTES, RawReport, ReportError, ReportSource,
    Tee,
};

const ROOT: &str = "/sys/kernel/config/tsm/report";
const SMALL_TEXT_BYTES_MAX: usize = 64;

/// Makes one entry per report in configfs-tsm and takes it away again.
#[derive(Debug)]
pub struct ConfigfsTsm {
    tee: Tee,
    provider: &'static str,
    root: PathBuf,
    next: AtomicU64,
}

impl ConfigfsTsm {
    pub(crate) fn snp() -> Self {
        Self::new(Tee::Snp, "sev_guest", ROOT)
    }

    pub(crate) fn tdx() -> Self {
        Self::new(Tee::Tdx, "tdx_guest", ROOT)
    }

    fn new(tee: Tee, provider: &'static str, root: impl Into<PathBuf>) -> Self {
        Self { tee, provider, root: root.into(), next: AtomicU64::new(0) }
    }
}

impl ReportSource for ConfigfsTsm {
    fn tee(&self) -> Tee {
        self.tee
    }

    fn report(&self, report_data: &[u8; REPORT_DATA_BYTES]) -> Result<RawReport, ReportError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = self.root.join(format!("anchorhold-{}-{number}", std::process::id()));
        fs::create_dir(&entry)
            .map_err(ReportError::io(format!("create report entry {}", entry.display())))?;
        let result = read_entry(&entry, self.provider, report_data);
        // An entry that stays costs a little kernel memory and nothing else.
        let _ = fs::remove_dir(&entry);
        result
    }
}

fn read_entry(
    entry: &Path,
    provider: &'static str,
    report_data: &[u8; REPORT_DATA_BYTES],
) -> Result<RawReport, ReportError> {
    let found = small_text(entry, "provider")?;
    if found != provider {
        return Err(ReportError::Provider { found, expected: provider });
    }
    let inblob = entry.join("inblob");
    File::options()
        .write(true)
        .open(&inblob)
        .and_then(|mut file| std::io::Write::write_all(&mut file, report_data))
        .map_err(ReportError::io(format!("write {}", inblob.display())))?;
    let report = attribute(entry, "outblob", REPORT_BYTES_MAX, "at most 65536")?;
    if report.is_empty() {
        return Err(ReportError::Length { part: "outblob", found: 0, expected: "at least 1" });
    }
    let auxblob = if entry.join("auxblob").exists() {
        attribute(entry, "auxblob", AUXBLOB_BYTES_MAX, "at most 65536")?
    } else {
        Vec::new()
    };
    // The kernel counts every write to the entry: more than ours means that the report is over someone else's bytes.
    match small_text(entry, "generation")?.as_str() {
        "1" => Ok(RawReport { report, auxblob }),
        other => Err(ReportError::Generation { found: other.to_owned() }),
    }
}

fn small_text(entry: &Path, name: &'static str) -> Result<String, ReportError> {
    let bytes = attribute(entry, name, SMALL_TEXT_BYTES_MAX, "at most 64")?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn attribute(
    entry: &Path,
    name: &'static str,
    bytes_max: usize,
    expected: &'static str,
) -> Result<Vec<u8>, ReportError> {
    let path = entry.join(name);
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(&path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(ReportError::io(format!("read {}", path.display())))?;
    if bytes.len() > bytes_max {
        return Err(ReportError::Length { part: name, found: bytes.len(), expected });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: [u8; 64] = [9; 64];

    /// A folder that looks like an entry after the write.
    fn entry(provider: &str, generation: &str, outblob: &[u8]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("provider", provider.as_bytes()),
            ("generation", generation.as_bytes()),
            ("outblob", outblob),
            ("auxblob", b"certs"),
            ("inblob", b""),
        ] {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    #[test]
    fn report_and_table_come_back_and_report_data_went_in() {
        let dir = entry("sev_guest\n", "1\n", b"report");
        let raw = read_entry(dir.path(), "sev_guest", &DATA).unwrap();
        assert_eq!(
            (raw.report.as_slice(), raw.auxblob.as_slice()),
            (&b"report"[..], &b"certs"[..])
        );
        assert_eq!(fs::read(dir.path().join("inblob")).unwrap(), DATA);
    }

    #[test]
    fn another_provider_is_refused_before_anything_is_asked() {
        let dir = entry("tdx_guest\n", "1\n", b"report");
        let error = read_entry(dir.path(), "sev_guest", &DATA).unwrap_err();
        assert!(matches!(error, ReportError::Provider { found, .. } if found == "tdx_guest"));
        assert!(fs::read(dir.path().join("inblob")).unwrap().is_empty());
    }

    #[test]
    fn a_second_writer_an_empty_and_an_endless_report_are_refused() {
        let dir = entry("sev_guest\n", "2\n", b"report");
        let error = read_entry(dir.path(), "sev_guest", &DATA).unwrap_err();
        assert!(matches!(error, ReportError::Generation { found } if found == "2"));
        let dir = entry("sev_guest\n", "1\n", b"");
        assert!(read_entry(dir.path(), "sev_guest", &DATA).is_err());
        let dir = entry("sev_guest\n", "1\n", &vec![1; REPORT_BYTES_MAX + 1]);
        let error = read_entry(dir.path(), "sev_guest", &DATA).unwrap_err();
        assert!(matches!(error, ReportError::Length { part: "outblob", .. }));
    }

    #[test]
    fn without_configfs_the_error_names_the_entry() {
        let source = ConfigfsTsm::new(Tee::Snp, "sev_guest", "/nonexistent");
        let text = source.report(&DATA).unwrap_err().to_string();
        assert!(text.starts_with("create report entry /nonexistent/anchorhold-"), "{text}");
    }
}
