//! TLS sessions are resumed, but never across verifiers, certificates or tenants.

use std::sync::Arc;

use h2pool::connect::{Connect, Offer, TlsConnector};
use h2pool::{Error, Key, Origin};
use http::Version;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use crate::certs::{self, Tls, certs};
use crate::{Server, dial, greeted};

#[tokio::test]
async fn sessions_are_resumed_and_alpn_is_settled_anew() {
    // P25: what a ticket was made under says nothing about the next connection's protocol.
    for server in [Tls::any(), Tls::any().tls12()] {
        let mut server = Server::start(server.server()).await;
        let connector = TlsConnector::new(certs::client_config());
        for (offer, version, resumed) in [
            (Offer::Any, Version::HTTP_2, false),
            (Offer::H1, Version::HTTP_11, true),
            (Offer::Any, Version::HTTP_2, true),
        ] {
            let connection = dial(&connector, &server.origin(), offer).await.unwrap();
            assert_eq!(connection.version(), version);
            greeted(connection).await;
            assert_eq!(server.seen.recv().await.unwrap().resumed, resumed, "{offer:?}");
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct TenantKey {
    origin: Origin,
    tenant: &'static str,
}

impl Key for TenantKey {
    fn from_parts(parts: &http::request::Parts) -> Result<Self, Error> {
        Ok(Self {
            origin: Origin::from_parts(parts)?,
            tenant: "",
        })
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }
}

#[tokio::test]
async fn each_key_shows_its_own_certificate_also_when_sessions_are_resumed() {
    // P37: the tenants share one store of tickets, the worst case.
    for tls in [Tls::any().client_auth(), Tls::any().client_auth().tls12()] {
        let mut server = Server::start(tls.server()).await;
        let alice = tls.client_as(&certs().alice);
        let mut bob = tls.client_as(&certs().bob);
        bob.resumption = alice.resumption.clone();
        let (alice, bob) = (Arc::new(alice), Arc::new(bob));
        let connector = TlsConnector::per_key(move |key: &TenantKey| match key.tenant {
            "alice" => alice.clone(),
            _ => bob.clone(),
        });
        let mut resumed = 0;
        for tenant in ["alice", "alice", "bob", "bob", "alice", "bob"] {
            let key = TenantKey {
                origin: server.origin(),
                tenant,
            };
            greeted(connector.connect(&key, Offer::Any).await.unwrap()).await;
            let seen = server.seen.recv().await.unwrap();
            let expected = if tenant == "alice" {
                &certs().alice
            } else {
                &certs().bob
            };
            assert_eq!(seen.client.as_ref(), Some(&expected.cert), "{tenant}");
            resumed += usize::from(seen.resumed);
        }
        assert!(resumed > 0, "otherwise this proves less than it says");
    }
}

/// What `--insecure` means.
#[derive(Debug)]
struct AnythingGoes(CryptoProvider);

impl ServerCertVerifier for AnythingGoes {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn a_verifier_that_accepts_anything_works_and_taints_nobody_else() {
    // P37
    let strict = certs::client_config();
    let mut lax = strict.clone();
    lax.dangerous()
        .set_certificate_verifier(Arc::new(AnythingGoes(ring::default_provider())));
    lax.resumption = strict.resumption.clone();
    let mut server = Server::start(Tls::any().wrong_name().server()).await;
    let lax = TlsConnector::new(lax);
    for resumed in [false, true] {
        greeted(dial(&lax, &server.origin(), Offer::Any).await.unwrap()).await;
        assert_eq!(server.seen.recv().await.unwrap().resumed, resumed);
    }
    // The strict one shares the store of tickets, and still refuses.
    let error = dial(&TlsConnector::new(strict), &server.origin(), Offer::Any)
        .await
        .unwrap_err();
    assert!(error.is_certificate(), "{error:?}");
}
