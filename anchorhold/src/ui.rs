//! What people see: talk on standard error, data on standard output, a hint where there is a remedy.

use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How the reports of this run must be called wherever they are seen.
pub const SOFTWARE_TEE: &str = "tee: software (not confidential)";

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
    for hint in hints {
        eprintln!("hint: {hint}");
    }
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
