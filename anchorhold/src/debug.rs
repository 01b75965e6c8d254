//! `anchorhold debug`: keys and grants of debug sessions.

use ah_digest::Sha256;
use ah_grant::{Command, DEBUG_WORD, DebugGrant, OwnerKey};
use ah_policy::PolicyDocument;
use anyhow::Result;

use crate::cli::{Debug, DebugGrantOptions};
use crate::owner_key;
use crate::policy::the_document;
use crate::ui::{self, failure};

pub(crate) fn run(command: &Debug) -> Result<()> {
    match command {
        Debug::KeyGen(options) => {
            let key = owner_key::generate(&options.output)?;
            crate::ui::say!("{key}");
            ui::print_hint(&format!(
                "anchorhold.dev/debug-key: {key} in a pod's annotations lets the key's holder run commands in it; \
                 {} is that key: whoever can read it is that holder",
                options.output.display()
            ));
            Ok(())
        }
        Debug::Grant(options) => grant(options),
    }
}

fn grant(options: &DebugGrantOptions) -> Result<()> {
    let key = owner_key::read(&options.key)?;
    let (policy, container) = place(options, &key.public())?;
    let command = match options.any_command {
        true => Command::Any,
        false => Command::Exact(options.command.clone()),
    };
    let grant = DebugGrant {
        challenge: options.challenge,
        policy,
        container,
        command,
        stdin: options.stdin,
        terminal: options.tty,
        seconds: options.seconds,
    };
    let token = grant.sign(&key)?;
    crate::ui::say!("{token}");
    tell(&grant);
    Ok(())
}

/// What was signed, in words.
fn tell(grant: &DebugGrant) {
    let what = match &grant.command {
        Command::Exact(words) => format!("{words:?}, once"),
        Command::Any => "any command".to_owned(),
    };
    let of = match (grant.stdin, grant.terminal) {
        (true, true) => ", with input and a terminal",
        (true, false) => ", with input",
        (false, true) => ", with a terminal",
        (false, false) => "",
    };
    eprintln!("grants {what} in {} for {} s{of}", grant.container, grant.seconds);
    eprintln!("warning: what goes in and out of it passes through the host, which can read it");
    if grant.stdin {
        eprintln!("warning: the host can also write into its input");
    }
    if grant.command == Command::Any {
        eprintln!(
            "warning: the host sees the token, and can run commands of its own with it until the time is over"
        );
    }
    let words = match &grant.command {
        Command::Exact(words) => {
            shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
        }
        Command::Any => "COMMAND".to_owned(),
    };
    let flags = match (grant.stdin, grant.terminal) {
        (true, true) => "-it ",
        (true, false) => "-i ",
        (false, true) => "-t ",
        (false, false) => "",
    };
    ui::print_hint(&format!(
        "kubectl exec {flags}POD -c {} -- {DEBUG_WORD} TOKEN {words}",
        grant.container
    ));
}

/// The policy's digest and the container, checked against the policy where it is at hand.
fn place(options: &DebugGrantOptions, key: &OwnerKey) -> Result<(Sha256, String)> {
    let file = match (&options.policy, &options.host_data, &options.container) {
        (Some(file), ..) => file,
        (None, Some(digest), Some(container)) => return Ok((*digest, container.clone())),
        (None, ..) => {
            return Err(failure(
                "no policy is named",
                "--policy FILE, or --host-data and --container",
            ));
        }
    };
    let document = the_document(file, options.pod.as_deref(), &options.kinds)?;
    let shown = ah_policygen::show(document.policy())?;
    match &shown.debug_key {
        Some(named) if *named == key.to_string() => {}
        Some(named) => {
            return Err(failure(
                format!("the policy's debug key is {named}, this one's public half is {key}"),
                "--key with the private key of the policy's debug key",
            ));
        }
        None => {
            return Err(failure(
                "the policy has no debug key, so no grant is good for it",
                "annotation anchorhold.dev/debug-key before `policy generate`: it is another policy then",
            ));
        }
    }
    let names: Vec<&str> = shown.containers.iter().map(|one| one.name.as_str()).collect();
    let container = match (&options.container, names.as_slice()) {
        (Some(name), _) if names.contains(&name.as_str()) => name.clone(),
        (None, [only]) => (*only).to_owned(),
        (found, _) => {
            let found = found.as_deref().unwrap_or("none");
            return Err(failure(
                format!("container: found {found}, expected one of {}", names.join(", ")),
                "--container NAME",
            ));
        }
    };
    Ok((digest(&document), container))
}

/// SHA-256 of the document's bytes.
fn digest(document: &PolicyDocument) -> Sha256 {
    match document {
        PolicyDocument::InitData(initdata) => Sha256::of(initdata.bytes()),
        PolicyDocument::Aks(policy) => policy.host_data_snp(),
    }
}
