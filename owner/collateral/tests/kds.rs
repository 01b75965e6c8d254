//! The folder and the key distribution service: a fake one on loopback that hands out what the vectors hold.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use ah_collateral::{FetchError, Folder, Kds, KdsOptions};
use ah_evidence::{Product, RawReport, SnpReport};
use ah_verifier::{Revocation, TrustedRoots, verify};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn vectors() -> Option<PathBuf> {
    let folder =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/vectors"));
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no vectors at {}", folder.display());
    None
}

/// Answers by path without the query's order; counts, and says 429 as often as it is told.
#[derive(Clone, Default)]
struct FakeKds {
    answers: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
    refusals: Arc<AtomicU32>,
    retry_after: &'static str,
}

impl FakeKds {
    fn with(self, path: &str, body: Vec<u8>) -> Self {
        self.answers.lock().unwrap().insert(path.to_owned(), body);
        self
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fake = self.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let fake = fake.clone();
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                        let mut piece = [0; 1024];
                        match stream.read(&mut piece).await {
                            Ok(length @ 1..) => request.extend(&piece[..length]),
                            _ => return,
                        }
                    }
                    let _ =
                        stream.write_all(&fake.answer(&String::from_utf8_lossy(&request))).await;
                });
            }
        });
        format!("http://{address}")
    }

    fn answer(&self, request: &str) -> Vec<u8> {
        let path = request.split(' ').nth(1).unwrap().to_owned();
        self.asked.lock().unwrap().push(path.clone());
        let refuse = |left: u32| left.checked_sub(1);
        if self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse).is_ok() {
            let head =
                "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 0\r\n";
            return format!("{head}Retry-After: {}\r\n\r\n", self.retry_after).into_bytes();
        }
        let answers = self.answers.lock().unwrap();
        let (status, body) = match answers.get(&path) {
            Some(body) => ("200 OK", body.clone()),
            None => ("404 Not Found", Vec::new()),
        };
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        [head.into_bytes(), body].concat()
    }
}

fn options(base: String) -> KdsOptions {
    KdsOptions { base, max_wait: Duration::from_secs(2), ..KdsOptions::default() }
}

fn report(bytes: &[u8]) -> (RawReport, SnpReport) {
    let raw = RawReport::try_from(&bytes[..1184]).unwrap();
    let report = SnpReport::parse(&raw).unwrap();
    (raw, report)
}

/// A real Turin report, and a service that has what it needs under the very paths; its list is the synthetic one.
fn turin(vectors: &std::path::Path) -> (RawReport, SnpReport, FakeKds) {
    let file = |path: &str| std::fs::read(vectors.join(path)).unwrap();
    let (raw, report) = report(&file("snp/ms-tav-turin/report.bin"));
    let tcb = report.reported_tcb.parts(Product::Turin).unwrap();
    let chip = report.chip_id.to_string();
    let vcek = format!(
        "/vcek/v1/Turin/{}?fmcSPL={:02}&blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
        &chip[..16],
        tcb.fmc,
        tcb.boot_loader,
        tcb.tee,
        tcb.snp,
        tcb.microcode
    );
    let chain = [file("snp/ms-tav-turin/ask.pem"), file("snp/ms-tav-turin/ark.pem")].concat();
    let fake = FakeKds { retry_after: "0", ..FakeKds::default() }
        .with(&vcek, file("snp/ms-tav-turin/vcek.pem"))
        .with("/vcek/v1/Turin/cert_chain", chain)
        .with("/vcek/v1/Turin/crl", file("snp-synthetic/turin-crl-empty.der"));
    (raw, report, fake)
}

#[tokio::test]
async fn certificates_are_fetched_once_and_then_work_offline() {
    let Some(vectors) = vectors() else { return };
    let (raw, report, fake) = turin(&vectors);
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path());
    assert!(folder.collateral(&report).is_err(), "nothing there yet");
    let kds = Kds::new(folder.clone(), options(fake.start().await)).unwrap();
    let fetched = kds.collateral(&report).await.unwrap();
    assert_eq!((fetched.downloads, fake.asked()), (3, 3));
    let again = kds.collateral(&report).await.unwrap();
    assert_eq!((again.downloads, fake.asked()), (0, 3), "all of it is fresh");
    let mut offline = folder.collateral(&report).unwrap();
    assert_eq!(offline, fetched.collateral);
    assert!(matches!(offline.revocation, Revocation::List(_)));
    // The list is of a synthetic root: the verifier sees that, nobody else has to.
    let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    assert!(verify(&raw, &offline, now, &TrustedRoots::amd()).is_err());
    offline.revocation = Revocation::NotChecked { reason: "test".to_owned() };
    verify(&raw, &offline, now, &TrustedRoots::amd()).unwrap();
}

#[tokio::test]
async fn throttling_is_waited_out_and_known_to_all_processes() {
    let Some(vectors) = vectors() else { return };
    let (_, report, fake) = turin(&vectors);
    let dir = tempfile::tempdir().unwrap();
    fake.refusals.store(2, Ordering::SeqCst);
    let base = fake.start().await;
    let kds = Kds::new(Folder::new(dir.path()), options(base.clone())).unwrap();
    assert_eq!(kds.collateral(&report).await.unwrap().downloads, 3);
    assert_eq!(fake.asked(), 5);
    // An hour is longer than anybody waits; a second process does not even ask.
    let other = FakeKds { retry_after: "3600", ..fake };
    other.refusals.store(100, Ordering::SeqCst);
    let empty = tempfile::tempdir().unwrap();
    let kds = || async {
        let kds = Kds::new(Folder::new(empty.path()), options(other.start().await)).unwrap();
        kds.collateral(&report).await
    };
    assert!(matches!(kds().await, Err(FetchError::Throttled { .. })));
    let asked = other.asked();
    assert!(matches!(kds().await, Err(FetchError::Throttled { .. })));
    assert_eq!(other.asked(), asked, "the second one did not ask");
}

#[tokio::test]
async fn many_at_once_ask_once() {
    let Some(vectors) = vectors() else { return };
    let (_, report, fake) = turin(&vectors);
    let dir = tempfile::tempdir().unwrap();
    let base = fake.start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let kds = Kds::new(Folder::new(dir.path()), options(base.clone())).unwrap();
        let report = report.clone();
        tasks.spawn(async move { kds.collateral(&report).await.unwrap().downloads });
    }
    let downloads: u32 = tasks.join_all().await.into_iter().sum();
    assert_eq!((downloads, fake.asked()), (3, 3));
}

#[tokio::test]
async fn what_is_stale_is_used_while_it_is_fetched_anew() {
    let Some(vectors) = vectors() else { return };
    let (_, report, fake) = turin(&vectors);
    let dir = tempfile::tempdir().unwrap();
    let base = fake.start().await;
    let fresh = Kds::new(Folder::new(dir.path()), options(base.clone())).unwrap();
    fresh.collateral(&report).await.unwrap();
    let aged = KdsOptions { fresh: Duration::ZERO, ..options(base.clone()) };
    let aged = Kds::new(Folder::new(dir.path()), aged).unwrap();
    assert_eq!(aged.collateral(&report).await.unwrap().downloads, 0, "at once, from the folder");
    while fake.asked() < 5 {
        tokio::task::yield_now().await;
    }
    // Beyond that it is fetched first; and where the service is gone, the old one is still handed to the verifier.
    // In a folder of its own, for the refreshing above may still be writing.
    let dir = tempfile::tempdir().unwrap();
    let fresh = Kds::new(Folder::new(dir.path()), options(base.clone())).unwrap();
    fresh.collateral(&report).await.unwrap();
    let old = KdsOptions { fresh: Duration::ZERO, stale: Duration::ZERO, ..options(base) };
    let old = Kds::new(Folder::new(dir.path()), old).unwrap();
    assert_eq!(old.collateral(&report).await.unwrap().downloads, 2);
    fake.answers.lock().unwrap().clear();
    assert_eq!(old.collateral(&report).await.unwrap().downloads, 0);
}

#[tokio::test]
async fn attack_answers_that_are_no_certificates_are_not_kept() {
    let Some(vectors) = vectors() else { return };
    let (_, report, fake) = turin(&vectors);
    for answer in fake.answers.lock().unwrap().values_mut() {
        *answer = b"<html>sorry</html>".to_vec();
    }
    let dir = tempfile::tempdir().unwrap();
    let kds = Kds::new(Folder::new(dir.path()), options(fake.start().await)).unwrap();
    assert!(matches!(kds.collateral(&report).await, Err(FetchError::Answer { .. })));
    assert!(Folder::new(dir.path()).collateral(&report).is_err());
    fake.answers.lock().unwrap().clear();
    assert!(matches!(kds.collateral(&report).await, Err(FetchError::NotFound { .. })));
    let none = Kds::new(Folder::new(dir.path()), options("ftp://x".to_owned()));
    assert!(matches!(none, Err(FetchError::Address { .. })));
}

#[test]
fn files_are_imported_by_what_they_say() {
    let Some(vectors) = vectors() else { return };
    let file = |path: &str| std::fs::read(vectors.join(path)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path());
    // THIM's JSON, for a version 2 report whose product line only the certificate names.
    let (_, milan) = report(&file("snp/ms-aci/snp_report.bin"));
    let thim = file("snp/ms-aci/uvm_host_amd_certificate.json");
    let names = folder.import(&thim, "thim.json").unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("amd/Milan/vcek-") && names[1] == "amd/Milan/vcek-chain.pem");
    assert!(folder.collateral(&milan).is_ok());
    // One certificate after the other.
    let (_, genoa) = report(&file("snp/lunal-genoa-v5/report.bin"));
    folder.import(&file("snp/lunal-genoa-v5/vcek.der"), "vcek.der").unwrap();
    assert!(folder.collateral(&genoa).is_err(), "no intermediate yet");
    folder.import(&file("snp/roots/genoa-ask.der"), "ask.der").unwrap();
    let list = folder.import(&file("snp-synthetic/genoa-crl-empty.der"), "list.der").unwrap();
    assert_eq!(list, ["amd/Genoa/vcek.crl"]);
    assert!(matches!(folder.collateral(&genoa).unwrap().revocation, Revocation::List(_)));
    let vlek = folder.import(&file("snp/trustee-milan-vlek/vlek.der"), "vlek.der").unwrap();
    assert!(vlek[0].starts_with("amd/Milan/vlek-"), "{vlek:?}");
    folder.import(&file("snp/roots/milan-asvk.der"), "asvk.der").unwrap();
    let (_, leased) = report(&file("snp/trustee-milan-vlek/report.bin"));
    assert!(folder.collateral(&leased).is_ok());
    let intel = folder.import(&file("tdx/dcapqvl-tdx-collateral.json"), "tdx.json").unwrap();
    assert!(intel[0].starts_with("intel/"), "{intel:?}");
    assert_eq!(folder.quote_collateral().unwrap().len(), 1);
    assert!(folder.import(b"hello", "x").is_err());
}

#[tokio::test]
async fn lists_of_product_lines_are_fetched_while_they_are_old() {
    let Some(vectors) = vectors() else { return };
    let list = std::fs::read(vectors.join("snp-synthetic/milan-crl-empty.der")).unwrap();
    let fake = FakeKds { retry_after: "0", ..FakeKds::default() }
        .with("/vcek/v1/Milan/crl", list.clone())
        .with("/vlek/v1/Milan/crl", list.clone());
    let dir = tempfile::tempdir().unwrap();
    let kds = Kds::new(Folder::new(dir.path()), options(fake.start().await)).unwrap();
    let milan = [Product::Milan];
    assert_eq!(kds.refresh_lists(&milan).await, [""; 0]);
    assert_eq!(std::fs::read(dir.path().join("amd/Milan/vcek.crl")).unwrap(), list);
    assert_eq!(kds.refresh_lists(&milan).await, [""; 0]);
    assert_eq!(fake.asked(), 2, "fresh ones are not asked for");
    let both = [Product::Genoa, Product::Milan];
    let failed = kds.refresh_lists(&both).await;
    assert!(failed.len() == 2 && failed[0].starts_with("amd/Genoa/vcek.crl: "), "{failed:?}");
}

/// Whoever answers in the service's place has an old list, from before a key was revoked, or one of another root.
#[tokio::test]
async fn attack_older_or_foreign_list_in_the_place_of_the_one_that_is_there() {
    let Some(vectors) = vectors() else { return };
    let list = |name: &str| std::fs::read(vectors.join("snp-synthetic").join(name)).unwrap();
    let issued = |time: &[u8; 13]| {
        let mut list = list("milan-crl-empty.der");
        let at = list.windows(13).position(|window| window == b"240101000000Z").unwrap();
        list[at..at + 13].copy_from_slice(time);
        list
    };
    let renamed = {
        let mut list = issued(b"250601000000Z");
        let at = list.windows(11).position(|window| window == b"Santa Clara").unwrap();
        list[at..at + 11].copy_from_slice(b"Santa Elena");
        list
    };
    let there = issued(b"250101000000Z");
    let fake = FakeKds { retry_after: "0", ..FakeKds::default() };
    let base = fake.start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("amd/Milan/vcek.crl");
    let old = KdsOptions { fresh: Duration::ZERO, ..options(base) };
    let kds = Kds::new(Folder::new(dir.path()), old).unwrap();
    let answer = async |list: Vec<u8>| {
        let _ = fake.clone().with("/vcek/v1/Milan/crl", list);
        let said = kds.refresh_lists(&[Product::Milan]).await;
        said.into_iter().find(|words| words.starts_with("amd/Milan/vcek.crl: "))
    };
    let said = answer(list("genoa-crl-empty.der")).await.unwrap();
    assert!(said.contains("CN=ARK-Genoa") && said.contains("expected CN=ARK-Milan"), "{said}");
    assert!(!file.exists(), "nor is it kept where there is none");
    assert_eq!(answer(there.clone()).await, None);
    for (attack, words) in [
        (issued(b"241231235959Z"), "was issued 2024-12-31T23:59:59Z"),
        (list("genoa-crl-empty.der"), "CN=ARK-Genoa"),
        (renamed, "Santa Elena"),
        (issued(b"490101000000Z"), "was issued 2049-01-01T00:00:00Z"),
    ] {
        let said = answer(attack).await.unwrap();
        assert!(said.contains(words) && said.contains("expected "), "{said}");
        assert_eq!(std::fs::read(&file).unwrap(), there, "{said}");
    }
    for newer in [there.clone(), issued(b"250101000001Z")] {
        assert_eq!(answer(newer.clone()).await, None);
        assert_eq!(std::fs::read(&file).unwrap(), newer);
    }
    // What cannot be read, or is of a time to come, is nothing to keep.
    for old in [b"x".to_vec(), issued(b"490101000000Z")] {
        std::fs::write(&file, old).unwrap();
        assert_eq!(answer(there.clone()).await, None);
        assert_eq!(std::fs::read(&file).unwrap(), there);
    }
}
