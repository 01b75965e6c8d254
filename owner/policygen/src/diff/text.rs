//! The words.

use std::fmt;

use crate::diff::{Change, ContainerDiff, Diff, Presence};

/// Longest value that is shown whole; JSON has all of it.
const MAX_VALUE_CHARS: usize = 300;

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_same() {
            return writeln!(f, "the same policy");
        }
        if !self.pod.is_empty() {
            writeln!(f, "pod")?;
            self.pod.iter().try_for_each(|change| change.fmt(f))?;
        }
        self.containers.iter().try_for_each(|container| container.fmt(f))
    }
}

impl fmt::Display for ContainerDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let presence = match self.presence {
            Presence::Added => ": added",
            Presence::Removed => ": removed",
            Presence::Both => "",
        };
        writeln!(f, "container {}{presence}", self.name)?;
        self.changes.iter().try_for_each(|change| change.fmt(f))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what.as_str();
        for value in &self.shuts_out {
            writeln!(f, "  {what:18} shuts out  {}", shortened(value))?;
        }
        for value in &self.lets_in {
            writeln!(f, "  {what:18} lets in    {}", shortened(value))?;
        }
        Ok(())
    }
}

fn shortened(value: &str) -> String {
    let plain: String =
        value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    match plain.chars().nth(MAX_VALUE_CHARS) {
        None => plain,
        Some(_) => format!("{} …", plain.chars().take(MAX_VALUE_CHARS).collect::<String>()),
    }
}
