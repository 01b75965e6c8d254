//! The words.

use std::fmt;

use ah_grant::FragmentSource;

use crate::agent::Agent;
use crate::show::{
    RELEASE_SOCKET, SHARED_DIR, Shown, ShownContainer, ShownEnv, ShownMount, ShownPlatform,
    ShownVolume, VOLUME_DIR,
};

/// Digits of a root hash that tell layers apart for people.
const SHORT_HASH_DIGITS: usize = 12;

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for container in &self.containers {
            fmt::Display::fmt(container, f)?;
        }
        writeln!(f, "what the host may do with the pod:")?;
        if self.agent == Agent::Kata {
            writeln!(f, "  agent        stock Kata: the host chooses more, as listed below")?;
        }
        match self.logs {
            true => writeln!(f, "  logs         the host MAY READ what the containers print")?,
            false => writeln!(f, "  logs         the host may not read what the containers print")?,
        }
        self.choices(f)?;
        writeln!(f, "files with contents from the host: {}", self.host_files.join(", "))?;
        writeln!(f, "the host still chooses:")?;
        self.host_chooses.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        writeln!(f, "everything else is denied")
    }
}

impl Shown {
    /// Execs, stdin, keys and Secrets: which containers, or that there are none.
    fn choices(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |has: &dyn Fn(&ShownContainer) -> bool| {
            let names = self.containers.iter().filter(|c| has(c)).map(|c| c.name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let execs = |c: &ShownContainer| !(c.execs.is_empty() && c.exec_patterns.is_empty());
        match named(&execs) {
            none if none.is_empty() => writeln!(f, "  exec         no command in any container")?,
            some => writeln!(f, "  exec         the commands listed above, in {some}")?,
        }
        match named(&|container| container.stdin) {
            none if none.is_empty() => writeln!(f, "  stdin        writes to no container")?,
            some => writeln!(f, "  stdin        MAY WRITE to {some}")?,
        }
        match named(&|container| container.termination_log) {
            none if none.is_empty() => {
                writeln!(
                    f,
                    "  termination  its log is the host's when it starts, and is not read back"
                )?;
            }
            some => {
                writeln!(f, "  termination  the host MAY READ the termination message of {some}")?
            }
        }
        for FragmentSource { issuer, key, feed, min_version } in &self.fragments {
            writeln!(
                f,
                "  fragments    {issuer}, WHO HOLDS THE KEY {key}, MAY ADD CONTAINERS: feed {feed}, version {min_version} and later"
            )?;
        }
        if let Some(key) = &self.debug_key {
            writeln!(
                f,
                "  debug        WHOEVER HOLDS THE KEY {key} MAY RUN ANY COMMAND in this pod, each time for a limited time"
            )?;
        }
        if self.whole {
            writeln!(
                f,
                "  whole pod    no key and no exec before every container has been created"
            )?;
        }
        match named(&|container| container.release_socket) {
            none if none.is_empty() => writeln!(f, "keys: no container may ask for keys")?,
            some => writeln!(f, "keys: {some} may ask for keys (release socket)")?,
        }
        for container in &self.containers {
            let secrets = container.env.iter().filter(|env| env.secret);
            let names: Vec<&str> = secrets.map(|env| env.name.as_str()).collect();
            if !names.is_empty() {
                let (names, name) = (names.join(", "), &container.name);
                writeln!(
                    f,
                    "secrets: {names} of {name}: the policy holds the values, AND THE HOST CAN READ IT"
                )?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ShownContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.role.as_str() {
            "init" => "init container",
            "sidecar" => "sidecar",
            _ => "container",
        };
        writeln!(f, "{kind} {}", self.name)?;
        writeln!(f, "  image        {}", self.image)?;
        self.layers(f)?;
        self.other_platforms(f)?;
        writeln!(f, "  command      {}", Words(&self.command))?;
        writeln!(f, "  in           {} as {}", self.working_dir, self.user)?;
        self.env.iter().try_for_each(|env| writeln!(f, "  env          {env}"))?;
        for mount in &self.mounts {
            f.write_str("  mount        ")?;
            fmt::Display::fmt(mount, f)?;
            f.write_str("\n")?;
        }
        self.volumes.iter().try_for_each(|volume| fmt::Display::fmt(volume, f))?;
        self.standard_mounts(f)?;
        match self.capabilities.as_slice() {
            [] => writeln!(f, "  capabilities none")?,
            names => writeln!(f, "  capabilities {}", names.join(" "))?,
        }
        for exec in &self.execs {
            writeln!(f, "  exec         the host may run {}", Words(exec))?;
        }
        for exec in &self.exec_patterns {
            writeln!(f, "  exec         the host may run {}", exec.join(" "))?;
        }
        let marks = [
            (self.stdin, "  stdin        the host may write to it"),
            (self.tty, "  terminal     the host may set its size"),
            (self.release_socket, "  release      may ask for keys"),
            (self.restart, "  restart      may be created again after it ended"),
        ];
        marks.iter().filter(|(has, _)| *has).try_for_each(|(_, line)| writeln!(f, "{line}"))
    }
}

impl ShownContainer {
    /// What is another one on another platform.
    fn other_platforms(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ShownPlatform { platform, container } in &self.platforms {
            writeln!(f, "  or, on {platform}:")?;
            container.layers(f)?;
            if container.command != self.command {
                writeln!(f, "  command      {}", Words(&container.command))?;
            }
            if (&container.working_dir, &container.user) != (&self.working_dir, &self.user) {
                writeln!(f, "  in           {} as {}", container.working_dir, container.user)?;
            }
            let of_all = |env: &&ShownEnv| self.env.contains(env);
            for env in container.env.iter().filter(|env| !of_all(env)) {
                writeln!(f, "  env          {env}")?;
            }
            for env in self.env.iter().filter(|env| !container.env.contains(env)) {
                writeln!(f, "  env          not {}", env.name)?;
            }
            let mounts = container.mounts.iter().filter(|mount| !self.mounts.contains(mount));
            mounts.into_iter().try_for_each(|mount| writeln!(f, "  mount        {mount}"))?;
            writeln!(f, "  and on all platforms:")?;
        }
        Ok(())
    }

    fn layers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.layers.is_empty() {
            return Ok(());
        }
        if f.alternate() {
            return self.layers.iter().try_for_each(|l| writeln!(f, "  layer        {l}"));
        }
        let short = |hash: &String| hash.get(..SHORT_HASH_DIGITS).unwrap_or(hash).to_owned();
        let short: Vec<String> = self.layers.iter().map(short).collect();
        writeln!(
            f,
            "  layers       {} (root hashes, top first; -v shows them whole)",
            short.join(" ")
        )
    }

    fn standard_mounts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return self
                .standard_mounts
                .iter()
                .try_for_each(|m| writeln!(f, "  mount        {m:#}"));
        }
        let names: Vec<&str> =
            self.standard_mounts.iter().filter_map(ShownMount::standard).collect();
        match names.is_empty() {
            true => Ok(()),
            false => writeln!(f, "  mount        standard files: {}", names.join(", ")),
        }
    }
}

impl fmt::Display for ShownEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.sealed {
            return write!(f, "{}=(sealed to key {key}, opened in the guest)", self.name);
        }
        match &self.value {
            // Such a value could move the lines around it.
            Some(value) if value.chars().any(char::is_control) => {
                write!(f, "{}={value:?}", self.name)
            }
            Some(value) => write!(f, "{}={value}", self.name),
            None => write!(f, "{}={} (from a Secret)", self.name, ah_permit::MASK),
        }
    }
}

impl fmt::Display for ShownMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = (self.source.as_str(), self.destination.as_str());
        let options = self.options.join(",");
        if f.alternate() {
            return write!(f, "{source} -> {destination} ({options})");
        }
        let has = |wanted: &str| self.options.iter().any(|option| option == wanted);
        let access = if has("ro") { "read-only" } else { "read-write" };
        if let Some(volume) = source.strip_prefix(VOLUME_DIR) {
            return write!(f, "volume {volume} (guest memory) -> {destination}, {access}");
        }
        match source {
            RELEASE_SOCKET => write!(f, "release socket -> {destination}"),
            copied if copied.starts_with(SHARED_DIR) => {
                write!(f, "file from the host -> {destination}, {access}")
            }
            other => write!(f, "{other} -> {destination} ({options})"),
        }
    }
}

impl fmt::Display for ShownVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            let path = match file.path.as_str() {
                "" => self.destination.clone(),
                path => format!("{}/{path}", self.destination.trim_end_matches('/')),
            };
            write!(f, "  file         {path} ({}) ", file.mode)?;
            match (&file.sha256, &file.unpinned) {
                (Some(digest), _) => writeln!(f, "sha256:{digest}")?,
                (None, Some(what)) if what.starts_with("$(") => writeln!(f, "{what}")?,
                (None, what) => {
                    writeln!(f, "UNPINNED: {}", what.as_deref().unwrap_or_default())?;
                }
            }
        }
        for object in &self.unpinned {
            writeln!(
                f,
                "  UNPINNED     {}: the host chooses the files of {object}",
                self.destination
            )?;
        }
        Ok(())
    }
}

/// A command line with its arguments told apart.
pub(crate) struct Words<'a>(pub(crate) &'a [String]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+$()".contains(c);
        for (index, word) in self.0.iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            match !word.is_empty() && word.chars().all(plain) {
                true => write!(f, "{space}{word}")?,
                false => write!(f, "{space}{word:?}")?,
            }
        }
        Ok(())
    }
}
