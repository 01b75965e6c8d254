//! Policy fragments: containers that somebody named in the policy adds to it, without a change of the policy's digest.
//!
//! A fragment is a text of lines. The first is [`FIRST_LINE`], the second the standard base64 of the Ed25519 signature over
//! `anchorhold policy fragment 1`, a zero byte and all bytes behind the second line; these are JSON:
//!
//! `{"feed": …, "version": …, "containers": [{"name": …, "image": …, "args": […], "env": […], "cwd": …, "user": {…},
//! "capabilities": {…}, "no_new_privileges": …, "read_only_root": …, "storages": […], "read": {…}}]}`
//!
//! What a container may be beyond that, above all what it may mount, is not the fragment's to say: the policy has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::key::{OwnerKey, SecretKey};

/// How a fragment begins.
pub const FIRST_LINE: &str = "anchorhold policy fragment 1";
/// Longest fragment, bytes.
pub const MAX_FRAGMENT_BYTES: usize = 1 << 20;

const DOMAIN: &[u8] = b"anchorhold policy fragment 1\0";
const MAX_NAME_BYTES: usize = 63;
const MAX_CONTAINERS: usize = 16;
const MAX_SOURCES: usize = 16;

/// Who may add containers to a pod, and what counts of it. Text form: `issuer=NAME key=BASE64 feed=NAME min-version=NUMBER`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FragmentSource {
    /// What people call whoever holds the key.
    pub issuer: String,
    /// Whose signatures count.
    pub key: OwnerKey,
    /// Which of the issuer's fragments.
    pub feed: String,
    /// The lowest version that counts: an older one may have faults that are known by now.
    pub min_version: u32,
}

/// What was signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fragment {
    /// Which of the issuer's fragments.
    pub feed: String,
    /// Its version; a later one is higher.
    pub version: u32,
    /// What it adds.
    pub containers: Vec<FragmentContainer>,
}

/// A container of a fragment: members of the Kata agent's CreateContainer request, as the policy input has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FragmentContainer {
    /// Its name.
    pub name: String,
    /// Its image with its digest, for people: what counts are the layers in `storages`.
    pub image: String,
    /// `OCI.Process.Args`.
    pub args: Vec<String>,
    /// `OCI.Process.Env`, without what every container of the pod gets.
    pub env: Vec<String>,
    /// `OCI.Process.Cwd`.
    pub cwd: String,
    /// `OCI.Process.User`.
    pub user: Value,
    /// `OCI.Process.Capabilities`; no more than the policy gives to such containers.
    pub capabilities: Value,
    /// `OCI.Process.NoNewPrivileges`.
    pub no_new_privileges: bool,
    /// `OCI.Root.Readonly`.
    pub read_only_root: bool,
    /// `storages`: its layers and their overlay.
    pub storages: Vec<Value>,
    /// Where the host's values stand in `storages`.
    pub read: serde_json::Map<String, Value>,
}

/// A fragment with its signature, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedFragment<'a> {
    body: &'a str,
    signature: [u8; 64],
}

/// Why there is no fragment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// Another form.
    #[error("policy fragment: {detail}")]
    Form {
        /// What does not fit.
        detail: String,
    },
    /// Another key has signed, or something was changed.
    #[error("policy fragment: the signature is not of a key that the policy names")]
    Signature,
    /// An owner's line of another form.
    #[error("fragments: found {found:?}, expected {expected}")]
    Source {
        /// The line, at most 200 characters of it.
        found: String,
        /// The form.
        expected: &'static str,
    },
}

fn form(detail: impl Into<String>) -> FragmentError {
    FragmentError::Form { detail: detail.into() }
}

/// Whether a text says of itself that it is a fragment.
pub fn is_fragment(text: &str) -> bool {
    text.split_once('\n').is_some_and(|(first, _)| first == FIRST_LINE)
}

impl Fragment {
    /// Signs the fragment; gives its text.
    ///
    /// # Errors
    /// [`FragmentError::Form`] for a value out of its bounds.
    pub fn sign(&self, key: &SecretKey) -> Result<String, FragmentError> {
        let body = serde_json::to_string(self).map_err(|err| form(err.to_string()))? + "\n";
        // What no guest would read is not signed.
        Self::read(&body)?;
        let signature = STANDARD.encode(key.sign(DOMAIN, body.as_bytes()));
        let text = format!("{FIRST_LINE}\n{signature}\n{body}");
        match text.len() {
            0..=MAX_FRAGMENT_BYTES => Ok(text),
            found => Err(form(format!("{found} bytes, expected at most {MAX_FRAGMENT_BYTES}"))),
        }
    }

    fn read(body: &str) -> Result<Self, FragmentError> {
        let fragment: Self = serde_json::from_str(body).map_err(|err| form(err.to_string()))?;
        if !is_name(&fragment.feed) {
            return Err(form(format!("feed: found {:?}, expected {NAME}", fragment.feed)));
        }
        if !(1..=MAX_CONTAINERS).contains(&fragment.containers.len()) {
            let found = fragment.containers.len();
            return Err(form(format!("{found} containers, expected 1 to {MAX_CONTAINERS}")));
        }
        fragment.containers.iter().try_for_each(FragmentContainer::check)?;
        Ok(fragment)
    }
}

impl FragmentContainer {
    fn check(&self) -> Result<(), FragmentError> {
        if !is_name(&self.name) || self.name.contains('.') {
            return Err(form(format!("container: found {:?}, expected {NAME}", self.name)));
        }
        // Elsewhere `$(…)` would be the host's to fill.
        let texts = self.args.iter().chain(&self.env).chain([&self.cwd, &self.image]);
        match texts.into_iter().find(|text| text.contains("$(")) {
            Some(text) => {
                let name = &self.name;
                Err(form(format!("container {name}: found {text:?}, expected no \"$(\" in it")))
            }
            None => Ok(()),
        }
    }
}

impl<'a> SignedFragment<'a> {
    /// Takes a text apart, without believing it.
    ///
    /// # Errors
    /// [`FragmentError::Form`].
    pub fn of(text: &'a str) -> Result<Self, FragmentError> {
        if text.len() > MAX_FRAGMENT_BYTES {
            let found = text.len();
            return Err(form(format!("{found} bytes, expected at most {MAX_FRAGMENT_BYTES}")));
        }
        let rest = text.strip_prefix(FIRST_LINE).and_then(|rest| rest.strip_prefix('\n'));
        let rest = rest.ok_or_else(|| form(format!("its first line is not {FIRST_LINE:?}")))?;
        let (signature, body) =
            rest.split_once('\n').ok_or_else(|| form("it has no second line"))?;
        let signature = STANDARD.decode(signature).ok().and_then(|bytes| bytes.try_into().ok());
        let signature =
            signature.ok_or_else(|| form("its second line is not base64 of a signature"))?;
        Ok(Self { body, signature })
    }

    /// What it says, and the first of these sources whose key has signed it and whose feed it is.
    ///
    /// # Errors
    /// [`FragmentError::Signature`], and [`FragmentError::Form`] for another feed, a version below the floor, or what no fragment
    /// may hold.
    pub fn verify<'s>(
        &self,
        sources: &'s [FragmentSource],
    ) -> Result<(Fragment, &'s FragmentSource), FragmentError> {
        let signed = |source: &&FragmentSource| {
            source.key.has_signed(DOMAIN, self.body.as_bytes(), &self.signature)
        };
        let own: Vec<&FragmentSource> = sources.iter().filter(signed).collect();
        if own.is_empty() {
            return Err(FragmentError::Signature);
        }
        let fragment = Fragment::read(self.body)?;
        let Some(source) = own.iter().find(|source| source.feed == fragment.feed) else {
            let feeds: Vec<&str> = own.iter().map(|source| source.feed.as_str()).collect();
            let (found, expected) = (&fragment.feed, feeds.join(" or "));
            return Err(form(format!("feed: found {found:?}, expected {expected}")));
        };
        match fragment.version < source.min_version {
            true => {
                let (found, least) = (fragment.version, source.min_version);
                Err(form(format!("version: found {found}, expected at least {least}")))
            }
            false => Ok((fragment, source)),
        }
    }

    /// What it says, whoever has signed it: to show it to people.
    ///
    /// # Errors
    /// [`FragmentError::Form`].
    pub fn unverified(&self) -> Result<Fragment, FragmentError> {
        Fragment::read(self.body)
    }

    /// Whether this key has signed it.
    pub fn is_signed_by(&self, key: &OwnerKey) -> bool {
        key.has_signed(DOMAIN, self.body.as_bytes(), &self.signature)
    }
}

const NAME: &str = "at most 63 of a-z, 0-9, '-' and '.', the first and last a letter or digit";
const SOURCE: &str = "issuer=NAME key=BASE64 feed=NAME min-version=NUMBER";

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last()).is_some_and(|(a, b)| plain(*a) && plain(*b));
    ends && bytes.len() <= MAX_NAME_BYTES
        && bytes.iter().all(|b| plain(*b) || matches!(b, b'-' | b'.'))
}

/// Reads the owner's lines, one a source; empty ones between are none.
///
/// # Errors
/// [`FragmentError::Source`] for another form, the same issuer and feed twice, or none at all.
pub fn fragment_sources(text: &str) -> Result<Vec<FragmentSource>, FragmentError> {
    let wrong = |found: &str, expected| FragmentError::Source {
        found: found.chars().take(200).collect(),
        expected,
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut sources: Vec<FragmentSource> = Vec::new();
    for line in lines {
        let source = source(line).ok_or_else(|| wrong(line, SOURCE))?;
        if sources.iter().any(|old| old.issuer == source.issuer && old.feed == source.feed) {
            return Err(wrong(line, "each feed of an issuer once"));
        }
        sources.push(source);
    }
    match sources.len() {
        1..=MAX_SOURCES => Ok(sources),
        _ => Err(wrong(
            text,
            "1 to 16 lines like issuer=NAME key=BASE64 feed=NAME min-version=NUMBER",
        )),
    }
}

/// The four words in this order, each once.
fn source(line: &str) -> Option<FragmentSource> {
    let mut words = line.split(' ');
    let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
    let (issuer, key) = (value("issuer")?, value("key")?);
    let (feed, version) = (value("feed")?, value("min-version")?);
    let digits = version.bytes().all(|b| b.is_ascii_digit());
    (words.next().is_none() && digits && is_name(issuer) && is_name(feed)).then_some(())?;
    Some(FragmentSource {
        issuer: issuer.into(),
        key: key.parse().ok()?,
        feed: feed.into(),
        min_version: version.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_seed(&[9; 32])
    }

    fn fragment() -> Fragment {
        let container = FragmentContainer {
            name: "proxy".into(),
            image: "localhost/proxy@sha256:00".into(),
            args: vec!["/proxy".into()],
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            user: json!({"UID": 1}),
            capabilities: json!({}),
            no_new_privileges: true,
            read_only_root: false,
            storages: vec![json!({"driver": "blk"})],
            read: serde_json::Map::new(),
        };
        Fragment { feed: "mesh".into(), version: 3, containers: vec![container] }
    }

    fn sources(min_version: u32) -> Vec<FragmentSource> {
        let key = key().public();
        let line = format!("issuer=platform key={key} feed=mesh min-version={min_version}");
        fragment_sources(&line).unwrap()
    }

    #[test]
    fn what_is_signed_is_read_back() {
        let text = fragment().sign(&key()).unwrap();
        assert!(is_fragment(&text) && !is_fragment("package agent_policy\n"));
        let signed = SignedFragment::of(&text).unwrap();
        let sources = sources(3);
        assert_eq!(signed.verify(&sources).unwrap(), (fragment(), &sources[0]));
    }

    #[test]
    fn attack_another_key_another_feed_an_old_version_and_a_changed_byte() {
        let text = fragment().sign(&key()).unwrap();
        let refused = |text: &str, sources: &[FragmentSource]| {
            let signed = SignedFragment::of(text);
            signed.and_then(|signed| signed.verify(sources).map(drop)).unwrap_err().to_string()
        };
        let foreign = fragment().sign(&SecretKey::from_seed(&[8; 32])).unwrap();
        assert!(refused(&foreign, &sources(3)).contains("the signature is not of a key"));
        assert!(refused(&text, &[]).contains("the signature is not of a key"));
        assert!(refused(&text, &sources(4)).contains("found 3, expected at least 4"));
        let other = Fragment { feed: "logs".into(), ..fragment() }.sign(&key()).unwrap();
        assert!(refused(&other, &sources(3)).contains("expected mesh"));
        let body_at = text.match_indices('\n').nth(1).unwrap().0 + 1;
        for at in (body_at..text.len()).step_by(7) {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert!(refused(&changed, &sources(3)).contains("the signature"), "{at}");
        }
        // A debug grant's signature is none of a fragment.
        let body = &text[body_at..];
        let signature = key().sign(b"anchorhold debug grant 1\0", body.as_bytes());
        let text = format!("{FIRST_LINE}\n{}\n{body}", STANDARD.encode(signature));
        assert!(refused(&text, &sources(3)).contains("the signature"));
    }

    #[test]
    fn attack_values_that_the_host_would_fill_and_fields_that_nobody_knows() {
        let with = |change: &dyn Fn(&mut FragmentContainer)| {
            let mut fragment = fragment();
            change(&mut fragment.containers[0]);
            fragment.sign(&key())
        };
        assert!(with(&|_| {}).is_ok());
        assert!(with(&|c| c.env.push("A=$(pod-ip)".into())).is_err());
        assert!(with(&|c| c.name = "(sandbox)".into()).is_err());
        assert!(with(&|c| c.name = "a/b".into()).is_err());
        assert!(Fragment { containers: Vec::new(), ..fragment() }.sign(&key()).is_err());
        let body =
            fragment().sign(&key()).unwrap().replace("\"version\"", "\"logs\":true,\"version\"");
        let body = body.splitn(3, '\n').nth(2).unwrap();
        let signature = STANDARD.encode(key().sign(DOMAIN, body.as_bytes()));
        let text = format!("{FIRST_LINE}\n{signature}\n{body}");
        let error = SignedFragment::of(&text).unwrap().verify(&sources(1)).unwrap_err();
        assert!(error.to_string().contains("unknown field `logs`"), "{error}");
    }

    #[test]
    fn an_owners_line_has_one_form() {
        let key = key().public();
        let good = format!("issuer=platform key={key} feed=mesh min-version=3");
        let two = format!("{good}\n\n  issuer=platform key={key} feed=logs min-version=0\n");
        assert_eq!(fragment_sources(&two).unwrap().len(), 2);
        for bad in [
            String::new(),
            format!("{good} x=1"),
            format!("{good}\n{good}"),
            good.replace("min-version=3", "min-version=-3"),
            good.replace("min-version=3", "min-version=+3"),
            good.replace(" min-version=3", ""),
            good.replace("feed=mesh", "feed=Mesh"),
            good.replace("feed=mesh ", "feed=mesh  "),
            good.replace("key=", "key=AAAA"),
            format!("feed=mesh issuer=platform key={key} min-version=3"),
        ] {
            assert!(fragment_sources(&bad).is_err(), "{bad}");
        }
    }
}
