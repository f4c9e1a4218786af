//! Certificates refused: the server's, and our own.

use std::io;
use std::sync::Arc;

use h2pool::connect::{Connection, Offer, TlsConnector, from_fn};
use h2pool::{Error, H2Pool, Origin};
use http::{Request, Version};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsAcceptor;

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

#[tokio::test]
async fn a_request_to_a_server_that_refuses_our_certificate_was_never_read() {
    // P22, P41: RFC 8446 §4.4.2.4, the server ends the handshake before it reads what was sent after it.
    let h1 = cfg!(feature = "http1").then(Tls::h1);
    for server in h1.into_iter().chain([Tls::h2()]) {
        let acceptor = TlsAcceptor::from(server.client_auth().tls13().server());
        let transport = from_fn(move |_: &Origin, _| {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let theirs = after_a_while(theirs);
                let (_, mut io) = acceptor.accept(theirs).into_fallible().await.unwrap_err();
                let _ = io.read_to_end(&mut Vec::new()).await;
            });
            std::future::ready(Ok(Connection::new(ours, Version::HTTP_11)))
        });
        let connector = TlsConnector::new(certs::client_config()).over(transport);
        let pool = H2Pool::builder().connector(connector).build().unwrap();
        for body in ["", "x"] {
            let request = Request::post("https://localhost/").body(body.to_owned()).unwrap();
            let error = pool.request(request).await.unwrap_err();
            assert!(error.is_certificate() && error.is_unprocessed(), "{error:?}");
            assert!(!error.is_transient(), "trying again cannot help");
        }
    }
}

/// The server's end, where all that the client says after its hello arrives only once others have run: its certificate
/// comes together with the request.
fn after_a_while(theirs: DuplexStream) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (mut from_client, mut to_client) = tokio::io::split(theirs);
    let (mut from_server, mut to_server) = tokio::io::split(near);
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    tokio::spawn(async move {
        let mut hello = Vec::with_capacity(4096);
        from_client.read_buf(&mut hello).await?;
        to_server.write_all(&hello).await?;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        tokio::io::copy(&mut from_client, &mut to_server).await
    });
    far
}
