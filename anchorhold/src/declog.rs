//! `anchorhold log show` and `log verify`.

use std::path::Path;
use std::process::ExitCode;

use ah_keyservice::{Audit, AuditError, SignedHead};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cli::service::LogCommand;
use crate::dirs::Dirs;
use crate::store::Store;
use crate::ui::{plain, print_error, say};

/// The log is not what it was.
const REFUSED: u8 = 1;
/// The log cannot be read.
const UNREADABLE: u8 = 2;

pub(crate) async fn run(dirs: &Dirs, command: &LogCommand) -> Result<ExitCode> {
    match command {
        LogCommand::Show { from, target, json } => {
            let store = Store::open(dirs, target).await?;
            let shown = show(&store, *from, *json).await;
            store.close().await;
            shown.map(|()| ExitCode::SUCCESS)
        }
        LogCommand::Verify { pin, target, json } => {
            let verified = async {
                let store = Store::open(dirs, target).await?;
                let pinned = pin.as_deref().is_some_and(Path::exists);
                let verified = verify(&store, pin.as_deref()).await.map(|found| (found, pinned));
                store.close().await;
                verified
            };
            match verified.await {
                Ok((Ok(head), pinned)) => {
                    tell(&head, pin.as_deref(), pinned, *json);
                    Ok(ExitCode::SUCCESS)
                }
                Ok((Err(error), _)) => {
                    if *json {
                        say!("{}", json!({ "whole": false, "reason": error.to_string() }));
                    }
                    print_error(&error.into());
                    Ok(ExitCode::from(REFUSED))
                }
                Err(error) => {
                    print_error(&error);
                    Ok(ExitCode::from(UNREADABLE))
                }
            }
        }
    }
}

async fn show(store: &Store, from: u64, as_json: bool) -> Result<()> {
    let mut next = from;
    loop {
        let entries = store.entries(next).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        next = last.seq + 1;
        for entry in &entries {
            if as_json {
                say!("{}", entry.body);
            } else {
                say!("{:>6}  {}", entry.seq, line(&serde_json::from_str(&entry.body)?));
            }
        }
    }
}

/// One entry for people.
fn line(entry: &Value) -> String {
    // a log elsewhere is not trusted with the terminal
    let text = |name: &str| plain(entry.get(name).and_then(Value::as_str).unwrap_or("-"));
    let mut line =
        format!("{}  {:8} {:9} {}", text("time"), text("event"), text("decision"), text("key_id"));
    for name in ["caller", "authority", "tee"] {
        if let Some(value) = entry.get(name).and_then(Value::as_str) {
            line.push_str(&format!("  {name}: {}", plain(value)));
        }
    }
    let reasons = entry.get("reasons").and_then(Value::as_array).into_iter().flatten();
    for reason in reasons.filter_map(Value::as_str) {
        line.push_str(&format!("\n        {}", plain(reason)));
    }
    line
}

/// The inner error is the log's fault, the outer one is everything else's.
async fn verify(store: &Store, pin: Option<&Path>) -> Result<Result<SignedHead, AuditError>> {
    let pinned = match pin {
        Some(path) if path.exists() => {
            let text =
                std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            Some(
                serde_json::from_slice(&text)
                    .with_context(|| format!("{} is no head of a log", path.display()))?,
            )
        }
        _ => None,
    };
    let head = store.head().await?;
    let size = head.size;
    let mut audit = match Audit::begin(head, pinned) {
        Ok(audit) => audit,
        Err(error) => return Ok(Err(error)),
    };
    let mut next = 0;
    while next < size {
        let entries = store.entries(next).await?;
        // Entries that were added since the head was signed are the next verification's.
        let covered: Vec<_> = entries.into_iter().filter(|entry| entry.seq < size).collect();
        if covered.is_empty() {
            break;
        }
        next += u64::try_from(covered.len())?;
        covered.iter().for_each(|entry| audit.entry(entry.body.as_bytes()));
    }
    let head = match audit.finish() {
        Ok(head) => head,
        Err(error) => return Ok(Err(error)),
    };
    if let Some(path) = pin {
        let text = serde_json::to_string_pretty(&head)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(Ok(head))
}

/// `pinned`: whether an earlier head was there to compare with.
fn tell(head: &SignedHead, pin: Option<&Path>, pinned: bool, json: bool) {
    if json {
        say!("{}", json!({ "whole": true, "head": head, "compared_with_pin": pinned }));
    } else {
        say!(
            "the log is whole: {} entries, root {}, key {}",
            head.size,
            head.root,
            head.public_key
        );
        match (pin, pinned) {
            (Some(path), true) => {
                say!("it goes on from the head that {} had, which is now this one", path.display());
            }
            (Some(path), false) => {
                say!("no earlier head to compare with: this one is now in {}", path.display());
            }
            (None, _) => say!("compared with no earlier head: --pin FILE keeps one"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_log_whose_texts_move_the_cursor_or_turn_the_writing() {
        let honest = json!({"time": "2026", "event": "release", "caller": "a", "reasons": ["b"]});
        assert!(line(&honest).ends_with("  caller: a\n        b"));
        for bad in ["\u{1b}[2J", "\r", "\n", "\u{61c}", "\u{200f}", "\u{202e}", "\u{2066}"] {
            let text = format!("x{bad}y");
            let entry = json!({"time": text, "key_id": text, "caller": text, "reasons": [text]});
            let shown = line(&entry);
            let one = bad.chars().next().unwrap();
            assert_eq!(shown.matches(one).count(), usize::from(one == '\n'), "{shown:?}");
        }
    }
}
