//! `anchorhold policy verify`: the policy is generated again, and compared.

use ah_manifest::{Platform, PodTemplate};
use ah_policy::{KeyService, PolicyDocument};
use ah_policygen::{Agent, Diff};
use ah_registry::Images;
use anyhow::Result;
use serde::Serialize;

use crate::cli::policy::{Form, Verify};
use crate::dirs::Dirs;
use crate::inputs::{self, Input, pod_name};
use crate::policy::generate::policies;
use crate::policy::make::{self, Choices};
use crate::policy::sidecar::Report;
use crate::prepare;
use crate::resolve;
use crate::ui::failure;

/// What was found of one pod.
#[derive(Serialize)]
struct Finding {
    pod: String,
    ok: bool,
    /// Why nothing could be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// What the annotation's document gives.
    found: Option<Report>,
    /// What the YAML's policy gives.
    expected: Option<Report>,
    /// What generating again would change.
    differences: Option<Diff>,
    images: Vec<Image>,
    /// What was not compared, and why.
    notes: Vec<String>,
}

/// What was found of one image.
#[derive(Serialize)]
struct Image {
    image: String,
    pinned: bool,
    tag: Tag,
}

/// What the tag beside a digest names.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Tag {
    /// There is none.
    None,
    /// The pinned image.
    Same,
    /// Another image by now.
    Moved {
        /// Its digest.
        now: String,
    },
    /// It could not be found out.
    NotChecked {
        /// Why.
        why: String,
    },
}

/// Compares each pod of the file; yes is that each annotation is the policy of its YAML.
pub(crate) async fn run(dirs: &Dirs, options: &Verify) -> Result<bool> {
    let file = options.file.path();
    let reading = inputs::options(&options.reading, Platform::Cluster)?;
    let inputs = inputs::read(std::slice::from_ref(&file), &options.reading.with, &reading)?;
    let pods: Vec<&PodTemplate> = inputs.iter().flat_map(|input| input.manifest.pods()).collect();
    if pods.is_empty() {
        return Err(failure(
            format!("{} has no pod", file.display()),
            "a policy is carried by the annotations of a pod or of a controller's pod template",
        ));
    }
    let places = resolve::open(dirs, &options.images).await?;
    let expected_key = expected_key(dirs, &options.key_service).await?;
    let mut findings = Vec::new();
    for pod in pods {
        let mut finding = one(dirs, options, &inputs, pod, &expected_key).await?;
        finding.images = images(&places, pod).await;
        let unpinned = finding.images.iter().any(|image| !image.pinned);
        let moved = finding.images.iter().any(|image| !matches!(image.tag, Tag::None | Tag::Same));
        let refused = unpinned || (moved && options.current_tags);
        finding.ok &= !refused;
        findings.push(finding);
    }
    let ok = findings.iter().all(|finding| finding.ok);
    match options.json {
        true => crate::ui::say!("{}", serde_json::json!({ "ok": ok, "pods": findings })),
        false => findings.iter().for_each(print),
    }
    Ok(ok)
}

/// The key service that the pods must name.
enum Expected {
    /// Whichever the document names, and why it is not compared.
    Any(&'static str),
    /// This one, or none.
    Is(Option<KeyService>),
}

async fn expected_key(dirs: &Dirs, said: &str) -> Result<Expected> {
    Ok(match said {
        "any" => Expected::Any("the key service is not compared (--key-service any)"),
        "none" => Expected::Is(None),
        "local" if !dirs.keys().exists() => {
            Expected::Any("the key service is not compared: this machine has none")
        }
        "local" => Expected::Is(Some(prepare::key_service(dirs).await?)),
        key => Expected::Is(Some(make::public_key(key)?)),
    })
}

async fn one(
    dirs: &Dirs,
    options: &Verify,
    inputs: &[Input],
    pod: &PodTemplate,
    expected_key: &Expected,
) -> Result<Finding> {
    let mut finding = Finding {
        pod: pod_name(pod),
        ok: false,
        problem: None,
        found: None,
        expected: None,
        differences: None,
        images: Vec::new(),
        notes: Vec::new(),
    };
    let found = match PolicyDocument::from_annotations(pod.annotations()) {
        Ok(found) => found,
        Err(error) => {
            finding.problem = Some(error.to_string());
            return Ok(finding);
        }
    };
    let choices = choices(&found, expected_key, &mut finding.notes)?;
    let wanted = |other: &PodTemplate| std::ptr::eq(other, pod);
    let made = policies(dirs, inputs, &wanted, &options.images, async { Ok(choices) }).await?;
    let Some(expected) = made.into_iter().next().map(|made| made.document) else {
        return Ok(finding);
    };
    finding.ok = found == expected;
    finding.found = Report::of(&found).ok();
    finding.expected = Some(Report::of(&expected)?);
    match ah_policygen::diff(&found, &expected) {
        Ok(diff) => finding.differences = Some(diff),
        Err(error) => finding.problem = Some(format!("the annotation's policy: {error}")),
    }
    Ok(finding)
}

fn choices(
    found: &PolicyDocument,
    expected: &Expected,
    notes: &mut Vec<String>,
) -> Result<Choices> {
    // A text of another generator has another policy than this YAML's in any case.
    let agent = ah_policygen::show(found.policy()).map(|shown| shown.agent).unwrap_or_default();
    Ok(match found {
        PolicyDocument::Aks(_) => {
            Choices { runs_on: None, form: Form::Aks, agent, key_service: None }
        }
        PolicyDocument::InitData(_) if agent == Agent::Kata => {
            Choices { runs_on: None, form: Form::Initdata, agent, key_service: None }
        }
        PolicyDocument::InitData(_) => {
            let key_service = match expected {
                Expected::Any(note) => {
                    notes.push((*note).to_owned());
                    found.guest_settings()?.key_service
                }
                Expected::Is(service) => service.clone(),
            };
            Choices { runs_on: None, form: Form::Initdata, agent, key_service }
        }
    })
}

async fn images(places: &Images, pod: &PodTemplate) -> Vec<Image> {
    let mut images = Vec::new();
    let names: std::collections::BTreeSet<&str> = pod.images().collect();
    for name in names {
        let (tag, pinned) = match name.split_once('@') {
            Some((tagged, digest)) => (tag(places, tagged, digest).await, true),
            None => (Tag::None, false),
        };
        images.push(Image { image: name.to_owned(), pinned, tag });
    }
    images
}

async fn tag(places: &Images, tagged: &str, digest: &str) -> Tag {
    let last = tagged.rsplit('/').next().unwrap_or_default();
    if !last.contains(':') {
        return Tag::None;
    }
    match places.resolve(tagged).await.map(|image| image.target_digest().to_oci()) {
        Ok(now) if now == digest => Tag::Same,
        Ok(now) => Tag::Moved { now },
        Err(error) => Tag::NotChecked { why: error.to_string() },
    }
}

fn print(finding: &Finding) {
    let verdict = match (&finding.problem, &finding.differences, finding.ok) {
        (Some(problem), ..) => format!("NOT the policy of this YAML: {problem}"),
        (None, Some(diff), false) if diff.is_same() => {
            "the policy of this YAML, BUT its images are not what they should be".to_owned()
        }
        (None, _, false) => "the annotation is NOT the policy of this YAML".to_owned(),
        (None, _, true) => "the annotation is the policy of this YAML".to_owned(),
    };
    crate::ui::say!("{}: {verdict}", finding.pod);
    if let Some(expected) = &finding.expected {
        let found = finding.found.as_ref();
        let value = |name: &str, found: Option<String>, expected: Option<String>| match expected {
            Some(expected) if found.as_ref() == Some(&expected) => {
                crate::ui::say!("  {name:20} {expected}");
            }
            Some(expected) => {
                let found = found.unwrap_or_else(|| "none".to_owned());
                crate::ui::say!("  {name:20} found {found}, expected {expected}");
            }
            None => {}
        };
        let host_data = |report: &Report| report.host_data.to_string();
        value("HOST_DATA (SEV-SNP)", found.map(host_data), Some(host_data(expected)));
        let tdx = found.and_then(|report| report.tdx_mrconfigid.clone());
        value("MRCONFIGID (TDX)", tdx, expected.tdx_mrconfigid.clone());
    }
    finding.images.iter().for_each(print_image);
    finding.notes.iter().for_each(|note| crate::ui::say!("  note                 {note}"));
    if let Some(diff) = finding.differences.as_ref().filter(|diff| !diff.is_same()) {
        crate::ui::say!("generating again would change:");
        crate::ui::print(format_args!("{diff}"));
    }
}

fn print_image(image: &Image) {
    let words = match (&image.tag, image.pinned) {
        (_, false) => "NOT PINNED to a digest".to_owned(),
        (Tag::None, _) => "pinned".to_owned(),
        (Tag::Same, _) => "pinned, and the tag names it still".to_owned(),
        (Tag::Moved { now }, _) => format!("pinned; the tag names another image by now, {now}"),
        (Tag::NotChecked { why }, _) => format!("pinned; the tag could not be looked up: {why}"),
    };
    crate::ui::say!("  image                {}: {words}", image.image);
}
