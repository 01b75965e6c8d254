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

/// Runs what takes milliseconds or waits for a device: the runtime's other tasks go on elsewhere meanwhile, where it has threads for that.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// 32 random bytes, wiped when dropped.
pub(crate) fn random32(environment: &dyn Environment) -> Result<Zeroizing<[u8; 32]>, RandomError> {
    let mut bytes = Zeroizing::new([0; 32]);
    environment.random(bytes.as_mut_slice())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With one worker, whatever a blocked task waits for can only run elsewhere.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn work_that_blocks_holds_nobody_up() {
        let (done, waits) = std::sync::mpsc::channel();
        let blocked = tokio::spawn(async move {
            tokio::spawn(async move { done.send(()) });
            blocking(|| waits.recv())
        });
        blocked.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_runtime_without_threads_runs_it_itself() {
        assert_eq!(blocking(|| 7), 7);
    }
}
