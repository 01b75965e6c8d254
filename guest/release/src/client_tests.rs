use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use ah_release_api::{Challenge, Nonce, RefusedBy, Released, ServiceKey, WrappedKey, frame};

use super::*;
use crate::transport::Connection;

/// Remembers what it was asked to report on.
#[derive(Default)]
pub(crate) struct FakeTee {
    pub(crate) asked: Mutex<Vec<[u8; 64]>>,
}

impl ReportSource for FakeTee {
    fn tee(&self) -> ah_tee::Tee {
        ah_tee::Tee::Software
    }

    fn report(&self, report_data: &[u8; 64]) -> Result<ah_tee::RawReport, ReportError> {
        self.asked.lock().unwrap().push(*report_data);
        Ok(ah_tee::RawReport { report: vec![5; 1184], auxblob: vec![] })
    }
}

type Handler = dyn Fn(Request) -> Response + Send + Sync;

/// A key service without verification: answers each frame with what `handler` says.
pub(crate) struct FakeService(pub(crate) Arc<Handler>);

impl Transport for FakeService {
    fn connect(&self) -> io::Result<Box<dyn Connection>> {
        let (near, mut far) = UnixStream::pair()?;
        let handler = self.0.clone();
        std::thread::spawn(move || {
            while let Ok(request) = read(&mut far) {
                let answer = handler(Request::from_json(&request).unwrap()).to_json().unwrap();
                if far.write_all(&frame::encode(&answer).unwrap()).is_err() {
                    return;
                }
            }
        });
        Ok(Box::new(near))
    }
}

fn read(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut header = [0; 4];
    stream.read_exact(&mut header)?;
    let mut body = vec![0; frame::body_length(header).unwrap()];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn service_key(seed: u8) -> ServiceKey {
    ServiceKey::from_seed(&Seed::new([seed; 32]))
}

fn wrap(request: &ReleaseRequest, service: &ServiceKey, secret: &[u8]) -> WrappedKey {
    let data = RuntimeData::parse(&request.evidence.runtime_data).unwrap();
    assert_eq!((&data.key_id, data.nonce), (&request.key_id, Nonce::new([4; 32])));
    let context = WrapContext {
        key_id: request.key_id.clone(),
        kind: KeyKind::Oct,
        runtime_data: Sha256::of(&request.evidence.runtime_data),
    };
    let secret = Secret::new(secret.to_vec()).unwrap();
    service.wrap(&secret, &data.public_key, &context, Seed::new([3; 32])).unwrap()
}

/// A service that releases `secret` for any request.
pub(crate) fn releasing(secret: &'static [u8]) -> FakeService {
    FakeService(Arc::new(move |request| match request {
        Request::Challenge {} => challenge(),
        Request::Release(request) => Response::Released(Released {
            kind: KeyKind::Oct,
            wrapped: wrap(&request, &service_key(1), secret),
        }),
    }))
}

pub(crate) fn challenge() -> Response {
    Response::Challenge(Challenge { nonce: Nonce::new([4; 32]), expires_in_s: 60 })
}

pub(crate) fn client(service: FakeService) -> (ReleaseClient, Arc<FakeTee>) {
    let tee = Arc::new(FakeTee::default());
    let timeout = Duration::from_secs(5);
    (
        ReleaseClient::with_transport(
            Box::new(service),
            service_key(1).public(),
            tee.clone(),
            timeout,
        ),
        tee,
    )
}

fn key_id() -> KeyId {
    "demo/message".parse().unwrap()
}

#[track_caller]
fn refused(service: FakeService) -> ReleaseError {
    client(service).0.release(&key_id()).unwrap_err()
}

#[test]
fn a_key_comes_out_and_the_report_binds_the_request() {
    let (client, tee) = client(releasing(b"secret"));
    assert_eq!(client.release(&key_id()).unwrap().secret.as_bytes(), b"secret");
    assert_eq!(client.release(&key_id()).unwrap().secret.as_bytes(), b"secret");
    let asked = tee.asked.lock().unwrap();
    assert_ne!(asked[0], asked[1], "each exchange has a key pair of its own");
    assert_eq!(asked[0][32..], [0; 32]);
}

/// The host answers in the service's place with a key that it knows: under its own name, then under the owner's.
#[test]
fn attack_key_of_another_key_service() {
    let host = |name: PublicKey| {
        FakeService(Arc::new(move |request| match request {
            Request::Challenge {} => challenge(),
            Request::Release(request) => {
                let mut wrapped = wrap(&request, &service_key(2), b"known to the host");
                wrapped.service = name;
                Response::Released(Released { kind: KeyKind::Oct, wrapped })
            }
        }))
    };
    let error = refused(host(service_key(2).public()));
    assert!(matches!(error, ReleaseError::Wrap(WrapError::OtherService { .. })), "{error}");
    let error = refused(host(service_key(1).public()));
    assert!(matches!(error, ReleaseError::Wrap(WrapError::DoesNotOpen)), "{error}");
    assert!(client(releasing(b"the owner's")).0.release(&key_id()).is_ok());
}

#[test]
fn attack_answer_of_another_request() {
    let kept: Mutex<Option<Response>> = Mutex::new(None);
    let service = FakeService(Arc::new(move |request| match request {
        Request::Challenge {} => challenge(),
        Request::Release(request) => kept
            .lock()
            .unwrap()
            .get_or_insert_with(|| {
                let wrapped = wrap(&request, &service_key(1), b"secret");
                Response::Released(Released { kind: KeyKind::Oct, wrapped })
            })
            .clone(),
    }));
    let (client, _) = client(service);
    assert!(client.release(&key_id()).is_ok());
    let replayed = client.release(&key_id());
    assert!(matches!(replayed, Err(ReleaseError::Wrap(WrapError::DoesNotOpen))));
}

#[test]
fn attack_kind_of_the_key_changed_on_the_way() {
    let service = FakeService(Arc::new(move |request| match request {
        Request::Challenge {} => challenge(),
        Request::Release(request) => {
            let wrapped = wrap(&request, &service_key(1), b"secret");
            Response::Released(Released { kind: KeyKind::Opaque, wrapped })
        }
    }));
    let error = refused(service);
    assert!(matches!(error, ReleaseError::Wrap(WrapError::DoesNotOpen)));
}

#[test]
fn a_refusal_keeps_the_services_words() {
    let words =
        || Response::Refused(Refusal::new(RefusedBy::KeyStore, "there is no key demo/message"));
    let at_once = FakeService(Arc::new(move |_| words()));
    let later = FakeService(Arc::new(move |request| match request {
        Request::Challenge {} => challenge(),
        Request::Release(_) => words(),
    }));
    for service in [at_once, later] {
        let error = refused(service).to_string();
        assert_eq!(error, "refused by the key store: there is no key demo/message");
    }
}

#[test]
fn answers_out_of_order_and_silence_are_errors() {
    let stuck = FakeService(Arc::new(|_| challenge()));
    let error = refused(stuck);
    assert!(matches!(error, ReleaseError::Order { found: "a challenge", .. }), "{error}");

    let silent = FakeService(Arc::new(|_| {
        std::thread::sleep(Duration::from_secs(2));
        challenge()
    }));
    let tee = Arc::new(FakeTee::default());
    let timeout = Duration::from_millis(100);
    let client = ReleaseClient::with_transport(
        Box::new(silent),
        service_key(1).public(),
        tee.clone(),
        timeout,
    );
    let error = client.release(&key_id()).unwrap_err();
    assert!(matches!(error, ReleaseError::Exchange(ExchangeError::Timeout)), "{error}");
    assert!(tee.asked.lock().unwrap().is_empty());
}

#[test]
fn evidence_binds_runtime_data() {
    let (client, tee) = client(releasing(b""));
    let evidence = client.evidence(b"mine".to_vec()).unwrap();
    assert_eq!(
        (evidence.tee, evidence.runtime_data.as_slice()),
        (Tee::Software, b"mine".as_slice())
    );
    assert_eq!(tee.asked.lock().unwrap()[0], *ReportData::for_runtime_data(b"mine").as_bytes());
}

/// A container that has the socket makes a statement with its own public key, to have the key wrapped past this client.
#[test]
fn attack_container_asks_for_evidence_over_a_release_statement() {
    let (client, tee) = client(releasing(b""));
    let data = RuntimeData {
        nonce: Nonce::new([4; 32]),
        key_id: key_id(),
        public_key: PublicKey::new([9; 32]),
    };
    let next_version =
        String::from_utf8(data.to_bytes()).unwrap().replace("release/1", "release/2");
    for statement in [data.to_bytes(), next_version.into_bytes()] {
        assert!(matches!(client.evidence(statement), Err(ReleaseError::Reserved)));
    }
    assert!(tee.asked.lock().unwrap().is_empty(), "no report over it ever exists");
    assert!(client.evidence(b"anchorhold-key-releas".to_vec()).is_ok());
}
