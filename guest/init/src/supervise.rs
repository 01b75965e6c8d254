//! The agent as a child: started with what was checked, reaped with everything that its containers leave behind.

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;

use ah_guest_sys::process::{self, WaitStatus};
use ah_scratch::Candidate;

use crate::InitError;
use crate::binding::{Form, Policy};
use crate::command_line::CommandLine;
use crate::root::AGENT;

const FOLDER: &str = "/run/anchorhold";
const INITDATA: &str = "/run/anchorhold/initdata.toml";

/// How the agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With this exit status; 0 after the sandbox was destroyed.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl Ending {
    /// True when the agent was asked to end.
    pub fn is_clean(self) -> bool {
        self == Self::Exit(0)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(status) => write!(f, "the agent ended with status {status}"),
            Self::Signal(signal) => write!(f, "the agent was ended by signal {signal}"),
        }
    }
}

/// Starts the agent and reaps until it ends.
pub(crate) fn run_agent(
    command_line: &CommandLine,
    policy: &Policy<'_>,
    scratch: Option<&Candidate>,
) -> Result<Ending, InitError> {
    write_initdata(policy)?;
    let agent = Path::new(AGENT);
    // Not waited for through std: as PID 1 this process is the parent of every orphan, and one wait has to serve all.
    let child = Command::new(agent)
        .args(arguments(command_line, policy, scratch))
        .env_clear()
        .current_dir("/")
        .spawn()
        .map_err(InitError::file("start", agent))?;
    loop {
        match process::reap()? {
            Some((pid, status)) if u32::try_from(pid.as_raw_nonzero().get()) == Ok(child.id()) => {
                return Ok(ending(status));
            }
            Some(_) => {}
            // The agent is a child until it is reaped, so this cannot be; should it, the agent is gone.
            None => return Ok(Ending::Exit(-1)),
        }
    }
}

/// The very bytes that were compared, in a folder that no container sees.
fn write_initdata(policy: &Policy<'_>) -> Result<(), InitError> {
    let Form::InitData(document) = policy.form() else { return Ok(()) };
    let (folder, file) = (Path::new(FOLDER), Path::new(INITDATA));
    fs::DirBuilder::new().mode(0o700).create(folder).map_err(InitError::file("make", folder))?;
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut file| file.write_all(document.bytes()))
        .map_err(InitError::file("write", file))
}

/// The agent's command line (`ah_agent::cli`).
fn arguments(
    command_line: &CommandLine,
    policy: &Policy<'_>,
    scratch: Option<&Candidate>,
) -> Vec<String> {
    let CommandLine { tee, log, confidential: _ } = command_line;
    let (option, value) = match policy.form() {
        Form::InitData(_) => ("--initdata", INITDATA.to_owned()),
        Form::Aks(digest) => ("--host-data", digest.to_string()),
    };
    let mut words = vec!["serve", "--tee", tee.name(), "--log", log.name(), option, &value];
    if let Some(disk) = scratch {
        words.extend(["--scratch", &disk.name]);
    }
    words.into_iter().map(str::to_owned).collect()
}

fn ending(status: WaitStatus) -> Ending {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Exit(code),
        (None, signal) => Ending::Signal(signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binding::{self, Bound};
    use ah_digest::Sha256;
    use ah_policy::InitData;
    use std::collections::BTreeMap;

    fn check(bound: &Bound, initdata: Option<&InitData>, scratch: Option<&str>, expect: &str) {
        let scratch = scratch.map(|name| Candidate { name: name.into() });
        let command_line = "anchorhold.tee=software anchorhold.log=info".parse().unwrap();
        let policy = binding::check(bound, initdata).unwrap();
        assert_eq!(arguments(&command_line, &policy, scratch.as_ref()).join(" "), expect);
    }

    #[test]
    fn the_agent_is_told_where_its_policy_comes_from() {
        let document = InitData::build("package agent_policy", &BTreeMap::new()).unwrap();
        check(
            &Bound(document.host_data_snp().unwrap()),
            Some(&document),
            None,
            "serve --tee software --log info --initdata /run/anchorhold/initdata.toml",
        );
        let digest = Sha256::of("package agent_policy");
        check(
            &Bound(digest),
            None,
            Some("vdb"),
            &format!("serve --tee software --log info --host-data {digest} --scratch vdb"),
        );
    }
}
