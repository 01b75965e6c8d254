//! Revocation lists at an appraisal, with reports of a synthetic root. Skipped, with a line that says so, where the recordings are not beside
//! this checkout.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ah_collateral::{CheckError, Folder, ListNeed, RevocationLists};
use ah_evidence::RawReport;
use ah_verifier::{Collateral, Revocation, RevocationStatus, Role, TrustedRoots, VerifyError};

const VECTORS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/reference/vectors/snp-synthetic");

struct Vectors(PathBuf);

impl Vectors {
    fn find() -> Option<Self> {
        let folder = PathBuf::from(VECTORS);
        if folder.is_dir() {
            return Some(Self(folder));
        }
        println!("skipped: no vectors at {}", folder.display());
        None
    }

    fn file(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap()
    }

    /// A report of the synthetic Milan with this list beside it, by these lists of one's own.
    fn check(
        &self,
        lists: &RevocationLists,
        presented: Option<&str>,
    ) -> Result<RevocationStatus, CheckError> {
        self.check_report(lists, presented, &self.file("milan-report-good-v5.bin"))
    }

    fn check_report(
        &self,
        lists: &RevocationLists,
        presented: Option<&str>,
        report: &[u8],
    ) -> Result<RevocationStatus, CheckError> {
        let ark = self.file("milan-ark.der");
        let roots = TrustedRoots::amd().danger_with_software_root(&ark).unwrap();
        let revocation = match presented {
            Some(name) => Revocation::List(self.file(name)),
            None => Revocation::NotChecked { reason: "the evidence has no list".to_owned() },
        };
        let collateral = Collateral {
            endorsement: self.file("milan-vcek.der"),
            intermediate: self.file("milan-ask.der"),
            root: ark,
            revocation,
        };
        let raw = RawReport::try_from(report).unwrap();
        let verified = lists.verify(&raw, collateral, now(), &roots)?;
        Ok(verified.revocation().clone())
    }
}

/// 2026-09-21; the lists are of 2024-01-01, and good until 2049.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn lists(folder: Option<&Folder>, need: ListNeed) -> RevocationLists {
    RevocationLists { folder: folder.cloned(), need, max_age: None }
}

const NEEDS: [ListNeed; 2] = [ListNeed::Optional, ListNeed::Required];

#[test]
fn attack_revoked_intermediate_by_a_list_of_ones_own() {
    let Some(vectors) = Vectors::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path());
    let import = |name: &str| folder.import(&vectors.file(name), "vcek").unwrap();
    for need in NEEDS {
        import("milan-crl-empty.der");
        let own = lists(Some(&folder), need);
        assert_eq!(vectors.check(&own, None).unwrap(), RevocationStatus::NotRevoked);
        import("milan-crl-ask-revoked.der");
        for presented in [None, Some("milan-crl-empty.der")] {
            let refused = vectors.check(&own, presented);
            let revoked = VerifyError::Revoked { role: Role::Intermediate };
            assert!(
                matches!(&refused, Err(CheckError::Verify(error)) if *error == revoked),
                "the host's list does not outweigh one's own: {refused:?}"
            );
        }
        // An age that is too much takes nothing back.
        let old = RevocationLists { max_age: Some(Duration::from_secs(1)), ..own };
        assert!(matches!(vectors.check(&old, None), Err(CheckError::Verify(_))));
    }
}

#[test]
fn attack_report_where_no_list_is_fresh() {
    let Some(vectors) = Vectors::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path());
    let day = Duration::from_secs(24 * 3600);
    let aged = |need, days: u32| RevocationLists {
        max_age: Some(day * days),
        ..lists(Some(&folder), need)
    };
    // None at all, of another root, too old, no list.
    let case = |list: Option<&[u8]>, days: u32, words: &str| {
        let path = dir.path().join("amd/Milan/vcek.crl");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&path);
        if let Some(list) = list {
            std::fs::write(&path, list).unwrap();
        }
        match vectors.check(&aged(ListNeed::Optional, days), None).unwrap() {
            RevocationStatus::NotChecked { reason } => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        }
        match vectors.check(&aged(ListNeed::Required, days), None) {
            Err(CheckError::NoList { reason }) => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        }
    };
    let good = vectors.file("milan-crl-empty.der");
    case(None, 9999, "there is no amd/Milan/vcek.crl");
    case(Some(&vectors.file("genoa-crl-empty.der")), 9999, "vcek.crl: ");
    case(Some(b"no list"), 9999, "vcek.crl: ");
    case(Some(&good), 30, "days old, expected at most 30");
    std::fs::write(dir.path().join("amd/Milan/vcek.crl"), &good).unwrap();
    for need in NEEDS {
        let found = vectors.check(&aged(need, 9999), None).unwrap();
        assert_eq!(found, RevocationStatus::NotRevoked);
    }
    // The evidence's own does where there is no other, by the same rules.
    let alone = lists(None, ListNeed::Required);
    let presented = Some("milan-crl-empty.der");
    assert_eq!(vectors.check(&alone, presented).unwrap(), RevocationStatus::NotRevoked);
    assert!(matches!(vectors.check(&alone, None), Err(CheckError::NoList { .. })));
    let old = RevocationLists { max_age: Some(day), ..alone.clone() };
    assert!(matches!(vectors.check(&old, presented), Err(CheckError::NoList { .. })));
    // Lists change nothing about a report that does not verify.
    let mut report = vectors.file("milan-report-good-v5.bin");
    report[0x50] ^= 1;
    for lists in [alone, lists(None, ListNeed::Optional)] {
        let refused = vectors.check_report(&lists, None, &report);
        assert!(matches!(refused, Err(CheckError::Verify(_))), "{refused:?}");
    }
}
