//! Kernel modules: those of the image's list. Those that only some pods need are left to the agent, which closes the door behind them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::{self, JoinHandle};

use ah_guest_sys::SysError;
use ah_guest_sys::kernel::{ASKED_MODULES, MODULES_DISABLED, Module};
use ah_scratch::Candidate;
use ah_tee::Tee;

use crate::InitError;
use crate::root::{MODULES, NEW_ROOT};

const LIST: &str = "list";
const BLOCK_DEVICES: &str = "/sys/block";

/// Group of the modules that only a scratch disk needs.
const SCRATCH: &str = "scratch";
/// Groups that a pod has to ask for.
const ASKED: [&str; 1] = ["sctp"];

/// Modules on their way into the kernel, one thread for each chain, and those that are loaded behind them or not at all.
#[derive(Debug)]
pub(crate) struct Loading {
    chains: Vec<JoinHandle<Result<(), SysError>>>,
    scratch: Vec<Module>,
    /// Whether modules are left for the agent.
    asked: bool,
}

/// Starts to load the modules of the list that are for every TEE or for `tee`: within a chain in the list's order, chains at the same time.
///
/// When this returns, all files are open, and those that a pod has to ask for are in the new root.
pub(crate) fn start(tee: Tee) -> Result<Loading, InitError> {
    let list = Path::new(MODULES).join(LIST);
    let text = fs::read_to_string(&list).map_err(InitError::file("read", &list))?;
    let mut chains: BTreeMap<String, Vec<Module>> = BTreeMap::new();
    let open = |name: &str| Module::open(&Path::new(MODULES).join(format!("{name}.ko")));
    for (chain, name) in chosen(&text, &["all", tee.name()])? {
        chains.entry(chain.to_owned()).or_default().push(open(name)?);
    }
    let scratch = chosen(&text, &[SCRATCH])?;
    let scratch = scratch.iter().map(|(_, name)| open(name)).collect::<Result<_, _>>()?;
    let asked = leave_asked(&text)?;
    let load =
        |modules: Vec<Module>| thread::spawn(move || modules.iter().try_for_each(Module::load));
    Ok(Loading { chains: chains.into_values().map(load).collect(), scratch, asked })
}

impl Loading {
    /// Waits for all of them, and lets the kernel take no more, unless some are left to the agent. Gives the scratch disk, if there is one: without it,
    /// its modules are not loaded.
    pub(crate) fn finish(self) -> Result<Option<Candidate>, InitError> {
        for chain in self.chains {
            chain.join().map_err(|_| InitError::ModuleThread)??;
        }
        let disk = ah_scratch::find(Path::new(BLOCK_DEVICES));
        if disk.is_some() {
            self.scratch.iter().try_for_each(Module::load)?;
        }
        // A kernel with everything built in may have no module support at all.
        let disable = Path::new(MODULES_DISABLED);
        if !self.asked && disable.exists() {
            fs::write(disable, "1").map_err(InitError::file("write", disable))?;
        }
        Ok(disk)
    }
}

/// Puts the modules that a pod has to ask for where the agent finds them: a folder for each group, its files named by their order.
fn leave_asked(list: &str) -> Result<bool, InitError> {
    let mut asked = false;
    for group in ASKED {
        let to = Path::new(NEW_ROOT).join(ASKED_MODULES.trim_start_matches('/'));
        let to = to.join(group);
        for (order, (_, name)) in chosen(list, &[group])?.into_iter().enumerate() {
            fs::create_dir_all(&to).map_err(InitError::file("make", &to))?;
            let from = Path::new(MODULES).join(format!("{name}.ko"));
            let file = to.join(format!("{order:02}-{name}.ko"));
            fs::copy(&from, &file).map_err(InitError::file("copy", &from))?;
            asked = true;
        }
    }
    Ok(asked)
}

/// Chain and name of each module of these groups.
fn chosen<'a>(list: &'a str, groups: &[&str]) -> Result<Vec<(&'a str, &'a str)>, InitError> {
    let mut modules = Vec::new();
    for line in list.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(group), Some(chain), Some(name), None) => {
                if groups.contains(&group) {
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
        let list =
            "all 0 vsock\nall 1 erofs\nsnp 2 sev_guest\ntdx 3 tdx_guest\nscratch 1 dm_crypt\n";
        let names = |groups: &[&str]| {
            chosen(list, groups).unwrap().iter().map(|(_, name)| *name).collect::<Vec<_>>()
        };
        assert_eq!(names(&["all", Tee::Software.name()]), ["vsock", "erofs"]);
        assert_eq!(names(&["all", Tee::Snp.name()]), ["vsock", "erofs", "sev_guest"]);
        assert_eq!(names(&[SCRATCH]), ["dm_crypt"]);
        assert!(matches!(chosen("all vsock", &["all"]), Err(InitError::ModuleList(_))));
        assert!(matches!(chosen("all 0 vsock x", &["all"]), Err(InitError::ModuleList(_))));
    }
}
