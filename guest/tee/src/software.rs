//! The software report service on the host, over vsock.
//!
//! | direction | bytes | meaning |
//! |---|---|---|
//! | guest to host | 64 | REPORT_DATA |
//! | host to guest | 4 | report length, u32 little-endian; always 1184 |
//! | host to guest | 1184 | report in the SEV-SNP ABI |
//! | host to guest | 4 | certificate table length, u32 little-endian; at most 64 KiB |
//! | host to guest | n | certificate table |
//!
//! One exchange per connection.

use std::io::{self, Read, Write};
use std::time::Duration;

use ah_evidence::{MAX_AUXBLOB_BYTES, SNP_REPORT_BYTES, SOFTWARE_REPORT_PORT};
use vsock::{VMADDR_CID_HOST, VsockStream};

use crate::{REPORT_DATA_BYTES, RawReport, ReportError, ReportSource, Tee};

/// Longest wait for each piece of the answer. Signing takes the host milliseconds, but a guest that is emulated on a busy host counts its own seconds too fast.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a connection is tried that was not answered in time; the kernel waits 2 s of guest time for each (net/vmw_vsock, VSOCK_DEFAULT_CONNECT_TIMEOUT).
const CONNECT_TRIES: usize = 10;

/// Asks the host's software report service.
#[derive(Debug)]
pub struct Software {
    cid: u32,
    port: u32,
}

impl Software {
    pub(crate) const fn new() -> Self {
        Self { cid: VMADDR_CID_HOST, port: SOFTWARE_REPORT_PORT }
    }

    /// Connects; only a connection that nobody answered is tried again, a refusal is final.
    fn connect(&self) -> io::Result<VsockStream> {
        let connect = || VsockStream::connect_with_cid_port(self.cid, self.port);
        let unanswered = |result: &io::Result<VsockStream>| matches!(result, Err(error) if error.kind() == io::ErrorKind::TimedOut);
        let mut result = connect();
        for _ in 1..CONNECT_TRIES {
            if !unanswered(&result) {
                break;
            }
            result = connect();
        }
        result
    }
}

impl ReportSource for Software {
    fn tee(&self) -> Tee {
        Tee::Software
    }

    fn report(&self, report_data: &[u8; REPORT_DATA_BYTES]) -> Result<RawReport, ReportError> {
        let service = format!("software report service at vsock {}:{}", self.cid, self.port);
        let mut stream =
            self.connect().map_err(ReportError::io(format!("connect to {service}")))?;
        stream
            .set_read_timeout(Some(TIMEOUT))
            .and_then(|()| stream.set_write_timeout(Some(TIMEOUT)))
            .map_err(ReportError::io(format!("set a time limit for {service}")))?;
        exchange(&mut stream, report_data)
    }
}

fn exchange(
    stream: &mut (impl Read + Write),
    report_data: &[u8; REPORT_DATA_BYTES],
) -> Result<RawReport, ReportError> {
    stream
        .write_all(report_data)
        .and_then(|()| stream.flush())
        .map_err(ReportError::io("send REPORT_DATA to the software report service"))?;
    let report = read_part(stream, "report", SNP_REPORT_BYTES..=SNP_REPORT_BYTES, "exactly 1184")?;
    let auxblob = read_part(stream, "certificate table", 0..=MAX_AUXBLOB_BYTES, "at most 65536")?;
    Ok(RawReport { report, auxblob })
}

fn read_part(
    stream: &mut impl Read,
    part: &'static str,
    allowed: std::ops::RangeInclusive<usize>,
    expected: &'static str,
) -> Result<Vec<u8>, ReportError> {
    let step = || format!("read the {part} from the software report service");
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(ReportError::io(step()))?;
    // A u32 fits a usize on every 64-bit machine; elsewhere the conversion refuses.
    let found = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if !allowed.contains(&found) {
        return Err(ReportError::Length { part, found, expected });
    }
    let mut bytes = vec![0; found];
    stream.read_exact(&mut bytes).map_err(ReportError::io(step()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    struct Peer {
        answer: Cursor<Vec<u8>>,
        received: Vec<u8>,
    }

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.answer.read(buffer)
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.received.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answer(report_bytes: u32, report: &[u8], table_bytes: u32, table: &[u8]) -> Vec<u8> {
        [&report_bytes.to_le_bytes()[..], report, &table_bytes.to_le_bytes(), table].concat()
    }

    fn check(answer: Vec<u8>, expect: impl FnOnce(Result<RawReport, ReportError>)) {
        let mut peer = Peer { answer: Cursor::new(answer), received: Vec::new() };
        let result = exchange(&mut peer, &[7; 64]);
        assert_eq!(peer.received, [7; 64]);
        expect(result);
    }

    #[test]
    fn a_whole_answer_is_taken_as_it_is() {
        check(answer(1184, &[1; 1184], 3, &[2; 3]), |result| {
            let raw = result.unwrap();
            assert_eq!((raw.report, raw.auxblob), (vec![1; 1184], vec![2; 3]));
        });
        check(answer(1184, &[1; 1184], 0, &[]), |result| {
            assert!(result.unwrap().auxblob.is_empty())
        });
    }

    #[test]
    fn lengths_outside_their_limits_are_refused_before_any_memory_is_taken() {
        for (bytes, part, found) in [
            (answer(1183, &[1; 1183], 0, &[]), "report", 1183),
            (answer(1185, &[1; 1185], 0, &[]), "report", 1185),
            (answer(u32::MAX, &[], 0, &[]), "report", 0xffff_ffff),
            (answer(1184, &[1; 1184], 65_537, &[]), "certificate table", 65_537),
        ] {
            check(bytes, |result| match result.unwrap_err() {
                ReportError::Length { part: p, found: f, .. } => assert_eq!((p, f), (part, found)),
                other => panic!("{other}"),
            });
        }
    }

    #[test]
    fn a_cut_answer_is_refused() {
        let whole = answer(1184, &[1; 1184], 3, &[2; 3]);
        for length in [0, 3, 4, 1187, 1188, 1191, whole.len() - 1] {
            check(whole[..length].to_vec(), |result| {
                assert!(matches!(result.unwrap_err(), ReportError::Io { .. }));
            });
        }
    }
}
