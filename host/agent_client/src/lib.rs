//! The host end of the agent protocol, over vsock or a unix socket that bridges to it.
//!
//! The agent's answers are kept as they are: a denial's text comes from the policy in the guest, and people
//! read it. What is sent can be altered on the way out by a [`Tamper`]: the host is untrusted by design, and
//! the attack tests play it.
#![forbid(unsafe_code)]

mod calls;
mod error;
mod tamper;
mod trace;

use std::{sync::Arc, time::Duration};

use ah_agent_api::{AGENT_SERVICE, Wire, decode, encode};
use tokio::net::UnixStream;
use ttrpc::{asynchronous::Client, asynchronous::transport::Socket, proto::KeyValue};

pub use calls::{Stream, WaitStatus};
pub use error::CallError;
pub use tamper::{RawCall, Tamper};
pub use trace::{Hears, Made, Place, in_trace, place};

/// Longest that an ordinary call may take: creating a container opens its layers.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// A connection to the agent. Clones share it; calls run side by side.
#[derive(Clone)]
pub struct AgentClient {
    client: Client,
    tamper: Option<Arc<dyn Tamper>>,
}

impl std::fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentClient").field("tampered", &self.tamper.is_some()).finish()
    }
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So long.
    Within(Duration),
    /// Until the connection ends: for calls that wait for something to happen in the guest.
    Unlimited,
}

impl AgentClient {
    /// Speaks the protocol on a stream that leads to the agent's port. Call it inside a tokio runtime.
    pub fn new(stream: UnixStream) -> Self {
        Self { client: Client::new(Socket::from(stream)), tamper: None }
    }

    /// The same connection with every call altered on its way out.
    pub fn with_tamper(self, tamper: Arc<dyn Tamper>) -> Self {
        Self { tamper: Some(tamper), ..self }
    }

    /// Calls a method of the agent service.
    ///
    /// # Errors
    /// [`CallError`], split by blame.
    pub async fn call<Req: Wire, Resp: Wire>(
        &self,
        method: &'static str,
        request: &Req,
        limit: Limit,
    ) -> Result<Resp, CallError> {
        self.call_service(AGENT_SERVICE, method, request, limit).await
    }

    pub(crate) async fn call_service<Req: Wire, Resp: Wire>(
        &self,
        service: &'static str,
        method: &'static str,
        request: &Req,
        limit: Limit,
    ) -> Result<Resp, CallError> {
        let begun = trace::Begun::now(limit);
        let said = begun.metadata();
        let answer = self.exchange(service, method, request, limit, said).await;
        begun.ended(method, &answer);
        answer
    }

    async fn exchange<Req: Wire, Resp: Wire>(
        &self,
        service: &'static str,
        method: &'static str,
        request: &Req,
        limit: Limit,
        metadata: Vec<KeyValue>,
    ) -> Result<Resp, CallError> {
        let payload = encode(request).map_err(|source| CallError::Request { method, source })?;
        let call = RawCall { service: service.into(), method: method.into(), payload };
        let calls = match &self.tamper {
            Some(tamper) => tamper.alter(call),
            None => vec![call],
        };
        let mut answer = Vec::new();
        for call in calls {
            answer = self.send(method, call, limit, metadata.clone()).await?;
        }
        decode(&answer).map_err(|source| CallError::Answer { method, source })
    }

    async fn send(
        &self,
        method: &'static str,
        call: RawCall,
        limit: Limit,
        metadata: Vec<KeyValue>,
    ) -> Result<Vec<u8>, CallError> {
        let timeout_nano = match limit {
            Limit::Within(limit) => i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX),
            Limit::Unlimited => 0,
        };
        let request = ttrpc::Request {
            service: call.service,
            method: call.method,
            payload: call.payload,
            timeout_nano,
            metadata,
            ..Default::default()
        };
        match self.client.request(request).await {
            Ok(response) => Ok(response.payload),
            Err(error) => Err(CallError::from_ttrpc(method, error)),
        }
    }
}

#[cfg(test)]
mod tests;
