//! All fields of a report, strictly read: `encode(parse(bytes)) == bytes` for every report that parses.

use ah_digest::{Digest, Sha384};

use super::fields::{
    ChipId, Cpuid, FirmwareVersion, GuestPolicy, KeyInfo, MitigationVectors, PlatformInfo, Version,
};
use super::raw::{RawReport, ReportError, SIGNED_BYTES};
use super::tcb::{Product, TcbVersion};
use crate::bytes::{Reader, Short, Writer};
use crate::report_data::{HostData, ReportData};

/// SIGNATURE_ALGO: ECDSA on P-384 with SHA-384 (ABI specification, table "signature algorithms").
const ECDSA_P384_SHA384: u32 = 1;

/// The fields of a report. What somebody claims, until `ah_verifier` says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpReport {
    /// VERSION and what came with it.
    pub version: Version,
    /// GUEST_SVN, from the ID block.
    pub guest_svn: u32,
    /// POLICY.
    pub policy: GuestPolicy,
    /// FAMILY_ID, from the ID block.
    pub family_id: [u8; 16],
    /// IMAGE_ID, from the ID block.
    pub image_id: [u8; 16],
    /// VMPL that asked for the report, 0 to 3.
    pub vmpl: u8,
    /// CURRENT_TCB: what runs.
    pub current_tcb: TcbVersion,
    /// PLATFORM_INFO.
    pub platform_info: PlatformInfo,
    /// KEY_INFO.
    pub key_info: KeyInfo,
    /// REPORT_DATA, chosen by the guest.
    pub report_data: ReportData,
    /// MEASUREMENT: the launch digest.
    pub measurement: Sha384,
    /// HOST_DATA, chosen by the host at launch.
    pub host_data: HostData,
    /// ID_KEY_DIGEST; zero without an ID block.
    pub id_key_digest: Sha384,
    /// AUTHOR_KEY_DIGEST; zero without an author key.
    pub author_key_digest: Sha384,
    /// REPORT_ID: random, one a guest launch.
    pub report_id: [u8; 32],
    /// REPORT_ID_MA: of the migration agent; all ones without one.
    pub report_id_ma: [u8; 32],
    /// REPORTED_TCB: the version that the signing key was derived for.
    pub reported_tcb: TcbVersion,
    /// CHIP_ID.
    pub chip_id: ChipId,
    /// COMMITTED_TCB: the firmware cannot go below.
    pub committed_tcb: TcbVersion,
    /// CURRENT_BUILD, _MINOR, _MAJOR.
    pub current_firmware: FirmwareVersion,
    /// COMMITTED_BUILD, _MINOR, _MAJOR.
    pub committed_firmware: FirmwareVersion,
    /// LAUNCH_TCB: what ran when the guest was launched or imported.
    pub launch_tcb: TcbVersion,
}

impl SnpReport {
    /// Reads every field and finds every reserved byte zero, those of the signature too.
    ///
    /// # Errors
    /// [`ReportError`], a variant per cause.
    pub fn parse(raw: &RawReport) -> Result<Self, ReportError> {
        let number = Version::check_number(raw.version_number())?;
        raw.signature()?;
        Fields { reader: Reader::new(raw.signed_bytes()), offset: 0 }.report(number)
    }

    /// The processor that the report names; None in version 2 and for unknown processors.
    pub fn product(&self) -> Option<Product> {
        self.version.cpuid().and_then(|cpuid| cpuid.product())
    }

    /// The part of the report that is signed.
    pub fn signed_bytes(&self) -> [u8; SIGNED_BYTES] {
        let mut out = Writer::<SIGNED_BYTES>::new();
        out.put(&self.version.number().to_le_bytes());
        out.put(&self.guest_svn.to_le_bytes());
        out.put(&self.policy.bits().to_le_bytes());
        out.put(&self.family_id);
        out.put(&self.image_id);
        out.put(&u32::from(self.vmpl).to_le_bytes());
        out.put(&ECDSA_P384_SHA384.to_le_bytes());
        out.put(&self.current_tcb.0.to_le_bytes());
        out.put(&self.platform_info.0.to_le_bytes());
        out.put(&self.key_info.bits().to_le_bytes());
        out.skip(4);
        out.put(self.report_data.as_bytes());
        out.put(self.measurement.as_bytes());
        out.put(self.host_data.as_bytes());
        out.put(self.id_key_digest.as_bytes());
        out.put(self.author_key_digest.as_bytes());
        out.put(&self.report_id);
        out.put(&self.report_id_ma);
        out.put(&self.reported_tcb.0.to_le_bytes());
        match self.version.cpuid() {
            Some(Cpuid { family, model, stepping }) => out.put(&[family, model, stepping]),
            None => out.skip(3),
        }
        out.skip(21);
        out.put(&self.chip_id.0);
        out.put(&self.committed_tcb.0.to_le_bytes());
        for FirmwareVersion { major, minor, build } in
            [self.current_firmware, self.committed_firmware]
        {
            out.put(&[build, minor, major, 0]);
        }
        out.put(&self.launch_tcb.0.to_le_bytes());
        match self.version.mitigations() {
            Some(MitigationVectors { launch, current }) => {
                out.put(&launch.to_le_bytes());
                out.put(&current.to_le_bytes());
            }
            None => out.skip(16),
        }
        out.skip(152);
        out.finish()
    }
}

/// The fields in their order, with the offset at hand for errors.
struct Fields<'a> {
    reader: Reader<'a>,
    offset: usize,
}

impl From<Short> for ReportError {
    /// Cannot happen: the signed part has a fixed length that is longer than all fields together.
    fn from(_: Short) -> Self {
        Self::Length { found: SIGNED_BYTES }
    }
}

impl Fields<'_> {
    fn report(mut self, number: u32) -> Result<SnpReport, ReportError> {
        self.u32()?;
        let guest_svn = self.u32()?;
        let policy = GuestPolicy::from_bits(self.u64()?)?;
        let family_id = self.array()?;
        let image_id = self.array()?;
        let vmpl = self.vmpl()?;
        self.signature_algorithm()?;
        let current_tcb = TcbVersion(self.u64()?);
        let platform_info = PlatformInfo(self.u64()?);
        let key_info = KeyInfo::from_bits(self.u32()?)?;
        self.zeros::<4>()?;
        let report_data = ReportData::new(self.array()?);
        let measurement = Digest::new(self.array()?);
        let host_data = Digest::new(self.array()?);
        let id_key_digest = Digest::new(self.array()?);
        let author_key_digest = Digest::new(self.array()?);
        let report_id = self.array()?;
        let report_id_ma = self.array()?;
        let reported_tcb = TcbVersion(self.u64()?);
        let cpuid = self.cpuid(number)?;
        self.zeros::<21>()?;
        let chip_id = ChipId(self.array()?);
        let committed_tcb = TcbVersion(self.u64()?);
        let current_firmware = self.firmware()?;
        let committed_firmware = self.firmware()?;
        let launch_tcb = TcbVersion(self.u64()?);
        let version = self.version(number, cpuid)?;
        self.zeros::<152>()?;
        Ok(SnpReport {
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            current_tcb,
            platform_info,
            key_info,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            author_key_digest,
            report_id,
            report_id_ma,
            reported_tcb,
            chip_id,
            committed_tcb,
            current_firmware,
            committed_firmware,
            launch_tcb,
        })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReportError> {
        self.offset = self.offset.saturating_add(N);
        Ok(self.reader.array()?)
    }

    fn u32(&mut self) -> Result<u32, ReportError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ReportError> {
        self.array().map(u64::from_le_bytes)
    }

    fn zeros<const N: usize>(&mut self) -> Result<(), ReportError> {
        let offset = self.offset;
        match self.array::<N>()? == [0; N] {
            true => Ok(()),
            false => Err(ReportError::MustBeZero { offset }),
        }
    }

    fn vmpl(&mut self) -> Result<u8, ReportError> {
        let found = self.u32()?;
        match u8::try_from(found) {
            Ok(vmpl @ 0..=3) => Ok(vmpl),
            _ => Err(ReportError::Vmpl { found }),
        }
    }

    fn signature_algorithm(&mut self) -> Result<(), ReportError> {
        match self.u32()? {
            ECDSA_P384_SHA384 => Ok(()),
            found => Err(ReportError::SignatureAlgorithm { found }),
        }
    }

    fn cpuid(&mut self, number: u32) -> Result<Cpuid, ReportError> {
        if number < 3 {
            self.zeros::<3>()?;
            return Ok(Cpuid { family: 0, model: 0, stepping: 0 });
        }
        self.array().map(|[family, model, stepping]| Cpuid { family, model, stepping })
    }

    fn firmware(&mut self) -> Result<FirmwareVersion, ReportError> {
        let [build, minor, major] = self.array()?;
        self.zeros::<1>()?;
        Ok(FirmwareVersion { major, minor, build })
    }

    fn version(&mut self, number: u32, cpuid: Cpuid) -> Result<Version, ReportError> {
        if number == 5 {
            let vectors = MitigationVectors { launch: self.u64()?, current: self.u64()? };
            return Ok(Version::V5(cpuid, vectors));
        }
        self.zeros::<16>()?;
        match number {
            2 => Ok(Version::V2),
            3 => Ok(Version::V3(cpuid)),
            4 => Ok(Version::V4(cpuid)),
            found => Err(ReportError::Version { found }),
        }
    }
}
