//! From YAML and images to what an owner signs off and a host runs.

use std::collections::BTreeMap;
use std::path::Path;

use ah_manifest::{Edits, Manifest, Platform, PodTemplate, RUNS_ON_ANNOTATION, ReadOptions, Rules};
use ah_pod::Pod;
use ah_policy::{
    FRAGMENT_ANNOTATION, InitData, KeyService, PolicyDocument, ServiceAddress, ServicePublicKey,
    fragments_from_annotation,
};
use ah_policygen::Options;
use anyhow::{Context, Result};

use crate::cli::Source;
use crate::dirs::Dirs;
use crate::inputs;
use crate::keys::{self, Accept};
use crate::resolve::{self, Need};
use crate::ui::failure;

/// Annotation that carries the initdata document (agent policy convention, section 2.1).
const INITDATA_ANNOTATION: &str = ah_policy::INITDATA_ANNOTATION;
/// Annotation that carries the policy text alone, as older AKS clusters have it.
const AKS_ANNOTATION: &str = ah_policy::AKS_ANNOTATION;
/// Where the guest finds the key service of `anchorhold run`: at its host.
pub(crate) const KEY_SERVICE: ServiceAddress =
    ServiceAddress::Vsock { cid: 2, port: ah_agent_api::ports::KEY_RELEASE };

/// A pod that can be run: every image resolved, every layer converted, its policy at hand.
pub struct Prepared {
    /// The pod after Kubernetes' defaults.
    pub pod: Pod,
    /// The policy document that the YAML carries, or that was generated for it.
    pub document: PolicyDocument,
    /// The same as initdata; the AKS form has none.
    pub initdata: Option<InitData>,
    /// Fragments of the policy that the YAML carries.
    pub fragments: Vec<String>,
    /// A block image for each layer, each root hash once.
    pub layers: Vec<ah_sandbox::LayerImage>,
    /// The YAML with tags pinned and the annotation added.
    pub yaml: String,
}

/// The one pod of a file.
pub(crate) fn the_pod(manifest: &Manifest) -> Result<&PodTemplate> {
    match manifest.pods() {
        [pod] => Ok(pod),
        pods => Err(failure(
            format!("the file has {} pods, expected one", pods.len()),
            "give each pod a file of its own",
        )),
    }
}

/// For a run: the policy of the YAML's annotation, as a cluster would take it, or else a generated one.
pub async fn prepare(dirs: &Dirs, source: &Source) -> Result<Prepared> {
    let facts = Facts::read(dirs, source).await?;
    let annotations = the_pod(&facts.manifest)?.annotations();
    if !has_policy(annotations) {
        return facts.generate(key_service(dirs).await?);
    }
    let document =
        PolicyDocument::from_annotations(annotations).context("policy annotation of the pod")?;
    let yaml = facts.manifest.text().to_owned();
    Ok(facts.with(document, yaml))
}

fn has_policy(annotations: &BTreeMap<String, String>) -> bool {
    [INITDATA_ANNOTATION, AKS_ANNOTATION].iter().any(|name| annotations.contains_key(*name))
}

/// A pod without a policy is run as one of this machine. One with a policy is read as the policy was made: for a cluster, unless
/// its annotation says otherwise; this machine then plays the cluster, without an API behind its address and its token.
fn read(file: &Path) -> Result<(Manifest, Platform)> {
    let text = inputs::text(file)?;
    let carriers = ah_manifest::carriers(text.clone(), &Rules::shipped());
    let carriers = carriers.map_err(crate::manifest_error)?;
    let platform = match carriers.iter().any(|carrier| has_policy(&carrier.annotations)) {
        true => Platform::Cluster,
        false => Platform::OneMachine,
    };
    let options = ReadOptions { platform, ..ReadOptions::default() };
    let manifest = ah_manifest::read_one(text, &options).map_err(crate::manifest_error)?;
    Ok((manifest, platform))
}

/// The local key service as guests know it; made on first use, since what names it comes before any key.
pub(crate) async fn key_service(dirs: &Dirs) -> Result<KeyService> {
    let service = keys::open(dirs, Accept::Hardware, None).await?;
    let public_key = ServicePublicKey(*service.identity().as_bytes());
    service.close().await;
    Ok(KeyService { address: KEY_SERVICE, public_key })
}

/// What is known before there is a policy.
struct Facts {
    manifest: Manifest,
    /// What the pod was read for.
    platform: Platform,
    pinned: BTreeMap<String, String>,
    pod: Pod,
    fragments: Vec<String>,
    layers: Vec<ah_sandbox::LayerImage>,
}

impl Facts {
    async fn read(dirs: &Dirs, source: &Source) -> Result<Self> {
        let own = ah_registry::Platform::default();
        if let Some(other) = source.images.platform.iter().find(|platform| **platform != own) {
            return Err(failure(
                format!("--platform {other}: the VM of this machine runs {own}"),
                "leave --platform out",
            ));
        }
        let (manifest, platform) = read(&source.file)?;
        let platform = the_pod(&manifest)?.runs_on().unwrap_or(platform);
        let images =
            resolve::resolve(dirs, &source.images, manifest.images(), Need::Layers).await?;
        let pod = manifest.pod(&images.facts).map_err(crate::manifest_error)?;
        let carried = the_pod(&manifest)?.annotations().get(FRAGMENT_ANNOTATION);
        let fragments = carried.map(|value| fragments_from_annotation(value)).transpose()?;
        let fragments = fragments.unwrap_or_default();
        Ok(Self {
            manifest,
            platform,
            pinned: images.pinned,
            pod,
            fragments,
            layers: images.layers,
        })
    }

    fn generate(self, key_service: KeyService) -> Result<Prepared> {
        let options = Options { key_service: Some(key_service), ..Options::default() };
        let generated = ah_policygen::generate(&self.pod, &options)?;
        // the YAML with its policy says for what the pod was read, so that it is read alike again
        let annotations = [
            (INITDATA_ANNOTATION.to_owned(), generated.initdata.to_annotation()),
            (RUNS_ON_ANNOTATION.to_owned(), self.platform.word().to_owned()),
        ];
        let annotations = BTreeMap::from([(0, BTreeMap::from(annotations))]);
        let edits = Edits { images: self.pinned.clone(), annotations };
        let yaml = self.manifest.edited(&edits).map_err(crate::manifest_error)?;
        Ok(self.with(PolicyDocument::InitData(generated.initdata), yaml))
    }

    fn with(self, document: PolicyDocument, yaml: String) -> Prepared {
        let initdata = match &document {
            PolicyDocument::InitData(initdata) => Some(initdata.clone()),
            PolicyDocument::Aks(_) => None,
        };
        let (pod, fragments, layers) = (self.pod, self.fragments, self.layers);
        Prepared { pod, document, initdata, fragments, layers, yaml }
    }
}
