//! What people see: talk on standard error, data on standard output, a hint where there is a remedy.

use std::fmt;
use std::io::IsTerminal;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How the reports of this run must be called wherever they are seen.
pub const SOFTWARE_TEE: &str = "tee: software (not confidential)";

/// Says on standard error what this project's crates tell on the way: warnings, with `-v` what happens, with `-vv` each
/// detail, the guest's console among them.
pub fn tell(verbose: u8) {
    use tracing_subscriber::filter::{LevelFilter, filter_fn};
    use tracing_subscriber::prelude::*;
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let ours = filter_fn(|event| {
        ["ah_", "anchorhold"].iter().any(|start| event.target().starts_with(start))
    });
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_filter(ours);
    // A caller that has its own listener keeps it.
    let _ = tracing_subscriber::registry().with(level).with(lines).try_init();
}

/// A secret's file is its owner's alone.
pub(crate) fn warn_if_others_read(file: &Path) {
    let mode = std::fs::metadata(file).map_or(0, |found| found.permissions().mode());
    if mode & 0o077 != 0 {
        eprintln!(
            "warning: others may read {} (mode {:04o}, expected 0600)",
            file.display(),
            mode & 0o7777
        );
    }
}

/// A line on standard output, as `println!` has it.
macro_rules! say {
    ($($text:tt)*) => { $crate::ui::print(format_args!("{}\n", format_args!($($text)*))) };
}
pub(crate) use say;

/// Exit code of a program that SIGPIPE ended, as shells count it.
const READER_GONE: i32 = 128 + 13;

/// A text of somebody else's for a terminal: what would move the cursor, begin a line or turn the writing is spelled out.
pub(crate) fn plain(text: &str) -> String {
    let turns = |one: char| matches!(one, '\u{061C}' | '\u{200E}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let mut plain = String::with_capacity(text.len());
    for one in text.chars() {
        match one.is_control() || turns(one) {
            true => plain.extend(one.escape_default()),
            false => plain.push(one),
        }
    }
    plain
}

/// Writes to standard output. A reader that is gone (`… | head`) ends the command quietly, as it ends every other one.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    if let Err(error) = write!(out, "{text}") {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            eprintln!("error: standard output: {error}");
        }
        std::process::exit(READER_GONE);
    }
}

/// An error with a remedy.
#[derive(Debug)]
pub struct Hint(pub String);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Hint {}

/// An error that says what failed, and what to do.
pub fn failure(what: impl fmt::Display, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hint(hint.into())).context(what.to_string())
}

/// Prints an error and its causes; remedies on lines of their own.
pub fn print_error(error: &anyhow::Error) {
    let mut causes = Vec::new();
    let mut hints = Vec::new();
    for cause in error.chain() {
        match cause.downcast_ref::<Hint>() {
            Some(hint) => hints.push(hint.to_string()),
            None => causes.push(cause.to_string()),
        }
    }
    // A library's text may already end with its source's.
    causes.dedup_by(|next, previous| previous.ends_with(next.as_str()));
    eprintln!("error: {}", causes.join(": "));
    hints.iter().for_each(|hint| print_hint(hint));
}

/// Prints a remedy.
pub fn print_hint(hint: &str) {
    eprintln!("hint: {hint}");
}

/// One line of what is going on, with its time when it ends; a spinner on terminals.
pub struct Stage {
    name: String,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Stage {
    /// Begins a stage.
    pub fn begin(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(name.clone());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { name, start: Instant::now(), bar }
    }

    /// Ends it and prints its line.
    pub fn end(self, result: impl fmt::Display) -> Duration {
        let took = self.start.elapsed();
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{:>8.3} s  {}: {result}", took.as_secs_f64(), self.name);
        took
    }
}

/// A line for each of several things, with its time; on terminals a bar that says how many are done.
pub struct Progress {
    what: &'static str,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins.
    pub fn begin(what: &'static str, count: usize) -> Self {
        let bar = (std::io::stderr().is_terminal() && count > 0).then(|| {
            let bar = ProgressBar::new(count as u64).with_message(what);
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {msg} {pos}/{len} ({elapsed})")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { what, bar }
    }

    /// One more is done.
    pub fn step(&self, name: &str, took: Duration, result: impl fmt::Display) {
        let what = self.what.trim_end_matches('s');
        let line = format!("{:>8.3} s  {what} {name}: {result}", took.as_secs_f64());
        match &self.bar {
            Some(bar) => {
                bar.suspend(|| eprintln!("{line}"));
                bar.inc(1);
            }
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
