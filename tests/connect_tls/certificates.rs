//! Certificates refused: the server's, and our own.

use std::io;
use std::sync::Arc;

use h2pool::connect::{Offer, TlsConnector};
use h2pool::{Error, Origin};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt;

use crate::certs::{self, Tls, WRONG_NAME};
use crate::{Server, always_to, dial};

/// The rustls error among the causes.
fn rustls_cause(error: &Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

/// A certificate for localhost that ended in 2001, and a client that trusts its issuer.
fn expired() -> (Arc<ServerConfig>, ClientConfig) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &ca, &ca_key).unwrap();

    let provider = Arc::new(ring::default_provider());
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), client)
}

#[tokio::test]
async fn a_wrong_certificate_is_a_certificate_error() {
    // P22, P41: wrong name, unknown authority, expired.
    let (expired, trusts_expired) = expired();
    let ours = certs::client_config();
    for (server, client) in [
        (Tls::any().wrong_name().server(), ours.clone()),
        (Tls::any().wrong_name().tls12().server(), ours.clone()),
        (Tls::any().server(), trusts_expired.clone()),
        (expired, trusts_expired),
    ] {
        let server = Server::start(server).await;
        let connector = TlsConnector::new(client);
        let error = dial(&connector, &server.origin(), Offer::Any).await.unwrap_err();
        assert!(
            error.is_certificate() && error.is_connect() && error.is_unprocessed(),
            "{error:?}"
        );
        assert!(!error.is_transient(), "trying again cannot help");
        assert_eq!(error.origin(), Some(server.origin().to_string().as_str()));
        let cause = rustls_cause(&error).unwrap();
        assert!(matches!(cause, rustls::Error::InvalidCertificate(_)), "{cause:?}");
    }
    let server = Server::start(Tls::any().wrong_name().server()).await;
    let there = TlsConnector::new(ours).over(always_to(server.port));
    let origin = Origin::https(WRONG_NAME, 443).unwrap();
    dial(&there, &origin, Offer::Any)
        .await
        .expect("right for its own name");
}

#[tokio::test]
async fn our_certificate_refused_is_a_certificate_error_too() {
    // P22, P41
    let anonymous = TlsConnector::new(certs::client_config());
    let tls12 = Server::start(Tls::any().client_auth().tls12().server()).await;
    let error = dial(&anonymous, &tls12.origin(), Offer::Any).await.unwrap_err();
    assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
    assert!(error.is_certificate(), "{error:?}");

    // RFC 8446 §4.4.2.4: in TLS 1.3 only the first read tells.
    let tls13 = Server::start(Tls::any().client_auth().tls13().server()).await;
    let mut connection = dial(&anonymous, &tls13.origin(), Offer::Any).await.unwrap();
    let error = connection.read_u8().await.unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert!(error.is_certificate() && !error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("our certificate"), "{error}");
}
