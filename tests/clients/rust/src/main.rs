// Requests a page with rustls, and prints it.
//
// usage: client CA-IN-DER NAME PORT    at 127.0.0.1
use std::io::{copy, stdout, Write};
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let (authority, name, port) = (&arguments[1], arguments[2].as_str(), &arguments[3]);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(&rustls::Certificate(std::fs::read(authority)?))?;
    let config = rustls::ClientConfig::builder()
        .with_safe_defaults()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = rustls::ClientConnection::new(Arc::new(config), name.try_into()?)?;
    let socket = std::net::TcpStream::connect(format!("127.0.0.1:{port}"))?;
    let mut stream = rustls::StreamOwned::new(connection, socket);
    write!(stream, "GET / HTTP/1.0\r\nHost: {name}\r\n\r\n")?;
    copy(&mut stream, &mut stdout())?;
    Ok(())
}
