//! A connection that is opened and closed.

use std::net::IpAddr;

use tokio::net::TcpStream;

use super::{Answer, Failure};

pub(super) async fn connect(ip: IpAddr, port: u16) -> Result<Answer, Failure> {
    let connected = TcpStream::connect((ip, port)).await;
    connected.map(|_| Answer::default()).map_err(|error| Failure::of(&error))
}
