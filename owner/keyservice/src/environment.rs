//! Clock and randomness, from outside so that a test can turn both.

use std::time::SystemTime;

use zeroize::Zeroizing;

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct RandomError(#[source] pub std::io::Error);

/// Where time and randomness come from.
pub trait Environment: Send + Sync {
    /// Now.
    fn now(&self) -> SystemTime;

    /// Fills `bytes` from a cryptographic random source.
    ///
    /// # Errors
    /// When the source fails; nothing may be used of `bytes` then.
    fn random(&self, bytes: &mut [u8]) -> Result<(), RandomError>;
}

/// The system's clock and `getrandom(2)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEnvironment;

impl Environment for SystemEnvironment {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        getrandom::fill(bytes)
            .map_err(|error| RandomError(std::io::Error::other(error.to_string())))
    }
}

/// 32 random bytes, wiped when dropped.
pub(crate) fn random32(environment: &dyn Environment) -> Result<Zeroizing<[u8; 32]>, RandomError> {
    let mut bytes = Zeroizing::new([0; 32]);
    environment.random(bytes.as_mut_slice())?;
    Ok(bytes)
}
