//! The byte stream to the key service.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;
use std::time::{Duration, Instant};

use ah_release_api::frame::{self, FrameError, HEADER_BYTES};
use vsock::VsockStream;

/// Address of a key service as the guest settings give it: `vsock://<cid>:<port>`, decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceAddress {
    /// Context id; 2 is the host.
    pub cid: u32,
    /// Port.
    pub port: u32,
}

/// A text that is no address of a key service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key service address is {found:?}, expected vsock://<cid>:<port>")]
pub struct AddressError {
    /// The text, at most 160 characters of it.
    pub found: String,
}

impl FromStr for ServiceAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let parse = || {
            let (cid, port) = text.strip_prefix("vsock://")?.split_once(':')?;
            Some(Self { cid: decimal(cid)?, port: decimal(port)? })
        };
        parse().ok_or_else(|| AddressError { found: text.chars().take(160).collect() })
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vsock://{}:{}", self.cid, self.port)
    }
}

/// One number has one form: no sign, no leading zero.
fn decimal(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Most bytes that the guest hands to a vsock connection at once. Linux (6.12) gives a packet of more than 32 KiB to the device in
/// several descriptors, of which vhost-device-vsock 0.3 takes the first and drops the others without a word: the peer
/// then waits for the rest for ever.
pub const MAX_WRITE_BYTES: usize = 16 << 10;

/// A stream whose reads and writes can be given a time limit.
pub trait Connection: Read + Write + Send {
    /// Limits each following read and write.
    ///
    /// # Errors
    /// As the socket says.
    fn set_timeout(&self, timeout: Duration) -> io::Result<()>;
}

/// Connects to one key service.
pub trait Transport: Send + Sync {
    /// A new connection.
    ///
    /// # Errors
    /// When nobody answers.
    fn connect(&self) -> io::Result<Box<dyn Connection>>;
}

/// The transport of a VM: vsock.
#[derive(Debug, Clone, Copy)]
pub struct VsockTransport(pub ServiceAddress);

impl Transport for VsockTransport {
    /// The kernel gives up after 2 s (Linux `VSOCK_DEFAULT_CONNECT_TIMEOUT`).
    fn connect(&self) -> io::Result<Box<dyn Connection>> {
        Ok(Box::new(VsockStream::connect_with_cid_port(self.0.cid, self.0.port)?))
    }
}

impl Connection for VsockStream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl Connection for std::os::unix::net::UnixStream {
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

/// Why a message did not go or come.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The stream failed or ended.
    #[error("stream failed")]
    Io(#[from] io::Error),
    /// The deadline passed.
    #[error("time is up")]
    Timeout,
    /// The peer announced a message of a length that is not allowed.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Frames over a connection, all within one deadline.
pub(crate) struct Exchange {
    connection: Box<dyn Connection>,
    deadline: Instant,
}

impl Exchange {
    pub(crate) fn new(connection: Box<dyn Connection>, deadline: Instant) -> Self {
        Self { connection, deadline }
    }

    /// Sends one message and reads the answer to it.
    pub(crate) fn call(&mut self, body: &[u8]) -> Result<Vec<u8>, ExchangeError> {
        let frame = frame::encode(body)?;
        let mut rest = frame.as_slice();
        while !rest.is_empty() {
            self.arm()?;
            match self.connection.write(rest.get(..MAX_WRITE_BYTES).unwrap_or(rest)) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) => again(error)?,
            }
        }
        let mut header = [0; HEADER_BYTES];
        self.fill(&mut header)?;
        let mut answer = vec![0; frame::body_length(header)?];
        self.fill(&mut answer)?;
        Ok(answer)
    }

    fn fill(&mut self, mut rest: &mut [u8]) -> Result<(), ExchangeError> {
        while !rest.is_empty() {
            self.arm()?;
            match self.connection.read(rest) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
                Err(error) => again(error)?,
            }
        }
        Ok(())
    }

    /// What is left of the deadline limits the next step: a peer that trickles bytes gains nothing.
    fn arm(&self) -> Result<(), ExchangeError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(ExchangeError::Timeout);
        }
        Ok(self.connection.set_timeout(left)?)
    }
}

/// An interrupted or timed-out step is tried again until the deadline says no.
fn again(error: io::Error) -> Result<(), ExchangeError> {
    match error.kind() {
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(()),
        _ => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn an_address_has_one_form() {
        let address = ServiceAddress { cid: 2, port: 1031 };
        assert_eq!("vsock://2:1031".parse(), Ok(address));
        assert_eq!(address.to_string(), "vsock://2:1031");
        let refused = [
            "",
            "2:1031",
            "vsock://2",
            "vsock://2:",
            "vsock://+2:1031",
            "vsock://2:01031",
            "vsock://2:1031/",
            "VSOCK://2:1031",
            "vsock://2:4294967296",
            "tcp://2:1031",
            "vsock:// 2:1031",
        ];
        for text in refused {
            assert!(text.parse::<ServiceAddress>().is_err(), "{text}");
        }
    }

    /// What a peer sends, and what the exchange makes of it within 300 ms.
    fn answered(bytes: &'static [u8], pause: Duration) -> Result<Vec<u8>, ExchangeError> {
        let (near, mut far) = UnixStream::pair().unwrap();
        let peer = std::thread::spawn(move || {
            let mut request = [0; 6];
            far.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"\0\0\0\x02{}");
            for byte in bytes {
                std::thread::sleep(pause);
                if far.write_all(&[*byte]).is_err() {
                    return;
                }
            }
        });
        let deadline = Instant::now() + Duration::from_millis(300);
        let answer = Exchange::new(Box::new(near), deadline).call(b"{}");
        peer.join().unwrap();
        answer
    }

    #[test]
    fn one_message_goes_and_one_comes() {
        assert_eq!(answered(b"\0\0\0\x03abc", Duration::ZERO).unwrap(), b"abc");
    }

    /// Takes all that is written and remembers the pieces; answers with one byte.
    struct Pieces(std::sync::Arc<std::sync::Mutex<Vec<usize>>>, io::Cursor<[u8; 5]>);

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read for Pieces {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            self.1.read(to)
        }
    }

    impl Connection for Pieces {
        fn set_timeout(&self, _: Duration) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_long_message_goes_in_pieces_that_fit_one_descriptor() {
        let pieces = std::sync::Arc::default();
        let connection = Pieces(std::sync::Arc::clone(&pieces), io::Cursor::new(*b"\0\0\0\x01a"));
        let deadline = Instant::now() + Duration::from_secs(60);
        let body = vec![7; 2 * MAX_WRITE_BYTES];
        Exchange::new(Box::new(connection), deadline).call(&body).unwrap();
        assert_eq!(*pieces.lock().unwrap(), [MAX_WRITE_BYTES, MAX_WRITE_BYTES, 4]);
    }

    #[test]
    fn attack_answer_too_long_cut_or_trickling() {
        let frame = answered(b"\xff\xff\xff\xff", Duration::ZERO);
        assert!(matches!(frame, Err(ExchangeError::Frame(FrameError::TooLong { .. }))));
        assert!(matches!(answered(b"\0\0\0\x04abc", Duration::ZERO), Err(ExchangeError::Io(_))));
        let slow = answered(b"\0\0\0\x05abcde", Duration::from_millis(60));
        assert!(matches!(slow, Err(ExchangeError::Timeout)), "{slow:?}");
    }
}
