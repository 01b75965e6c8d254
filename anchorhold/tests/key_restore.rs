//! `anchorhold key restore` into a service whose key-encryption key is in a token (SoftHSM).

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let text = format!("directories.tokendir = {}\n", tokens.display());
        std::fs::write(folder.path().join("softhsm2.conf"), text).unwrap();
        let machine = Self { folder };
        let words =
            ["--init-token", "--free", "--label", "t", "--pin", "1234", "--so-pin", "567890"];
        let done = machine.command("softhsm2-util").args(words).output();
        let done =
            done.expect("softhsm2-util of package softhsm2, which `cargo xtask setup` installs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        machine
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("SOFTHSM2_CONF", self.path().join("softhsm2.conf"))
            .env("AH_TEST_PIN", "1234")
            .env("HOME", self.path());
        command
    }

    fn anchorhold(&self, words: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_anchorhold")).args(words).output().unwrap()
    }

    /// A service's configuration with its state in a folder of its own, and the key of this label.
    fn config(&self, name: &str, key: &str) -> String {
        let path = self.path().join(format!("{name}.toml"));
        let text = format!(
            "listen = \"127.0.0.1:0\"\nstate = \"{}\"\n[key_encryption_key.pkcs11]\nmodule = \"/usr/lib/softhsm/libsofthsm2.so\"\n\
             token = \"t\"\nkey = \"{key}\"\npin_environment = \"AH_TEST_PIN\"\n",
            self.path().join(name).display()
        );
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a service for as long as `use_it` takes; gives it the words that lead to it.
    fn with_service<T>(&self, name: &str, config: &str, use_it: impl FnOnce(&[&str]) -> T) -> T {
        let mut child = self
            .command(env!("CARGO_BIN_EXE_anchorhold"))
            .args(["keyservice", "serve", "--config", config])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let state = self.path().join(name);
        let (ca, token) = (state.join("ca.pem"), state.join("first-token"));
        let (ca, token) = (ca.to_str().unwrap(), token.to_str().unwrap());
        let used = use_it(&["--service", url.trim(), "--ca", ca, "--token-file", token]);
        child.kill().unwrap();
        child.wait().unwrap();
        used
    }
}

fn said(done: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

#[test]
fn a_backup_is_restored_under_a_key_in_a_token() {
    let machine = Machine::new();
    let old = machine.config("old", "kek");
    let backup = machine.path().join("backup");
    let backup = backup.to_str().unwrap();
    machine.with_service("old", &old, |service| {
        let config = machine.path().join("import.json");
        let url = service[1].strip_prefix("https://").unwrap();
        let text = format!(
            r#"{{"key":{{"kid":"k1","kty":"oct","authority":{{"endpoint":"a.example"}},"akv":{{"endpoint":"{url}","api_version":"api-version=7.4"}}}},
            "claims":[[{{"claim":"x","equals":"y"}}]]}}"#
        );
        std::fs::write(&config, text).unwrap();
        let import = ["key", "import", "-c", config.to_str().unwrap()];
        let imported = machine.anchorhold(&[&import, service].concat());
        assert!(imported.status.success(), "{}", said(&imported));
        let saved = machine.anchorhold(&[&["key", "backup", backup], service].concat());
        assert!(saved.status.success(), "{}", said(&saved));
    });
    // Without the configuration there is no key-encryption key; with another key of the token it is another one.
    let local = said(&machine.anchorhold(&["key", "restore", backup]));
    assert!(local.contains("no key-encryption key") && local.contains("--config"), "{local}");
    let wrong = machine.config("new", "other");
    let wrong = said(&machine.anchorhold(&["key", "restore", backup, "--config", &wrong]));
    assert!(wrong.contains("no key-encryption key") && !wrong.contains("--config"), "{wrong}");
    let new = machine.config("new", "kek");
    let done = machine.anchorhold(&["key", "restore", backup, "--config", &new]);
    assert!(done.status.success(), "{}", said(&done));
    assert!(said(&done).contains("restored 1 keys"), "{}", said(&done));
    let listed = machine.with_service("new", &new, |service| {
        machine.anchorhold(&[&["key", "list"], service].concat())
    });
    assert!(said(&listed).contains("k1"), "{}", said(&listed));
}
