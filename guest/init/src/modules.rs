//! Kernel modules: those of the image's list, and then no more of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::{self, JoinHandle};

use ah_guest_sys::SysError;
use ah_guest_sys::kernel::Module;
use ah_tee::Tee;

use crate::InitError;
use crate::root::MODULES;

const LIST: &str = "list";
/// Writing 1 here ends the loading of modules until the next boot.
const DISABLE: &str = "/proc/sys/kernel/modules_disabled";

/// Modules on their way into the kernel, one thread for each chain.
#[derive(Debug)]
pub(crate) struct Loading(Vec<JoinHandle<Result<(), SysError>>>);

/// Starts to load the modules of the list that are for every TEE or for `tee`: within a chain in the list's order, chains at the same time.
///
/// When this returns, all files are open.
pub(crate) fn start(tee: Tee) -> Result<Loading, InitError> {
    let list = Path::new(MODULES).join(LIST);
    let text = fs::read_to_string(&list).map_err(InitError::file("read", &list))?;
    let mut chains: BTreeMap<String, Vec<Module>> = BTreeMap::new();
    for (chain, name) in chosen(&text, tee)? {
        let module = Module::open(&Path::new(MODULES).join(format!("{name}.ko")))?;
        chains.entry(chain.to_owned()).or_default().push(module);
    }
    let load =
        |modules: Vec<Module>| thread::spawn(move || modules.iter().try_for_each(Module::load));
    Ok(Loading(chains.into_values().map(load).collect()))
}

impl Loading {
    /// Waits for all of them, and lets the kernel take no more.
    pub(crate) fn finish(self) -> Result<(), InitError> {
        for chain in self.0 {
            chain.join().map_err(|_| InitError::ModuleThread)??;
        }
        // A kernel with everything built in may have no module support at all.
        let disable = Path::new(DISABLE);
        if disable.exists() {
            fs::write(disable, "1").map_err(InitError::file("write", disable))?;
        }
        Ok(())
    }
}

/// Chain and name of each module to load.
fn chosen(list: &str, tee: Tee) -> Result<Vec<(&str, &str)>, InitError> {
    let mut modules = Vec::new();
    for line in list.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(group), Some(chain), Some(name), None) => {
                if group == "all" || group == tee.name() {
                    modules.push((chain, name));
                }
            }
            _ => return Err(InitError::ModuleList(line.to_owned())),
        }
    }
    Ok(modules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_for_every_tee_and_for_this_one_are_chosen() {
        let list = "all 0 vsock\nall 1 erofs\nsnp 2 sev_guest\ntdx 3 tdx_guest\n";
        let names =
            |tee| chosen(list, tee).unwrap().iter().map(|(_, name)| *name).collect::<Vec<_>>();
        assert_eq!(names(Tee::Software), ["vsock", "erofs"]);
        assert_eq!(names(Tee::Snp), ["vsock", "erofs", "sev_guest"]);
        assert!(matches!(chosen("all vsock", Tee::Snp), Err(InitError::ModuleList(_))));
        assert!(matches!(chosen("all 0 vsock x", Tee::Snp), Err(InitError::ModuleList(_))));
    }
}
