//! One key: challenge, report, wrapped key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ah_digest::Sha256;
use ah_evidence::{Evidence, ReportData, Tee};
use ah_release_api::{
    GuestKey, KeyId, KeyKind, MessageError, PublicKey, Refusal, ReleaseRequest, Request, Response,
    RuntimeData, Secret, Seed, WrapContext, WrapError,
};
use ah_tee::{ReportError, ReportSource};
use zeroize::Zeroizing;

use crate::transport::{Exchange, ExchangeError, ServiceAddress, Transport, VsockTransport};

/// One exchange: the service verifies in milliseconds, the report takes longest (a slow security processor: seconds).
const TIMEOUT: Duration = Duration::from_secs(30);

/// A key that was released to this guest.
#[derive(Debug)]
pub struct ReleasedKey {
    /// What kind of bytes it is.
    pub kind: KeyKind,
    /// The bytes; wiped when dropped.
    pub secret: Secret,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Nobody answers at the address.
    #[error("key service cannot be reached")]
    Connect(#[source] std::io::Error),
    /// The exchange broke off or took too long.
    #[error("exchange with the key service failed")]
    Exchange(#[source] ExchangeError),
    /// The service's answer cannot be read.
    #[error("answer of the key service cannot be read")]
    Message(#[source] MessageError),
    /// The service answered a challenge with a key, or the other way round.
    #[error("key service sent {found}, expected {expected}")]
    Order {
        /// What came.
        found: &'static str,
        /// What was due.
        expected: &'static str,
    },
    /// The service said no, and why.
    #[error("{0}")]
    Refused(Refusal),
    /// No report.
    #[error("no attestation report")]
    Report(#[from] ReportError),
    /// This TEE's evidence has no form in the protocol yet.
    #[error("evidence of tee {0} cannot be sent yet")]
    Tee(ah_tee::Tee),
    /// No randomness for a key pair.
    #[error("kernel gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// What came does not open.
    #[error("released key cannot be opened")]
    Wrap(#[from] WrapError),
    /// A container asked for a report over a statement that only this client makes.
    #[error(
        "runtime data is a statement of the key-release protocol, which the release socket makes itself: ask for /v1/keys/<id>"
    )]
    Reserved,
}

/// Fetches keys and evidence for the containers of this pod.
pub struct ReleaseClient {
    transport: Box<dyn Transport>,
    service: PublicKey,
    source: Arc<dyn ReportSource>,
    timeout: Duration,
}

impl ReleaseClient {
    /// A client of the service at `address` that takes keys only from `service`, which the measured initdata names: whoever
    /// else answers there cannot hand in a key of his own.
    pub fn new(address: ServiceAddress, service: PublicKey, source: Arc<dyn ReportSource>) -> Self {
        Self::with_transport(Box::new(VsockTransport(address)), service, source, TIMEOUT)
    }

    /// A client over another byte stream; `timeout` limits each exchange as a whole.
    pub fn with_transport(
        transport: Box<dyn Transport>,
        service: PublicKey,
        source: Arc<dyn ReportSource>,
        timeout: Duration,
    ) -> Self {
        Self { transport, service, source, timeout }
    }

    /// Fetches the key `key_id`. Blocks.
    ///
    /// # Errors
    /// [`ReleaseError`]; [`ReleaseError::Refused`] carries the service's own words.
    pub fn release(&self, key_id: &KeyId) -> Result<ReleasedKey, ReleaseError> {
        let deadline = Instant::now().checked_add(self.timeout).unwrap_or_else(Instant::now);
        let connection = self.transport.connect().map_err(ReleaseError::Connect)?;
        let mut exchange = Exchange::new(connection, deadline);

        let nonce = match call(&mut exchange, &Request::Challenge {})? {
            Response::Challenge(challenge) => challenge.nonce,
            other => return Err(unexpected(other, "a challenge")),
        };
        let pair = fresh_pair()?;
        let runtime_data =
            RuntimeData { nonce, key_id: key_id.clone(), public_key: pair.public() }.to_bytes();
        let digest = Sha256::of(&runtime_data);
        let evidence = self.attest(runtime_data)?;

        let request = ReleaseRequest { key_id: key_id.clone(), evidence };
        let released = match call(&mut exchange, &Request::Release(Box::new(request)))? {
            Response::Released(released) => released,
            other => return Err(unexpected(other, "a released key")),
        };
        let context =
            WrapContext { key_id: key_id.clone(), kind: released.kind, runtime_data: digest };
        let secret = pair.open(&released.wrapped, &context, &self.service)?;
        Ok(ReleasedKey { kind: released.kind, secret })
    }

    /// Evidence over runtime data of a container's choice. Blocks.
    ///
    /// # Errors
    /// [`ReleaseError::Reserved`] for runtime data that would be a key-release statement: with a report over that, a container
    /// could have a key wrapped to a key pair of its own. [`ReleaseError::Report`] when the TEE gives no report.
    pub fn evidence(&self, runtime_data: Vec<u8>) -> Result<Evidence, ReleaseError> {
        match RuntimeData::is_reserved(&runtime_data) {
            true => Err(ReleaseError::Reserved),
            false => self.attest(runtime_data),
        }
    }

    fn attest(&self, runtime_data: Vec<u8>) -> Result<Evidence, ReleaseError> {
        let tee = match self.source.tee() {
            ah_tee::Tee::Software => Tee::Software,
            ah_tee::Tee::Snp => Tee::Snp,
            ah_tee::Tee::Tdx => Tee::Tdx,
            other @ ah_tee::Tee::AzureVtpm => return Err(ReleaseError::Tee(other)),
        };
        let report_data = ReportData::for_runtime_data(&runtime_data);
        let raw = self.source.report(report_data.as_bytes())?;
        Ok(Evidence { tee, report: raw.report, auxblob: raw.auxblob, runtime_data, initdata: None })
    }
}

fn fresh_pair() -> Result<GuestKey, ReleaseError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(ReleaseError::Random)?;
    Ok(GuestKey::from_seed(&Seed::new(*seed)))
}

fn call(exchange: &mut Exchange, request: &Request) -> Result<Response, ReleaseError> {
    let body = request.to_json().map_err(ReleaseError::Message)?;
    let answer = exchange.call(&body).map_err(ReleaseError::Exchange)?;
    Response::from_json(&answer).map_err(ReleaseError::Message)
}

fn unexpected(response: Response, expected: &'static str) -> ReleaseError {
    match response {
        Response::Refused(refusal) => ReleaseError::Refused(refusal),
        Response::Challenge(_) => ReleaseError::Order { found: "a challenge", expected },
        Response::Released(_) => ReleaseError::Order { found: "a released key", expected },
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
pub(crate) mod tests;
