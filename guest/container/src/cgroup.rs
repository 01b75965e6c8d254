//! A container's cgroup (version 2): figures, memory pressure, the end of every process in it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long removal waits for killed processes to leave the cgroup.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a cgroup could not be read or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of it cannot be read or written.
    #[error("cgroup file {file} failed")]
    File {
        /// The file's name.
        file: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Processes did not leave in time.
    #[error("cgroup still has processes after 10 s")]
    Busy,
}

/// Figures as the kernel gives them; a controller that is off gives zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupUsage {
    /// `cpu.stat`, in microseconds and counts.
    pub cpu: BTreeMap<String, u64>,
    /// `memory.current`, bytes.
    pub memory_bytes: u64,
    /// `memory.peak`, bytes.
    pub memory_peak_bytes: u64,
    /// `memory.max`, bytes; `u64::MAX` for none.
    pub memory_limit_bytes: u64,
    /// `memory.swap.current`, bytes.
    pub swap_bytes: u64,
    /// `memory.stat`.
    pub memory: BTreeMap<String, u64>,
    /// `pids.current`.
    pub pids: u64,
    /// `pids.max`; 0 for none.
    pub pids_limit: u64,
    /// `io.stat`: (major, minor, key, value).
    pub io: Vec<(u64, u64, String, u64)>,
}

/// `memory.events`, the two counts that the agent watches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Processes killed for lack of memory.
    pub oom_kill: u64,
    /// Failed allocations at the limit.
    pub max: u64,
}

/// One cgroup folder.
#[derive(Debug, Clone)]
pub struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// The cgroup at `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `memory.events`, which the kernel signals with a modification (inotify) at each change.
    pub fn events_file(&self) -> PathBuf {
        self.folder.join("memory.events")
    }

    /// Its figures.
    pub fn usage(&self) -> CgroupUsage {
        let number = |name: &str| self.number(name).unwrap_or_default();
        CgroupUsage {
            cpu: self.table("cpu.stat"),
            memory_bytes: number("memory.current"),
            memory_peak_bytes: number("memory.peak"),
            memory_limit_bytes: self.number("memory.max").unwrap_or(u64::MAX),
            swap_bytes: number("memory.swap.current"),
            memory: self.table("memory.stat"),
            pids: number("pids.current"),
            pids_limit: number("pids.max"),
            io: parse_io(&self.text("io.stat").unwrap_or_default()),
        }
    }

    /// What `memory.events` counts now.
    pub fn pressure(&self) -> Pressure {
        let table = self.table("memory.events");
        let count = |key: &str| table.get(key).copied().unwrap_or_default();
        Pressure { oom_kill: count("oom_kill"), max: count("max") }
    }

    /// The pids in it and below.
    pub fn pids(&self) -> Vec<i32> {
        let own = self.text("cgroup.procs").unwrap_or_default();
        let mut pids: Vec<i32> = own.lines().filter_map(|l| l.parse().ok()).collect();
        for child in self.children() {
            pids.extend(child.pids());
        }
        pids
    }

    /// Kills every process in it and below at once; nothing can fork its way out (`cgroup.kill`, Linux 5.14).
    ///
    /// # Errors
    /// [`CgroupError`] when the file cannot be written; a cgroup that is gone is no error.
    pub fn kill(&self) -> Result<(), CgroupError> {
        match std::fs::write(self.folder.join("cgroup.kill"), "1") {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(CgroupError::File { file: "cgroup.kill".into(), source })
            }
            _ => Ok(()),
        }
    }

    /// Removes it with those below; call [`Cgroup::kill`] first. Waits for killed processes to leave.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] when they do not leave within 10 s.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let end = Instant::now() + REMOVE_TIMEOUT;
        loop {
            for child in self.children() {
                child.remove()?;
            }
            match std::fs::remove_dir(&self.folder) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
                Err(source) => {
                    return Err(CgroupError::File {
                        file: self.folder.display().to_string(),
                        source,
                    });
                }
            }
            if Instant::now() >= end {
                return Err(CgroupError::Busy);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn children(&self) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .map(|e| Self::new(e.path()))
            .collect()
    }

    fn text(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.folder.join(name)).ok()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.trim().parse().ok()
    }

    fn table(&self, name: &str) -> BTreeMap<String, u64> {
        parse_table(&self.text(name).unwrap_or_default())
    }
}

/// Flat keyed file of cgroup v2: `KEY VALUE` lines.
fn parse_table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// Nested keyed file: `MAJOR:MINOR KEY=VALUE …`.
fn parse_io(text: &str) -> Vec<(u64, u64, String, u64)> {
    let mut rows = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let device = words.next().and_then(|w| w.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(a, b)| (a.parse(), b.parse())) else {
            continue;
        };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            if let Ok(value) = value.parse() {
                rows.push((major, minor, key.to_owned(), value));
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        put("cpu.stat", "usage_usec 12\nuser_usec 8\nsystem_usec 4\n");
        put("memory.current", "4096\n");
        put("memory.max", "max\n");
        put("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n");
        put("io.stat", "254:0 rbytes=10 wbytes=20\nbad line\n");
        let cgroup = Cgroup::new(folder.path().to_owned());
        let usage = cgroup.usage();
        assert_eq!(usage.cpu.get("user_usec"), Some(&8));
        assert_eq!(usage.memory_bytes, 4096);
        assert_eq!(usage.memory_limit_bytes, u64::MAX);
        assert_eq!(
            usage.io,
            [(254, 0, "rbytes".to_owned(), 10), (254, 0, "wbytes".to_owned(), 20)]
        );
        assert_eq!(cgroup.pressure(), Pressure { oom_kill: 2, max: 3 });
    }
}
