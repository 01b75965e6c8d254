//! `anchorhold policy show`, `explain`, `test`, `cases` and `diff`: what the library says, printed.

use ah_policygen::{Diff, Explained, Question, Shown};
use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::policy;
use crate::keys::read_text;
use crate::policy::carried::{self, Carried};
use crate::policy::sidecar::{self, Report};
use crate::ui::failure;

/// The policies in people's words.
pub(crate) fn show(options: &policy::Show, verbose: u8) -> Result<()> {
    let some = carried::read_some(&options.file.path(), options.pod.as_deref(), &options.kinds)?;
    let mut pods = Vec::new();
    for (number, carried) in some.iter().enumerate() {
        let shown = ah_policygen::show(carried.document.policy())?;
        let report = Report::of(&carried.document)?;
        match options.json {
            true => pods.push(described(carried, &shown, &report)),
            false => print_shown(carried, &shown, &report, number, some.len(), verbose),
        }
    }
    if options.json {
        crate::ui::say!("{}", json!({ "pods": pods }));
    }
    Ok(())
}

fn described(carried: &Carried, shown: &Shown, report: &Report) -> Value {
    json!({
        "pod": carried.name,
        "form": sidecar::form(&carried.document),
        "host_data": report.host_data,
        "tdx_mrconfigid": report.tdx_mrconfigid,
        "policy": shown,
    })
}

fn print_shown(
    carried: &Carried,
    shown: &Shown,
    report: &Report,
    number: usize,
    all: usize,
    verbose: u8,
) {
    if all > 1 {
        crate::ui::say!("{}=== {}", if number > 0 { "\n" } else { "" }, carried.name);
    }
    match verbose {
        0 => crate::ui::say!("{shown}"),
        _ => crate::ui::say!("{shown:#}"),
    }
    crate::ui::say!("HOST_DATA: {}", report.host_data);
    if let (true, Some(value)) = (verbose > 0, &report.tdx_mrconfigid) {
        crate::ui::say!("MRCONFIGID (TDX): {value}");
    }
}

/// Which rule and field denied a request; yes is allowed.
pub(crate) fn explain(options: &policy::Explain) -> Result<bool> {
    let carried = carried::read_one(&options.file.path(), options.pod.as_deref(), &options.kinds)?;
    let document = read_text(&options.request)?;
    let after = options.after.as_deref().map(read_text).transpose()?;
    let question =
        Question { document: &document, kind: options.kind.as_deref(), after: after.as_deref() };
    let explained = ah_policygen::answer(carried.document.policy(), &question)?;
    match options.json {
        true => crate::ui::say!("{}", serde_json::to_string(&explained)?),
        false => crate::ui::say!("{explained}"),
    }
    Ok(matches!(explained, Explained::Allowed { .. }))
}

/// Each case ok or not.
pub(crate) fn test(options: &policy::Test) -> Result<bool> {
    let carried = carried::read_one(&options.file.path(), options.pod.as_deref(), &options.kinds)?;
    let cases = read_text(&options.cases)?;
    let tested = ah_policygen::test(carried.document.policy(), &cases)?;
    match options.json {
        true => crate::ui::say!("{}", serde_json::to_string(&tested)?),
        false => crate::ui::say!("{tested}"),
    }
    Ok(tested.failed == 0)
}

/// Cases to begin with.
pub(crate) fn cases(options: &policy::Cases) -> Result<()> {
    let carried = carried::read_one(&options.file.path(), options.pod.as_deref(), &options.kinds)?;
    let shown = ah_policygen::show(carried.document.policy())?;
    let secret = shown.containers.iter().flat_map(|c| &c.env).find(|env| env.secret);
    if let (Some(env), false) = (secret, options.with_secrets) {
        return Err(failure(
            format!("the requests hold the value of {}, which comes from a Secret", env.name),
            "--with-secrets prints them all the same",
        ));
    }
    let cases = ah_policygen::honest_cases(carried.document.policy())?;
    crate::ui::say!("{}", serde_json::to_string_pretty(&cases)?);
    Ok(())
}

/// What a change lets in and shuts out; yes is that there is none.
pub(crate) fn diff(options: &policy::Diff) -> Result<bool> {
    let (old, new) = (
        carried::read(&options.old, &options.kinds)?,
        carried::read(&options.new, &options.kinds)?,
    );
    let pairs = paired(old, new);
    let mut pods = Vec::new();
    let mut all_same = true;
    let many = pairs.len() > 1;
    for (name, sides) in pairs {
        let (word, diff) = match &sides {
            (Some(old), Some(new)) => ("changed", Some(ah_policygen::diff(old, new)?)),
            (None, _) => ("added", None),
            (_, None) => ("removed", None),
        };
        let same = diff.as_ref().is_some_and(Diff::is_same);
        all_same &= same;
        let word = if same { "same" } else { word };
        match options.json {
            true => pods.push(json!({ "pod": name, "presence": word, "diff": diff })),
            false => print_diff(&name, word, diff.as_ref(), many),
        }
    }
    if options.json {
        crate::ui::say!("{}", json!({ "same": all_same, "pods": pods }));
    }
    Ok(all_same)
}

type Sides = (Option<ah_policy::PolicyDocument>, Option<ah_policy::PolicyDocument>);

/// Policies of the same name together; two files with one policy each are about that one, whatever its name.
fn paired(old: Vec<Carried>, new: Vec<Carried>) -> Vec<(String, Sides)> {
    if let ([old], [new]) = (old.as_slice(), new.as_slice()) {
        let sides = (Some(old.document.clone()), Some(new.document.clone()));
        return vec![(new.name.clone(), sides)];
    }
    let mut pairs: Vec<(String, Sides)> =
        new.into_iter().map(|new| (new.name, (None, Some(new.document)))).collect();
    for old in old {
        let partner = pairs.iter_mut().find(|(name, sides)| *name == old.name && sides.0.is_none());
        match partner {
            Some((_, sides)) => sides.0 = Some(old.document),
            None => pairs.push((old.name, (Some(old.document), None))),
        }
    }
    pairs
}

fn print_diff(name: &str, word: &str, diff: Option<&Diff>, many: bool) {
    if many || diff.is_none() {
        crate::ui::say!("=== {name}: {word}");
    }
    if let Some(diff) = diff {
        crate::ui::print(format_args!("{diff}"));
    }
}
