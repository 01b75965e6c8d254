//! `udp_echo serve PORT` answers each datagram with the same bytes; `udp_echo ask ADDRESS TEXT` sends one and prints the answer.

use std::io::{Error, Result};
use std::net::UdpSocket;
use std::time::Duration;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut bytes = [0; 2048];
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", port] => {
            let socket = UdpSocket::bind(("0.0.0.0", port.parse().map_err(Error::other)?))?;
            println!("serving");
            loop {
                let (length, from) = socket.recv_from(&mut bytes)?;
                socket.send_to(&bytes[..length], from)?;
            }
        }
        ["ask", address, text] => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(Duration::from_secs(20)))?;
            socket.send_to(text.as_bytes(), address)?;
            let (length, _) = socket.recv_from(&mut bytes)?;
            print!("{}", String::from_utf8_lossy(&bytes[..length]));
            Ok(())
        }
        _ => Err(Error::other("expected serve PORT, or ask ADDRESS TEXT")),
    }
}
