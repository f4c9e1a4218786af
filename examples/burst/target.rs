//! The server that is measured.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Uri;
use http::uri::Authority;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::trust::Trust;

/// Time for TCP and TLS together, for every transport; h2pool's default.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server to send requests to.
pub(crate) struct Target {
    pub(crate) uri: Uri,
    host: String,
    port: u16,
    tls: ClientConfig,
}

impl Target {
    pub(crate) fn new(uri: Uri, trust: Trust) -> Result<Self> {
        let authority = uri.authority().context("the URL names no host")?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = authority.port_u16().unwrap_or(443);
        let provider = Arc::new(ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(trust.verifier(provider)?)
            .with_no_client_auth();
        Ok(Self { uri, host, port, tls })
    }

    /// Host and port as the URL has them.
    pub(crate) fn authority(&self) -> &str {
        self.uri.authority().map_or("", Authority::as_str)
    }

    /// A TLS configuration without ALPN, and with no session to resume from any earlier client.
    pub(crate) fn tls(&self) -> ClientConfig {
        let mut tls = self.tls.clone();
        tls.resumption = Resumption::default();
        tls
    }

    /// One connection on which these protocols are offered.
    pub(crate) async fn connect(&self, alpn: &[&[u8]]) -> Result<TlsStream<TcpStream>> {
        let mut tls = self.tls();
        tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(self.host.clone())?;
        let connecting = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            Ok(TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .context("connect timeout")?
    }

    /// Whether the server can be reached, and then whether it speaks HTTP/2.
    pub(crate) async fn speaks_h2(&self) -> Result<bool> {
        let connection = self.connect(&[b"h2", b"http/1.1"]).await;
        let tls = connection.with_context(|| format!("cannot reach {}", self.authority()))?;
        Ok(tls.get_ref().1.alpn_protocol() == Some(b"h2"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// The clock is paused: nothing else happens on the runtime, so the timeout fires at once.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_speaks_is_given_up_at_the_connect_timeout() {
        let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let uri = format!("https://{}/", silent.local_addr().unwrap())
            .parse()
            .unwrap();
        let target = Target::new(uri, Trust::Anyone).unwrap();
        let error = target.speaks_h2().await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot reach {}", target.authority()));
        assert!(error.root_cause().is::<tokio::time::error::Elapsed>());
    }
}
