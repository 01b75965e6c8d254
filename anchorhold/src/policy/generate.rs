//! `anchorhold policy generate`: files in, files with policies out.

use std::path::{Path, PathBuf};

use ah_manifest::Platform;
use ah_policy::PolicyDocument;
use anyhow::{Result, bail};

use crate::cli::policy::{Generate, Raw};
use crate::dirs::Dirs;
use crate::inputs::{self, Input};
use crate::policy::make::{self, Choices, Made, Wanted};
use crate::policy::output::{self, Target};
use crate::policy::sidecar;
use crate::resolve;
use crate::ui::{self, failure};

/// Every pod of every document of every file gets its policy.
pub(crate) async fn run(dirs: &Dirs, options: &Generate) -> Result<()> {
    let target = Target::of(options)?;
    let platform = options.runs_on.map_or(Platform::Cluster, Platform::from);
    let reading = inputs::options(&options.reading, platform)?;
    let inputs = inputs::read(&options.files, &options.reading.with, &reading)?;
    let wanted = |_: &_| true;
    let runs_on = options.runs_on.map(Platform::from);
    let (form, agent) = (options.form, options.agent.into());
    let choices = async {
        let key_service = make::key_service(dirs, &options.key_service, form, agent).await?;
        Ok(Choices { runs_on, form, agent, key_service })
    };
    let made = policies(dirs, &inputs, &wanted, &options.images, choices).await?;
    if made.is_empty() {
        eprintln!("warning: no pod in {} file(s): nothing to do", inputs.len());
    }
    if !options.json {
        tell(&made)?;
    }
    match options.raw {
        None => output::yaml(&target, &inputs, &texts(&inputs, &made)?)?,
        Some(raw) => output::files(&target, raw_files(&made, raw)?)?,
    }
    let described = sidecar::describe(&inputs, &made)?;
    if let Some(file) = &options.sidecar {
        let text = format!("{}\n", serde_json::to_string_pretty(&described)?);
        output::write(file, text.as_bytes())?;
    }
    if options.json {
        crate::ui::say!("{}", serde_json::to_string(&described)?);
    }
    Ok(())
}

/// Images, then policies. What takes time and needs no other is done side by side: images, the key service, and the
/// compilation of the rules for the dry run.
pub(crate) async fn policies(
    dirs: &Dirs,
    inputs: &[Input],
    wanted: Wanted<'_>,
    places: &crate::cli::Images,
    choices: impl Future<Output = Result<Choices>>,
) -> Result<Vec<Made>> {
    make::check_platform(inputs, wanted, &places.platform)?;
    let names = make::image_names(inputs, wanted);
    if !names.is_empty() {
        std::thread::spawn(ah_policygen::warm_up);
    }
    let images = resolve::resolve_for_all(dirs, places, &names);
    let (images, choices) = tokio::try_join!(images, choices)?;
    make::make(inputs, wanted, &images, &choices)
}

/// Each file's new text.
pub(crate) fn texts(inputs: &[Input], made: &[Made]) -> Result<Vec<String>> {
    let numbered: Vec<(usize, &Input)> = inputs.iter().enumerate().collect();
    let edited = |&(number, file): &(usize, &Input)| make::edited(file, number, made);
    make::side_by_side(&numbered, edited).into_iter().collect()
}

fn raw_files(made: &[Made], raw: Raw) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let one = |pod: &Made| {
        let (end, bytes) = match (raw, &pod.document) {
            (Raw::Policy, document) => ("rego", document.policy().as_bytes().to_vec()),
            (Raw::Initdata, PolicyDocument::InitData(initdata)) => {
                ("toml", initdata.bytes().to_vec())
            }
            (Raw::Initdata, PolicyDocument::Aks(_)) => {
                return Err(failure(
                    "the AKS form has no initdata document",
                    "--raw alone gives the policy text, --form initdata the document",
                ));
            }
        };
        let stem = format!("{}-{}", pod.kind.to_lowercase(), pod.name.replace(['/', '\\'], "_"));
        Ok((PathBuf::from(format!("{stem}.{end}")), bytes))
    };
    let files: Vec<_> = made.iter().map(one).collect::<Result<_>>()?;
    if files.is_empty() {
        bail!("there is no pod, so there is no policy to print");
    }
    Ok(files)
}

/// What was made, for people.
pub(crate) fn tell(made: &[Made]) -> Result<()> {
    for pod in made {
        let (policy, annotation) = (pod.document.policy().len(), pod.annotation.len());
        if let [_] = made {
            eprintln!("policy: {policy} bytes, annotation {annotation} bytes");
            eprintln!("initdata digest (HOST_DATA): {}", pod.document.host_data_snp()?);
        } else {
            eprintln!(
                "{} {}: policy {policy} bytes, annotation {annotation} bytes, HOST_DATA {}",
                pod.kind,
                pod.name,
                pod.document.host_data_snp()?
            );
        }
    }
    for pod in made {
        if let Some(lacking) = &pod.incomplete {
            eprintln!(
                "warning: {} {}: the policy denies what is added: {lacking}",
                pod.kind, pod.name
            );
        }
    }
    let secrets: Vec<String> = made
        .iter()
        .flat_map(|pod| pod.secrets.iter().map(|name| format!("{} {}, {name}", pod.kind, pod.name)))
        .collect();
    if !secrets.is_empty() {
        eprintln!(
            "warning: values of Secrets stand in policies, which the host can read: {}",
            secrets.join("; ")
        );
        ui::print_hint(
            "seal them (anchorhold secret seal), or let the pod ask for keys (anchorhold.dev/release-socket)",
        );
    }
    Ok(())
}

/// Says where a file went.
pub(crate) fn written(file: &Path) {
    eprintln!("written to {}", file.display());
}
