//! What the software TEE promises, without any verifier of the project: openssl checks the chain.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use ah_digest::Digest;
use ah_evidence::{CertKind, CertTable, GuestPolicy, HostData, ReportWithCerts, SnpReport};
use ah_launch::{LaunchInputs, PAGE_BYTES};
use ah_software_tee::{SoftwareGuest, SoftwareTee, SoftwareTeeError};

const FIRMWARE: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

const INPUTS: LaunchInputs<'_> = LaunchInputs {
    firmware: &FIRMWARE,
    kernel: b"kernel",
    initrd: b"initrd",
    cmdline: "quiet",
    vcpus: 1,
    vcpu_sig: 0,
    sev_features: 1,
};

const HOST_DATA: HostData = Digest::new([4; 32]);

fn launch(dir: &Path, policy: GuestPolicy) -> SoftwareGuest {
    SoftwareTee::open(dir).unwrap().launch(&INPUTS, HOST_DATA, policy).unwrap()
}

/// A connection that hands out a request and takes the response.
struct Wire {
    request: std::io::Cursor<Vec<u8>>,
    response: Vec<u8>,
}

impl std::io::Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.request.read(buffer)
    }
}

impl std::io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.response.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn reports_carry_what_the_guest_is_and_asked() {
    let dir = tempfile::tempdir().unwrap();
    let guest = launch(dir.path(), GuestPolicy::STRICT);
    let mut wire = Wire { request: std::io::Cursor::new(vec![9; 64]), response: vec![] };
    guest.serve(&mut wire).unwrap();
    let answer = ReportWithCerts::decode(&wire.response).unwrap();
    let report = SnpReport::parse(&answer.report).unwrap();
    assert_eq!(report.report_data.as_bytes(), &[9; 64]);
    assert_eq!(report.host_data, HOST_DATA);
    assert_eq!(report.measurement, ah_launch::measure(&INPUTS).unwrap());
    assert!(!report.policy.debug_allowed());
    let table = CertTable::decode(&answer.auxblob).unwrap();
    assert_eq!(table.entries().len(), 3);
    let debug = launch(dir.path(), GuestPolicy::STRICT.with_debug()).report(&[0; 64]).unwrap();
    assert!(SnpReport::parse(&debug.report).unwrap().policy.debug_allowed());
    openssl_accepts(dir.path(), &table);

    let mut wire = Wire { request: std::io::Cursor::new(vec![9; 63]), response: vec![] };
    assert!(matches!(guest.serve(&mut wire), Err(SoftwareTeeError::Exchange(_))));
    assert!(wire.response.is_empty());
}

fn openssl_accepts(dir: &Path, table: &CertTable) {
    for (kind, name) in [(CertKind::Ark, "a"), (CertKind::Ask, "b"), (CertKind::Vcek, "c")] {
        let der = dir.join(name);
        std::fs::write(&der, table.certificate(kind).unwrap()).unwrap();
        let status = Command::new("openssl")
            .args(["x509", "-inform", "der", "-in"])
            .arg(&der)
            .arg("-out")
            .arg(dir.join(format!("{name}.pem")))
            .status();
        let Ok(status) = status else {
            println!("skipped: no openssl on this machine");
            return;
        };
        assert!(status.success());
    }
    let output = Command::new("openssl")
        .current_dir(dir)
        .args(["verify", "-CAfile", "a.pem", "-untrusted", "b.pem", "c.pem"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn first_use_at_once_makes_one_root() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tee");
    let roots: Vec<_> = std::thread::scope(|scope| {
        let open = || SoftwareTee::open(&path).unwrap().root_der().to_vec();
        let threads = [scope.spawn(open), scope.spawn(open)];
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(roots[0], roots[1]);
    assert_eq!(SoftwareTee::open(&path).unwrap().root_der(), roots[0]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("v1/vcek.pk8")), 0o600);
    let names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["v1"], "nothing is left behind");
    refuses_open_and_damaged_folders(&path);
}

fn refuses_open_and_damaged_folders(path: &Path) {
    let key = path.join("v1/vcek.pk8");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(matches!(
        SoftwareTee::open(path),
        Err(SoftwareTeeError::Permissions { mode: 0o640, .. })
    ));
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&key, b"x").unwrap();
    assert!(matches!(SoftwareTee::open(path), Err(SoftwareTeeError::Damaged { .. })));
}
