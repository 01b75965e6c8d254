//! The owner's choices as they apply to one container.

use ah_pod::{ContainerChoices, EnvVar, TerminationLog, Word};
use k8s_openapi::api::core::v1 as api;

use crate::annotations::{MUTABLE_ANNOTATION, STDIN_ANNOTATION};
use crate::error::ManifestError;
use crate::template::{PodContext, value};

/// The owner's commands for the container.
pub(crate) fn execs<'a>(
    context: &'a PodContext<'_>,
    container: &api::Container,
) -> impl Iterator<Item = &'a Vec<Word>> {
    context.choices.execs.get(&container.name).into_iter().flatten()
}

/// The command line when none of its words may vary.
pub(crate) fn exact(command: &[Word]) -> Option<Vec<String>> {
    let word = |word: &Word| match word {
        Word::Exact(word) => Some(word.clone()),
        Word::Within(_) => None,
    };
    command.iter().map(word).collect()
}

/// The owner may keep the host from writing into a container that reads its standard input.
pub(crate) fn stdin(
    context: &PodContext<'_>,
    container: &api::Container,
) -> Result<bool, ManifestError> {
    let declared = container.stdin.unwrap_or(false);
    match &context.choices.stdin {
        None => Ok(declared),
        Some(names) if names.contains(&container.name) && !declared => {
            let path = format!("{}.{STDIN_ANNOTATION}", context.annotations_path);
            Err(value(&path, &container.name, "a container with stdin: true"))
        }
        Some(names) => Ok(names.contains(&container.name)),
    }
}

/// The owner's choices that no field has.
pub(crate) fn of(
    context: &PodContext<'_>,
    container: &api::Container,
    env: &[EnvVar],
) -> Result<ContainerChoices, ManifestError> {
    let mutable = context.choices.mutable.get(&container.name).cloned().unwrap_or_default();
    for name in mutable.keys() {
        let own = env.iter().find(|variable| variable.name == *name);
        let fixed = own.filter(|own| !own.value.is_secret() && own.value.as_literal().is_some());
        if fixed.is_none() {
            let path = format!("{}.{MUTABLE_ANNOTATION}", context.annotations_path);
            let expected = format!(
                "a variable in env of container {:?} with a value of its own, not from a Secret",
                container.name
            );
            return Err(value(&path, name, &expected));
        }
    }
    let readable = context.choices.termination_log.contains(&container.name);
    Ok(ContainerChoices {
        exec_patterns: execs(context, container)
            .filter(|command| exact(command).is_none())
            .cloned()
            .collect(),
        mutable,
        termination_log: if readable { TerminationLog::Readable } else { TerminationLog::Closed },
    })
}
