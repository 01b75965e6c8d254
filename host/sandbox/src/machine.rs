//! The VM as the sandbox sees it, so that the tests of the states need none.

use std::time::Duration;

use ah_vmm::{ConsoleLine, Vm, VmExit};

pub(crate) enum Machine {
    Vm(Box<Vm>),
    #[cfg(test)]
    Fake(fake::FakeVm),
}

impl Machine {
    pub(crate) async fn wait(&self) -> VmExit {
        match self {
            Self::Vm(vm) => vm.wait().await,
            #[cfg(test)]
            Self::Fake(fake) => fake.wait().await,
        }
    }

    pub(crate) fn console(&self) -> Vec<ConsoleLine> {
        match self {
            Self::Vm(vm) => vm.console().lines(),
            #[cfg(test)]
            Self::Fake(fake) => fake.console(),
        }
    }

    /// Ends it; nothing of it is left.
    pub(crate) async fn end(self) {
        match self {
            Self::Vm(vm) => {
                vm.shutdown(Duration::ZERO).await;
            }
            #[cfg(test)]
            Self::Fake(fake) => drop(fake),
        }
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use std::time::Instant;

    use tokio::sync::watch;

    use super::*;

    /// Ends when told so.
    pub(crate) struct FakeVm {
        pub(crate) exit: watch::Receiver<Option<VmExit>>,
        pub(crate) lines: Vec<&'static str>,
    }

    impl FakeVm {
        pub(crate) async fn wait(&self) -> VmExit {
            let mut exit = self.exit.clone();
            match exit.wait_for(Option::is_some).await {
                Ok(exit) => exit.clone().unwrap(),
                Err(_) => std::future::pending().await,
            }
        }

        pub(crate) fn console(&self) -> Vec<ConsoleLine> {
            let line = |text: &&str| ConsoleLine { at: Instant::now(), text: (*text).to_owned() };
            self.lines.iter().map(line).collect()
        }
    }
}
