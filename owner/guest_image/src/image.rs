use std::fs;
use std::path::{Path, PathBuf};

use ah_evidence::Tee;

use crate::cpio::Archive;
use crate::manifest::Format;
use crate::modules::Module;
use crate::{ImageError, KernelOrigin, Manifest, ModulePart, Part, debian, modules};

/// The TEEs for which an image has a command line.
const TEES: [Tee; 3] = [Tee::Software, Tee::Snp, Tee::Tdx];

/// Where the kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelChoice {
    /// The newest cloud kernel that apt knows, with its modules.
    Debian,
    /// A bzImage with everything built in; no modules go into the image.
    File(PathBuf),
}

/// What an image is made of.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The static `anchorhold-init`.
    pub init: PathBuf,
    /// The static `anchorhold-agent`.
    pub agent: PathBuf,
    /// Folder for the image; made when missing, files in it are replaced.
    pub out: PathBuf,
    /// Folder where downloads and unpacked packages are kept.
    pub cache: PathBuf,
    /// Where the kernel comes from.
    pub kernel: KernelChoice,
}

/// A built image: a folder with its manifest read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestImage {
    /// The kernel file.
    pub kernel: PathBuf,
    /// The initrd file.
    pub initrd: PathBuf,
    /// The folder.
    pub folder: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
}

/// The command line for `tee`: the one that is measured. Every host passes exactly this text.
///
/// Why each word is there (Linux Documentation/admin-guide/kernel-parameters.txt):
///
/// | word | reason |
/// |---|---|
/// | `console=ttyS0 quiet` | errors only, on the port that the host reads |
/// | `panic=-1` | a panic resets at once, and QEMU's `-no-reboot` makes that an exit: no guest hangs |
/// | `random.trust_cpu=on random.trust_bootloader=off` | only the CPU seeds the random generator; the boot loader's seed is the host's |
/// | `no_timer_check` | the test waits for timer ticks and fails on a busy host that emulates; under a hypervisor Linux leaves it out anyway |
/// | `cryptomgr.notests` | self-tests of every cipher take a third of the boot under TCG; they look for broken drivers, of which there are none here |
/// | `anchorhold.tee` | where reports come from, see the guest's init |
pub fn command_line(tee: Tee) -> String {
    let kernel = "console=ttyS0 quiet panic=-1 no_timer_check cryptomgr.notests";
    let random = "random.trust_cpu=on random.trust_bootloader=off";
    format!("{kernel} {random} anchorhold.tee={}", tee_name(tee))
}

/// The name of `tee` on the command line and in file names.
fn tee_name(tee: Tee) -> &'static str {
    match tee {
        Tee::Software => "software",
        Tee::Snp => "snp",
        Tee::Tdx => "tdx",
    }
}

/// Builds an image.
///
/// # Errors
/// [`ImageError`]; what is in the out folder is then of no use.
pub fn build(options: &BuildOptions) -> Result<GuestImage, ImageError> {
    let (origin, kernel, modules) = kernel(&options.kernel, &options.cache)?;
    let (init, agent) = (read(&options.init)?, read(&options.agent)?);
    let manifest_of = |initrd: &[u8]| Manifest {
        format: Format,
        kernel_origin: origin,
        kernel: Part::of(&kernel),
        initrd: Part::of(initrd),
        init: Part::of(&init),
        agent: Part::of(&agent),
        modules: modules.iter().map(module_part).collect(),
    };
    let initrd = initrd(&init, &agent, &modules)?;
    let manifest = manifest_of(&initrd);
    let out = &options.out;
    fs::create_dir_all(out).map_err(ImageError::file("make", out))?;
    write(&out.join("vmlinuz"), &kernel)?;
    write(&out.join("initrd"), &initrd)?;
    for tee in TEES {
        write(&out.join(format!("cmdline.{}", tee_name(tee))), command_line(tee).as_bytes())?;
    }
    let mut json = serde_json::to_vec_pretty(&manifest)
        .map_err(|source| ImageError::Manifest { path: out.join("manifest.json"), source })?;
    json.push(b'\n');
    write(&out.join("manifest.json"), &json)?;
    Ok(GuestImage::at(out, manifest))
}

impl GuestImage {
    /// Reads the image in `folder` and checks the kernel and the initrd against its manifest.
    ///
    /// # Errors
    /// A file is missing, is no manifest, or has another digest than the manifest says.
    pub fn load(folder: &Path) -> Result<Self, ImageError> {
        let path = folder.join("manifest.json");
        let manifest: Manifest = serde_json::from_slice(&read(&path)?)
            .map_err(|source| ImageError::Manifest { path, source })?;
        let image = Self::at(folder, manifest);
        for (path, part) in
            [(&image.kernel, &image.manifest.kernel), (&image.initrd, &image.manifest.initrd)]
        {
            let found = Part::of(&read(path)?).sha256;
            if found != part.sha256 {
                return Err(ImageError::Digest {
                    path: path.clone(),
                    found,
                    expected: part.sha256,
                });
            }
        }
        Ok(image)
    }

    /// The command line for `tee`, as the image's `cmdline.<tee>` file has it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn command_line(&self, tee: Tee) -> Result<String, ImageError> {
        let path = self.folder.join(format!("cmdline.{}", tee_name(tee)));
        fs::read_to_string(&path).map_err(ImageError::file("read", &path))
    }

    fn at(folder: &Path, manifest: Manifest) -> Self {
        let (kernel, initrd) = (folder.join("vmlinuz"), folder.join("initrd"));
        Self { kernel, initrd, folder: folder.to_owned(), manifest }
    }
}

/// An initrd that holds one static program as `/init` and nothing else: the yardstick for boot times. Never part of an image.
///
/// # Errors
/// The program cannot be read.
pub fn reference_initrd(program: &Path) -> Result<Vec<u8>, ImageError> {
    let mut archive = Archive::default();
    archive.file("init", 0o755, read(program)?);
    archive.finish()
}

type Kernel = (KernelOrigin, Vec<u8>, Vec<Module>);

fn kernel(choice: &KernelChoice, cache: &Path) -> Result<Kernel, ImageError> {
    match choice {
        KernelChoice::File(path) => Ok((KernelOrigin::File, read(path)?, Vec::new())),
        KernelChoice::Debian => {
            let found = debian::fetch(cache)?;
            let kernel =
                read(&found.folder.join("boot").join(format!("vmlinuz-{}", found.release)))?;
            let modules = modules::collect(&found.folder, &found.release)?;
            let origin = KernelOrigin::Debian {
                package: found.package,
                version: found.version,
                package_sha256: found.sha256,
                release: found.release,
            };
            Ok((origin, kernel, modules))
        }
    }
}

/// Lays out what init expects: itself, the agent, `/lib/modules/list` with a line `<group> <chain> <name>` for each module in load order, and
/// the modules as `/lib/modules/<name>.ko`.
fn initrd(init: &[u8], agent: &[u8], modules: &[Module]) -> Result<Vec<u8>, ImageError> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "run"] {
        archive.folder(folder);
    }
    archive.file("init", 0o755, init.to_vec());
    archive.file("bin/anchorhold-agent", 0o755, agent.to_vec());
    let mut list = String::new();
    for module in modules {
        list.push_str(&format!("{} {} {}\n", module.group, module.chain, module.name));
        archive.file(&format!("lib/modules/{}.ko", module.name), 0o644, module.bytes.clone());
    }
    archive.file("lib/modules/list", 0o644, list.into_bytes());
    archive.finish()
}

fn module_part(module: &Module) -> ModulePart {
    let Part { sha256, bytes } = Part::of(&module.bytes);
    ModulePart {
        name: module.name.clone(),
        group: module.group.to_owned(),
        chain: module.chain,
        sha256,
        bytes,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    fs::read(path).map_err(ImageError::file("read", path))
}

/// Beside it first and then renamed: a file that is linked elsewhere too, or that a machine boots from just now, keeps its bytes.
fn write(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let mut making = path.as_os_str().to_owned();
    making.push(".making");
    let making = PathBuf::from(making);
    fs::write(&making, bytes).map_err(ImageError::file("write", &making))?;
    fs::rename(&making, path).map_err(ImageError::file("replace", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_keeps_its_bytes_where_it_is_linked() {
        let folder = tempfile::tempdir().unwrap();
        let (image, link) = (folder.path().join("initrd"), folder.path().join("link"));
        write(&image, b"old").unwrap();
        fs::hard_link(&image, &link).unwrap();
        write(&image, b"new").unwrap();
        assert_eq!(
            (fs::read(&image).unwrap(), fs::read(&link).unwrap()),
            (b"new".into(), b"old".into())
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
