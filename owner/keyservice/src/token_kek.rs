//! The key-encryption key in a token: an AES-256 key that is made there and never leaves it (PKCS #11 2.40, OASIS; CKM_AES_GCM of the
//! current mechanisms, section 2.12.3).
//!
//! Before anything is sealed under it, the token has to vouch for that: a key that was imported, or could leave the token when it was made, is
//! refused at a service's first start. Later it is known by what it sealed.
//!
//! Every sealing and opening is an operation of the token. A session that broke is opened again, once, and has to lead to the same key; a PIN
//! that was refused is not tried again, since tokens lock themselves after a few wrong ones.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use crate::environment::blocking;
use crate::files::{FileError, Open, private_file};
use crate::kek::Sealed;

/// Length of the key, bytes.
const KEY_BYTES: u64 = 32;
/// Length of a GCM tag, bits.
const TAG_BITS: u64 = 128;
/// Length of a GCM nonce, bytes.
const NONCE_BYTES: usize = 12;
/// Longest PIN that is read, bytes.
const MAX_PIN_BYTES: u64 = 256;
/// What is sealed to tell keys apart; no row has this context.
const FINGERPRINT: &[u8] = b"anchorhold kek id";

/// Modules that were loaded: each is set up once in a process, and stays.
static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// Which key of which token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// The token's PKCS #11 module, a shared library.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// Label of the key.
    pub key: String,
    /// Where the user's PIN comes from.
    pub pin: PinSource,
}

impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {:?} of token {:?}", self.key, self.token)
    }
}

/// Where a PIN comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSource {
    /// A file of mode 0600.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

/// Why the key in a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The module.
    #[error(
        "PKCS #11 module {path} cannot be used\nhint: key_encryption_key.pkcs11.module is the shared library that comes with the token"
    )]
    Module {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: Error,
    },
    /// No token of that label, or several.
    #[error(
        "{count} tokens have the label {label:?}, expected one; there are {found:?}\nhint: key_encryption_key.pkcs11.token is the label that the token was initialized with"
    )]
    Token {
        /// The label.
        label: String,
        /// How many have it.
        count: usize,
        /// Labels of all tokens.
        found: Vec<String>,
    },
    /// The PIN's file.
    #[error(transparent)]
    PinFile(#[from] FileError),
    /// There is no PIN.
    #[error(
        "there is no PIN in {place}\nhint: it holds the PIN of the token's user, and nothing else"
    )]
    NoPin {
        /// File or variable.
        place: String,
    },
    /// The token refused the PIN.
    #[error(
        "token {label:?} refused the PIN; it is not tried again, since tokens lock themselves\nhint: check pin_file or pin_environment, then start again"
    )]
    Pin {
        /// The token's label.
        label: String,
    },
    /// There is no such key.
    #[error("there is no {key}")]
    NoKey {
        /// Which key.
        key: String,
    },
    /// Several keys of that label.
    #[error(
        "{count} keys are {key}, expected one\nhint: give each a label of its own, so that it is clear which one seals"
    )]
    ManyKeys {
        /// Which key.
        key: String,
        /// How many there are.
        count: usize,
    },
    /// A key whose bytes can be read out of the token, or of another length.
    #[error(
        "{key} is no AES-256 key that stays in its token\nhint: it needs CKA_SENSITIVE, CKA_EXTRACTABLE false and 32 bytes; name one that is not there, and a fitting one is made"
    )]
    Readable {
        /// Which key.
        key: String,
    },
    /// A key that came from outside, or could once go there.
    #[error(
        "{key} was not made in its token, or could once leave it, so that others may have its bytes\nhint: name one that is not there, and a fitting one is made; its CKA_LOCAL, CKA_NEVER_EXTRACTABLE and CKA_ALWAYS_SENSITIVE are true"
    )]
    Imported {
        /// Which key.
        key: String,
    },
    /// Another key of the same label: what was sealed under it would be lost with the service's restart.
    #[error(
        "{key} is another one than when the service started\nhint: put the first one back; keys of the database are sealed under it"
    )]
    Changed {
        /// Which key.
        key: String,
    },
    /// The token failed.
    #[error("{key} cannot be used")]
    Operation {
        /// Which key.
        key: String,
        /// The cause.
        source: Error,
    },
}

impl TokenKey {
    /// Makes the key: AES-256, for sealing and opening only, whose bytes nobody can ask for.
    pub(crate) fn make(&self) -> Result<(), TokenKeyError> {
        let (context, slot) = self.slot()?;
        let session = context.open_rw_session(slot).map_err(|source| self.failed(source))?;
        self.login(&session)?;
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen(KEY_BYTES.into()),
            Attribute::Label(self.key.clone().into_bytes()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ];
        session
            .generate_key(&Mechanism::AesKeyGen, &template)
            .map(drop)
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: Error) -> TokenKeyError {
        TokenKeyError::Operation { key: self.to_string(), source }
    }

    fn slot(&self) -> Result<(Pkcs11, Slot), TokenKeyError> {
        let context = loaded(&self.module)?;
        let failed = |source| self.failed(source);
        let slots = context.get_slots_with_initialized_token().map_err(failed)?;
        let mut found = Vec::new();
        for slot in slots {
            let info = context.get_token_info(slot).map_err(failed)?;
            found.push((slot, info.label().trim_end().to_owned()));
        }
        let mut fitting = found.iter().filter(|(_, label)| *label == self.token);
        match (fitting.next(), fitting.count()) {
            (Some((slot, _)), 0) => Ok((context, *slot)),
            (first, more) => Err(TokenKeyError::Token {
                label: self.token.clone(),
                count: more.saturating_add(usize::from(first.is_some())),
                found: found.into_iter().map(|(_, label)| label).collect(),
            }),
        }
    }

    fn login(&self, session: &Session) -> Result<(), TokenKeyError> {
        match session.login(UserType::User, Some(&self.pin()?)) {
            // A process logs in once for all its sessions.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(Error::Pkcs11(
                RvError::PinIncorrect
                | RvError::PinLenRange
                | RvError::PinInvalid
                | RvError::PinLocked
                | RvError::PinExpired,
                _,
            )) => Err(TokenKeyError::Pin { label: self.token.clone() }),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn pin(&self) -> Result<AuthPin, TokenKeyError> {
        let (text, place) = match &self.pin {
            PinSource::Variable(name) => {
                (std::env::var(name).unwrap_or_default(), format!("environment variable {name}"))
            }
            PinSource::File(path) => {
                let mut text = String::new();
                let file = private_file(path, Open::Read)?;
                file.take(MAX_PIN_BYTES)
                    .read_to_string(&mut text)
                    .map_err(FileError::io("read", path))?;
                (text, path.display().to_string())
            }
        };
        let text = Zeroizing::new(text);
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(TokenKeyError::NoPin { place }),
            pin => Ok(AuthPin::new(pin.into())),
        }
    }

    fn connect(&self) -> Result<Connection, TokenKeyError> {
        let (context, slot) = self.slot()?;
        let failed = |source| self.failed(source);
        let session = context.open_ro_session(slot).map_err(failed)?;
        self.login(&session)?;
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Label(self.key.clone().into_bytes()),
        ];
        let found = session.find_objects(&template).map_err(failed)?;
        let key = match found.as_slice() {
            [] => return Err(TokenKeyError::NoKey { key: self.to_string() }),
            [key] => *key,
            all => {
                return Err(TokenKeyError::ManyKeys { key: self.to_string(), count: all.len() });
            }
        };
        let wanted = [
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::ValueLen(KEY_BYTES.into()),
        ];
        let asked = [AttributeType::Sensitive, AttributeType::Extractable, AttributeType::ValueLen];
        let attributes = session.get_attributes(key, &asked).map_err(failed)?;
        match wanted.iter().all(|one| attributes.contains(one)) {
            true => Ok(Connection { session, key }),
            false => Err(TokenKeyError::Readable { key: self.to_string() }),
        }
    }
}

/// The module, loaded and set up.
fn loaded(path: &Path) -> Result<Pkcs11, TokenKeyError> {
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = modules.get(path) {
        return Ok(module.clone());
    }
    let failed = |source| TokenKeyError::Module { path: path.to_owned(), source };
    let module = Pkcs11::new(path).map_err(failed)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(source) => return Err(failed(source)),
    }
    modules.insert(path.to_owned(), module.clone());
    Ok(module)
}

struct Connection {
    session: Session,
    key: ObjectHandle,
}

impl Connection {
    fn seal(
        &self,
        mut nonce: [u8; NONCE_BYTES],
        context: &[u8],
        secret: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let parameters = GcmParams::new(&mut nonce, context, TAG_BITS.into())?;
        self.session.encrypt(&Mechanism::AesGcm(parameters), self.key, secret)
    }

    fn open(&self, sealed: &Sealed, context: &[u8]) -> Result<Vec<u8>, Error> {
        let mut nonce = sealed.nonce;
        let parameters = GcmParams::new(&mut nonce, context, TAG_BITS.into())?;
        self.session.decrypt(&Mechanism::AesGcm(parameters), self.key, &sealed.ciphertext)
    }

    /// That the key was made in the token and could never leave it, as the token remembers. What it says of now, whoever put the key there chose;
    /// and a key that is derived of another one is known to whoever can seal with that one.
    fn was_made_there(&self) -> Result<bool, Error> {
        let wanted = [
            Attribute::Local(true),
            Attribute::NeverExtractable(true),
            Attribute::AlwaysSensitive(true),
        ];
        let asked =
            [AttributeType::Local, AttributeType::NeverExtractable, AttributeType::AlwaysSensitive];
        let found = self.session.get_attributes(self.key, &asked)?;
        Ok(wanted.iter().all(|one| found.contains(one)))
    }

    /// Bytes that are the same for the same key, and other ones for another.
    fn fingerprint(&self) -> Result<Vec<u8>, Error> {
        self.seal([0; NONCE_BYTES], FINGERPRINT, &[0; 16])
    }
}

enum State {
    Connected(Connection),
    Broken,
    /// The PIN was refused.
    Refused,
}

/// A key in a token, ready for use.
pub(crate) struct OpenToken {
    key: TokenKey,
    /// Of the key that was found first.
    fingerprint: Vec<u8>,
    state: Mutex<State>,
}

impl OpenToken {
    pub(crate) fn open(key: &TokenKey) -> Result<Self, TokenKeyError> {
        let connection = key.connect()?;
        let fingerprint = connection.fingerprint().map_err(|source| key.failed(source))?;
        Ok(Self { key: key.clone(), fingerprint, state: Mutex::new(State::Connected(connection)) })
    }

    /// Bytes that are the same for the same key, and other ones for another.
    pub(crate) fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }

    /// That nobody outside can have the key's bytes, as far as the token knows.
    pub(crate) fn check_made_there(&self) -> Result<(), TokenKeyError> {
        match self.run(Connection::was_made_there)? {
            true => Ok(()),
            false => Err(TokenKeyError::Imported { key: self.key.to_string() }),
        }
    }

    /// Ciphertext and tag.
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        context: &[u8],
        secret: &[u8],
    ) -> Result<Vec<u8>, TokenKeyError> {
        self.run(|connection| connection.seal(nonce, context, secret))
    }

    /// `None` for what this key did not seal in this context. Tokens have no common word for that, so one that refuses and still works is
    /// believed.
    pub(crate) fn open_sealed(
        &self,
        sealed: &Sealed,
        context: &[u8],
    ) -> Result<Option<Zeroizing<Vec<u8>>>, TokenKeyError> {
        match self.run(|connection| connection.open(sealed, context)) {
            Ok(secret) => Ok(Some(Zeroizing::new(secret))),
            Err(refused) => self.run(Connection::fingerprint).map(|_| None).map_err(|_| refused),
        }
    }

    /// Runs an operation, which may wait for the token.
    fn run<T>(
        &self,
        operation: impl Fn(&Connection) -> Result<T, Error>,
    ) -> Result<T, TokenKeyError> {
        blocking(|| self.run_here(operation))
    }

    /// Once more in a new session when it fails, for the old one may be gone with the token's connection.
    fn run_here<T>(
        &self,
        operation: impl Fn(&Connection) -> Result<T, Error>,
    ) -> Result<T, TokenKeyError> {
        let mut state = self.state();
        match &*state {
            State::Connected(connection) => {
                if let Ok(done) = operation(connection) {
                    return Ok(done);
                }
            }
            State::Broken => {}
            State::Refused => return Err(TokenKeyError::Pin { label: self.key.token.clone() }),
        }
        *state = State::Broken;
        let connection = self.reconnect().inspect_err(|error| {
            if matches!(error, TokenKeyError::Pin { .. }) {
                *state = State::Refused;
            }
        })?;
        let done = operation(&connection).map_err(|source| self.key.failed(source));
        *state = State::Connected(connection);
        done
    }

    /// A new session with the same key: a label says nothing, for whoever administers the token gives it to any key.
    fn reconnect(&self) -> Result<Connection, TokenKeyError> {
        let connection = self.key.connect()?;
        let found = connection.fingerprint().map_err(|source| self.key.failed(source))?;
        match found == self.fingerprint {
            true => Ok(connection),
            false => Err(TokenKeyError::Changed { key: self.key.to_string() }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
