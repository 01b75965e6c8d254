//! The guest's connections to a key service are carried on: the bytes are sealed between the two.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use crate::config::KeyAddress;

/// Carries one connection, both directions, to its end.
pub(crate) fn carry(guest: UnixStream, address: &KeyAddress) {
    let done = match address {
        KeyAddress::Unix(path) => UnixStream::connect(path).and_then(|service| {
            let again = service.try_clone()?;
            both(guest, service, again, |service| service.shutdown(Shutdown::Both))
        }),
        KeyAddress::Tcp(address) => TcpStream::connect(address).and_then(|service| {
            let again = service.try_clone()?;
            both(guest, service, again, |service| service.shutdown(Shutdown::Both))
        }),
    };
    if let Err(error) = done {
        tracing::warn!(%error, ?address, "key service");
    }
}

fn both<S: io::Read + io::Write + Send>(
    mut guest: UnixStream,
    mut service: S,
    mut again: S,
    end: impl Fn(&S) -> io::Result<()> + Send,
) -> io::Result<()> {
    let mut guest_again = guest.try_clone()?;
    thread::scope(|scope| {
        scope.spawn(move || {
            // the end of either side ends both
            let _ = io::copy(&mut service, &mut guest_again);
            let _ = guest_again.shutdown(Shutdown::Both);
        });
        let _ = io::copy(&mut guest, &mut again);
        let _ = end(&again);
    });
    Ok(())
}
