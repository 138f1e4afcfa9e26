//! A server of openssl's, which gets as far as the handshake.

use std::process::{Child, Command, Stdio};

use ticketd_testing::*;
use tokio::net::TcpStream;

/// One that runs; dropping it kills it.
pub(crate) struct OpensslServer {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl OpensslServer {
    /// With that certificate.
    pub(crate) async fn start(tls: &Certificates, name: &str) -> Self {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = unused.local_addr().unwrap().port();
        drop(unused);
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-alpn", "postgresql", "-accept"])
            .args([&format!("127.0.0.1:{port}")])
            .args(["-cert", &tls.path(&format!("{name}.pem"))])
            .args(["-key", &tls.path(&format!("{name}.key"))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("openssl listens", async || {
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Self { child, port }
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let (_killed, _reaped) = (self.child.kill(), self.child.wait());
    }
}
