//! `anchorhold policy fragment`: containers signed for other owners' pods.

use std::path::{Path, PathBuf};

use ah_grant::{FragmentContainer, SignedFragment};
use ah_policy::fragment_to_annotation;
use ah_policygen::{FragmentMakeError, make_fragment};
use anyhow::{Context, Result};

use crate::cli::fragment::{Fragment, Make};
use crate::dirs::Dirs;
use crate::keys::read_text;
use crate::policy::{generate, output};
use crate::resolve::{self, Need};
use crate::ui::failure;
use crate::{inputs, owner_key};

pub(crate) fn run(dirs: &Dirs, command: &Fragment) -> Result<()> {
    match command {
        Fragment::Make(options) => crate::wait(make(dirs, options)),
        Fragment::Show { file, annotation } => show(file, *annotation),
    }
}

async fn make(dirs: &Dirs, options: &Make) -> Result<()> {
    if options.images.platform.len() > 1 {
        return Err(failure(
            format!("--platform: found {} platforms, expected one", options.images.platform.len()),
            "a fragment names the layers of one platform: make one for each, with a feed or a version of its own",
        ));
    }
    let key = owner_key::read(&options.key)?;
    let reading = inputs::options(&options.reading, options.runs_on.into())?;
    let files: Vec<PathBuf> = vec![options.file.clone()];
    let inputs = inputs::read(&files, &options.reading.with, &reading)?;
    let pods: Vec<_> = inputs
        .iter()
        .flat_map(|file| file.manifest.pods().iter().map(move |pod| (file, pod)))
        .collect();
    let [(file, template)] = pods.as_slice() else {
        return Err(failure(
            format!("{} has {} pods, expected one", options.file.display(), pods.len()),
            "give each fragment's pod a file of its own",
        ));
    };
    let names = template.images().map(str::to_owned).collect();
    let images = resolve::resolve(dirs, &options.images, names, Need::Facts).await?;
    let pod = file.manifest.to_pod(template, &images.facts).map_err(crate::manifest_error)?;
    let fragment = make_fragment(&pod, &options.feed, options.version).map_err(refused)?;
    let text = fragment.sign(&key)?;
    output::write(&options.output, text.as_bytes())?;
    generate::written(&options.output);
    eprintln!(
        "owners let it in by anchorhold.dev/fragments: issuer=NAME key={} feed={} min-version={}",
        key.public(),
        options.feed,
        options.version
    );
    Ok(())
}

fn refused(error: FragmentMakeError) -> anyhow::Error {
    match &error {
        FragmentMakeError::Beyond { .. } => failure(
            error,
            "leave it out: a fragment has image, command, environment, user and capabilities of containers",
        ),
        _ => error.into(),
    }
}

fn show(file: &Path, annotation: bool) -> Result<()> {
    let text = read_text(file)?;
    let fragment = SignedFragment::of(&text)
        .and_then(|signed| signed.unverified())
        .with_context(|| file.display().to_string())?;
    if annotation {
        crate::ui::say!("{}", fragment_to_annotation(&text));
        return Ok(());
    }
    crate::ui::say!("feed {}, version {}", fragment.feed, fragment.version);
    fragment.containers.iter().for_each(container);
    crate::ui::say!("who signed it is for each policy to say that lets it in");
    Ok(())
}

fn container(container: &FragmentContainer) {
    crate::ui::say!("container {}", container.name);
    crate::ui::say!("  image        {}", container.image);
    crate::ui::say!("  command      {:?}", container.args);
    crate::ui::say!("  in           {} as {}", container.cwd, container.user);
    for entry in &container.env {
        crate::ui::say!("  env          {entry:?}");
    }
    crate::ui::say!("  capabilities {}", container.capabilities);
}
