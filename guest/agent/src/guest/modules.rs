//! Kernel modules that a pod has to ask for, by its policy; and then no more of them.

use std::fs;
use std::path::{Path, PathBuf};

use ah_agent_api::agent::KernelModule;
use ah_guest_sys::kernel::{ASKED_MODULES, MODULES_DISABLED, Module};

use crate::failure::Failure;

/// What can be asked for, and what is there when the kernel has it, built in or loaded.
const KNOWN: [(&str, &str); 1] = [("sctp", "/proc/sys/net/sctp")];

/// What a request asks for, each once.
///
/// # Errors
/// [`Failure::Denied`] for a name that is not known, one that is there twice, and for parameters.
pub(super) fn asked(
    modules: &[KernelModule],
) -> Result<Vec<(&'static str, &'static str)>, Failure> {
    let mut asked: Vec<(&str, &str)> = Vec::new();
    for module in modules {
        let known = KNOWN.into_iter().find(|(name, _)| *name == module.name);
        match known.filter(|known| module.parameters.is_empty() && !asked.contains(known)) {
            Some(known) => asked.push(known),
            None => {
                return Err(Failure::refused(format!(
                    "kernel_modules: found {:?} with parameters {:?}, expected sctp without any, at most once",
                    module.name, module.parameters
                )));
            }
        }
    }
    Ok(asked)
}

/// Loads what is asked for, and lets the kernel take no more: no container has been made yet. Blocks.
pub(super) fn load(asked: &[(&str, &str)]) -> Result<(), Failure> {
    let folder = Path::new(ASKED_MODULES);
    let failed = |e: std::io::Error| Failure::effect("load modules", &e);
    for (name, sign) in asked {
        if Path::new(sign).exists() {
            continue;
        }
        for file in files(&folder.join(name)).map_err(failed)? {
            let module = Module::open(&file).and_then(|module| module.load());
            module.map_err(|e| Failure::effect("load modules", &e))?;
        }
        if !Path::new(sign).exists() {
            return Err(Failure::NotNow {
                text: format!("the guest's kernel has no module {name:?}"),
            });
        }
    }
    // Where init left none, it has closed the door itself.
    if folder.exists() {
        fs::write(MODULES_DISABLED, "1").map_err(failed)?;
        fs::remove_dir_all(folder).map_err(failed)?;
    }
    Ok(())
}

/// In their order; none where the folder is not there.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_another_module_or_one_with_parameters() {
        let module = |name: &str, parameters: &[&str]| KernelModule {
            name: name.into(),
            parameters: parameters.iter().map(|text| (*text).to_owned()).collect(),
            ..Default::default()
        };
        assert_eq!(asked(&[]).unwrap(), []);
        assert_eq!(asked(&[module("sctp", &[])]).unwrap()[0].0, "sctp");
        for wrong in [
            vec![module("dm_integrity", &[])],
            vec![module("../all/sctp", &[])],
            vec![module("", &[])],
            vec![module("sctp", &["no_checksums=1"])],
            vec![module("sctp", &[]), module("sctp", &[])],
        ] {
            let refused = asked(&wrong);
            assert!(matches!(refused, Err(Failure::Denied { .. })), "{wrong:?}: {refused:?}");
        }
    }

    #[test]
    fn modules_are_loaded_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        assert!(files(&folder.path().join("none")).unwrap().is_empty());
        for name in ["02-c.ko", "00-z.ko", "01-a.ko"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = files(folder.path()).unwrap();
        let names: Vec<_> = found.iter().map(|file| file.file_name().unwrap()).collect();
        assert_eq!(names, ["00-z.ko", "01-a.ko", "02-c.ko"]);
    }
}
