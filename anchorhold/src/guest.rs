//! `anchorhold guest build` and `guest measure`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ah_digest::Sha384;
use ah_guest_image::{BuildOptions, GuestImage, KernelChoice};
use anyhow::{Context, Result};
use serde_json::json;

use crate::cli::{self, Tee};
use crate::dirs::Dirs;
use crate::launches::launches;
use crate::ui::{Stage, failure};

/// The vCPU model whose save area is measured: EPYC, the model that QEMU is asked for on SEV-SNP.
pub(crate) const VCPU_SIG_EPYC: u32 = 0x0080_0f12;
/// SEV_FEATURES of the save area: SEV-SNP active and nothing else.
pub(crate) const SEV_FEATURES_SNP: u64 = 1;

/// Builds the guest image.
pub(crate) fn build(dirs: &Dirs, options: &cli::GuestBuild) -> Result<()> {
    let kernel = match options.kernel.as_str() {
        "debian" => KernelChoice::Debian,
        file => KernelChoice::File(file.into()),
    };
    let stage = Stage::begin("guest image");
    let image = ah_guest_image::build(&BuildOptions {
        init: options.init.clone(),
        agent: options.agent.clone(),
        out: options.out.clone().unwrap_or_else(|| dirs.guest()),
        cache: options.kernel_cache.clone().unwrap_or_else(|| dirs.kernel()),
        kernel,
    })?;
    stage.end(image.folder.display());
    if options.json {
        crate::ui::say!("{}", serde_json::to_string(&image.manifest)?);
    }
    Ok(())
}

/// Prints the launch measurement, a line a firmware.
pub(crate) fn measure(
    dirs: &Dirs,
    guest: Option<&Path>,
    vcpus: u32,
    tee: Tee,
    as_json: bool,
) -> Result<()> {
    let image = load(dirs, guest)?;
    let tee = tee_of(tee)?;
    let launches = launches(&image, &BTreeSet::from([vcpus]), tee)?;
    if as_json {
        let tee = serde_json::to_value(tee)?;
        let first = launches.first().map(|launch| launch.measurement);
        crate::ui::say!(
            "{}",
            json!({ "measurement": first, "vcpus": vcpus, "tee": tee, "launches": launches })
        );
        return Ok(());
    }
    for launch in launches {
        crate::ui::say!("{}  {}", launch.measurement, launch.firmware.display());
    }
    Ok(())
}

/// Reads the guest image and checks it against its manifest.
pub fn load(dirs: &Dirs, guest: Option<&Path>) -> Result<GuestImage> {
    let folder = guest.map_or_else(|| dirs.guest(), Path::to_path_buf);
    if !folder.join("manifest.json").is_file() {
        return Err(failure(
            format!("there is no guest image in {}", folder.display()),
            "`anchorhold guest build` makes one, `cargo xtask setup` does so from a checkout; --guest names another folder",
        ));
    }
    GuestImage::load(&folder).with_context(|| format!("guest image {}", folder.display()))
}

/// The launch measurement that a report of this image carries when `anchorhold run` starts it on a machine as this one.
pub fn measurement(image: &GuestImage, vcpus: u32, tee: ah_evidence::Tee) -> Result<Sha384> {
    let all = launches(image, &BTreeSet::from([vcpus]), tee)?;
    let first = all.first().context("no way to start a guest is known")?;
    Ok(first.measurement)
}

/// What the software TEE measures: the very bytes that QEMU is given.
pub fn launch_inputs<'a>(
    firmware: &'a [u8],
    kernel: &'a [u8],
    initrd: &'a [u8],
    cmdline: &'a str,
    vcpus: u32,
) -> ah_launch::LaunchInputs<'a> {
    ah_launch::LaunchInputs {
        firmware,
        kernel,
        initrd,
        cmdline,
        vcpus,
        vcpu_sig: VCPU_SIG_EPYC,
        sev_features: SEV_FEATURES_SNP,
    }
}

/// The firmware that QEMU is given.
pub fn firmware(tee: ah_evidence::Tee) -> Result<PathBuf> {
    use ah_evidence::Tee;
    match tee {
        Tee::Software => Ok(ah_vmm::firmware::find()?),
        Tee::Snp => ah_vmm::firmware::find_snp().map_err(|error| {
            failure(error, "it comes with the firmware packages of a host that starts SEV-SNP guests; --tee software needs none")
        }),
        Tee::Tdx => Err(failure("there is no launch measurement for tee tdx in this version", TRY_SOFTWARE)),
    }
}

/// What to do where there is no TEE.
pub(crate) const TRY_SOFTWARE: &str = "--tee software runs the same without confidentiality";

/// The TEE by name; `auto` is for `run` only, where there is a machine to look at.
pub(crate) fn tee_of(tee: Tee) -> Result<ah_evidence::Tee> {
    match tee {
        Tee::Software => Ok(ah_evidence::Tee::Software),
        Tee::Snp => Ok(ah_evidence::Tee::Snp),
        Tee::Tdx => Ok(ah_evidence::Tee::Tdx),
        Tee::Auto => Err(failure(
            "the tee must be named here",
            "--tee snp, or --tee software for a run without confidentiality",
        )),
    }
}
