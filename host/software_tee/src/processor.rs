//! The security processor that is played: its chain, its key, its identity.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use ah_evidence::{
    CertKind, CertTable, ChipId, Cpuid, FirmwareVersion, GuestPolicy, HostData, Product, RawReport,
    ReportSignature, SnpReport, TcbParts,
};
use ah_launch::LaunchInputs;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use crate::SoftwareTeeError;
use crate::certificates::{Authority, chip_id, rsa_key};
use crate::guest::SoftwareGuest;
use crate::store::{self, Stored};

/// The machine that is played.
pub(crate) const PRODUCT: Product = Product::Genoa;
pub(crate) const CPUID: Cpuid = Cpuid { family: 0x19, model: 0x11, stepping: 1 };
/// Current firmware at the time of writing; a change needs a new folder name in the store, for the VCEK carries it.
pub(crate) const TCB: TcbParts =
    TcbParts { fmc: 0, boot_loader: 10, tee: 0, snp: 27, microcode: 88 };
pub(crate) const FIRMWARE: FirmwareVersion = FirmwareVersion { major: 1, minor: 58, build: 1 };

/// A software TEE: clones share the key.
#[derive(Clone)]
pub struct SoftwareTee {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    key: EcdsaKeyPair,
    pub(crate) chip_id: ChipId,
    root: Vec<u8>,
    pub(crate) cert_table: Vec<u8>,
}

impl SoftwareTee {
    /// Opens the software TEE in `dir`, which is made with mode 0700 and filled on first use (two RSA-4096 keys: seconds).
    ///
    /// Processes that do so at once end up with one and the same root.
    ///
    /// # Errors
    /// [`SoftwareTeeError::Permissions`] if others may read the folder, [`SoftwareTeeError::Damaged`] if it holds something
    /// else, [`SoftwareTeeError::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, SoftwareTeeError> {
        let dir = dir.as_ref();
        let stored = match store::load(dir)? {
            Some(stored) => stored,
            None => {
                store::prepare(dir)?;
                store::store(dir, &make(SystemTime::now())?)?
            }
        };
        Self::of(dir, stored)
    }

    /// The root certificate, DER: what a verifier is given by an owner who wants the software TEE accepted.
    pub fn root_der(&self) -> &[u8] {
        &self.inner.root
    }

    /// Launches a guest: measures exactly these bytes, fixes HOST_DATA and POLICY.
    ///
    /// A policy with DEBUG is launched as asked, as real firmware does; refusing it is the relying party's part.
    ///
    /// # Errors
    /// [`SoftwareTeeError::Launch`] if the launch cannot be measured, [`SoftwareTeeError::Randomness`].
    pub fn launch(
        &self,
        inputs: &LaunchInputs<'_>,
        host_data: HostData,
        policy: GuestPolicy,
    ) -> Result<SoftwareGuest, SoftwareTeeError> {
        let measurement = ah_launch::measure(inputs)?;
        SoftwareGuest::new(self.inner.clone(), measurement, host_data, policy)
    }

    fn of(dir: &Path, stored: Stored) -> Result<Self, SoftwareTeeError> {
        let damaged = |what| SoftwareTeeError::Damaged { path: dir.to_owned(), what };
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &stored.vcek_key)
            .map_err(|_| damaged("the private key is not a p-384 key"))?;
        let public = key.public_key().as_ref();
        if !stored.vcek.windows(public.len()).any(|window| window == public) {
            return Err(damaged("the vcek certificate is not of the private key"));
        }
        let chip_id =
            chip_id(&stored.vcek).ok_or_else(|| damaged("the vcek certificate names no chip"))?;
        let table = CertTable::new(vec![
            (CertKind::Vcek, stored.vcek),
            (CertKind::Ask, stored.ask),
            (CertKind::Ark, stored.ark.clone()),
        ])?;
        let cert_table = table.encode();
        Ok(Self { inner: Arc::new(Inner { key, chip_id, root: stored.ark, cert_table }) })
    }
}

impl std::fmt::Debug for SoftwareTee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SoftwareTee")
    }
}

impl Inner {
    pub(crate) fn sign(&self, report: &SnpReport) -> Result<RawReport, SoftwareTeeError> {
        let failed = || SoftwareTeeError::Crypto { what: "sign a report" };
        let signed = report.signed_bytes();
        let signature = self.key.sign(&SystemRandom::new(), &signed).map_err(|_| failed())?;
        let fixed = signature.as_ref().try_into().map_err(|_| failed())?;
        Ok(RawReport::assemble(&signed, &ReportSignature::from_fixed(fixed)))
    }
}

fn make(now: SystemTime) -> Result<Stored, SoftwareTeeError> {
    let mut chip = [0; 64];
    getrandom::fill(&mut chip).map_err(SoftwareTeeError::Randomness)?;
    let failed = || SoftwareTeeError::Crypto { what: "make an ecdsa key" };
    let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).map_err(|_| failed())?;
    let pkcs8 = key.to_pkcs8v1().map_err(|_| failed())?;
    let (root_key, intermediate_key) = std::thread::scope(|scope| {
        let other = scope.spawn(rsa_key);
        let joined = |other: Result<_, _>| other.unwrap_or_else(|_| rsa_key());
        (rsa_key(), joined(other.join()))
    });
    let root = Authority::root(root_key?, PRODUCT, now)?;
    let intermediate = root.intermediate(intermediate_key?, PRODUCT, now)?;
    let vcek = intermediate.vcek(&key, PRODUCT, TCB, &ChipId(chip), now)?;
    Ok(Stored {
        ark: root.certificate,
        ask: intermediate.certificate,
        vcek,
        vcek_key: pkcs8.as_ref().to_vec(),
    })
}
