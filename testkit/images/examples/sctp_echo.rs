//! `sctp_echo serve PORT` answers each connection with the bytes that it gets first; `sctp_echo ask ADDRESS TEXT` sends some and prints the answer.

use std::fs::File;
use std::io::{Error, Read as _, Result, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketType, accept, bind, connect, ipproto, listen, socket};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", port] => {
            let server = sctp()?;
            let port = port.parse().map_err(Error::other)?;
            bind(&server, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
            listen(&server, 8)?;
            println!("serving");
            loop {
                let mut asked = File::from(accept(&server)?);
                let words = first_words(&mut asked)?;
                asked.write_all(&words)?;
            }
        }
        ["ask", address, text] => {
            let client = sctp()?;
            connect(&client, &address.parse::<SocketAddrV4>().map_err(Error::other)?)?;
            let mut client = File::from(client);
            client.write_all(text.as_bytes())?;
            print!("{}", String::from_utf8_lossy(&first_words(&mut client)?));
            Ok(())
        }
        _ => Err(Error::other("expected serve PORT, or ask ADDRESS TEXT")),
    }
}

/// One association a socket, as with TCP (RFC 6458, section 4).
fn sctp() -> Result<OwnedFd> {
    Ok(socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::SCTP))?)
}

fn first_words(from: &mut File) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 2048];
    let length = from.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}
