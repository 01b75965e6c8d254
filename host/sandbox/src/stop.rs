//! How a person ends a running pod: once for its own way, twice for at once.

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    GoOn,
    End,
    EndNow,
}

/// The asking side.
#[derive(Clone, Debug)]
pub struct StopHandle(watch::Sender<Wish>);

/// The asked side.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Wish>);

impl Stop {
    /// Both sides. Without a handle nobody asks.
    pub fn new() -> (StopHandle, Self) {
        let (sender, receiver) = watch::channel(Wish::GoOn);
        (StopHandle(sender), Self(receiver))
    }

    /// A pod that nobody stops.
    pub fn never() -> Self {
        Self::new().1
    }

    /// Returns when an end is wished for.
    pub(crate) async fn requested(&mut self) {
        self.at_least(Wish::End).await;
    }

    /// Returns when an end at once is wished for.
    pub(crate) async fn requested_now(&mut self) {
        self.at_least(Wish::EndNow).await;
    }

    async fn at_least(&mut self, wish: Wish) {
        if self.0.wait_for(|current| *current >= wish).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl StopHandle {
    /// The containers get their stop signal and their grace period. Asked again: [`StopHandle::end_now`].
    pub fn end(&self) {
        self.0.send_modify(|wish| {
            *wish = match wish {
                Wish::GoOn => Wish::End,
                Wish::End | Wish::EndNow => Wish::EndNow,
            };
        });
    }

    /// The VM ends at once.
    pub fn end_now(&self) {
        self.0.send_replace(Wish::EndNow);
    }
}
