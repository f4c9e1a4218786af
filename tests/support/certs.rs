//! Certificates made once per process: a CA, a leaf for loopback, a leaf for another name, two client identities.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, version};

/// The name in the certificate of [`Tls::wrong_name`].
pub const WRONG_NAME: &str = "elsewhere.example";

/// A certificate with its key.
pub struct Identity {
    /// The certificate as DER.
    pub cert: CertificateDer<'static>,
    /// The certificate as PEM.
    pub cert_pem: String,
    /// The key as PEM (PKCS #8).
    pub key_pem: String,
    key: Vec<u8>,
}

impl Identity {
    /// The key as rustls takes it.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }
}

/// Everything that was issued for this process.
pub struct Certs {
    /// The authority that every side trusts.
    pub ca: Identity,
    /// `localhost`, `127.0.0.1`, `::1`.
    pub leaf: Identity,
    /// Signed by the CA, for [`WRONG_NAME`] only.
    pub wrong: Identity,
    /// Two client identities, for keys that keep connections apart.
    pub alice: Identity,
    /// The other one.
    pub bob: Identity,
}

/// The certificates of this process.
pub fn certs() -> &'static Certs {
    static CERTS: OnceLock<Certs> = OnceLock::new();
    CERTS.get_or_init(issue)
}

fn issue() -> Certs {
    let mut params = named("h2pool test CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let sign = |params: CertificateParams| {
        let key = KeyPair::generate().unwrap();
        identity(&params.signed_by(&key, &ca, &ca_key).unwrap(), &key)
    };
    let loopback = [
        SanType::DnsName("localhost".try_into().unwrap()),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    let with_names = |name: &str, names: &[SanType]| {
        let mut params = named(name);
        params.subject_alt_names = names.to_vec();
        params
    };
    Certs {
        leaf: sign(with_names("localhost", &loopback)),
        wrong: sign(with_names(
            WRONG_NAME,
            &[SanType::DnsName(WRONG_NAME.try_into().unwrap())],
        )),
        alice: sign(with_names("alice", &[])),
        bob: sign(with_names("bob", &[])),
        ca: identity(&ca, &ca_key),
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn identity(cert: &rcgen::Certificate, key: &KeyPair) -> Identity {
    Identity {
        cert: cert.der().clone(),
        cert_pem: cert.pem(),
        key_pem: key.serialize_pem(),
        key: key.serialize_der(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certs().ca.cert.clone()).unwrap();
    roots
}

/// What a TLS configuration should look like; [`server`](Self::server) and [`client`](Self::client) make it.
#[derive(Clone)]
pub struct Tls {
    alpn: Vec<Vec<u8>>,
    versions: &'static [&'static SupportedProtocolVersion],
    wrong_name: bool,
    client_auth: bool,
}

impl Tls {
    /// TLS 1.2 and 1.3 with these ALPN names, in order of preference; none for no ALPN at all.
    pub fn new(alpn: &[&[u8]]) -> Self {
        Self {
            alpn: alpn.iter().map(|name| name.to_vec()).collect(),
            versions: rustls::ALL_VERSIONS,
            wrong_name: false,
            client_auth: false,
        }
    }

    /// `h2`, then `http/1.1`.
    pub fn any() -> Self {
        Self::new(&[b"h2", b"http/1.1"])
    }

    /// `h2` alone.
    pub fn h2() -> Self {
        Self::new(&[b"h2"])
    }

    /// `http/1.1` alone.
    pub fn h1() -> Self {
        Self::new(&[b"http/1.1"])
    }

    /// TLS 1.2 alone.
    pub fn tls12(mut self) -> Self {
        static ONLY: &[&SupportedProtocolVersion] = &[&version::TLS12];
        self.versions = ONLY;
        self
    }

    /// TLS 1.3 alone.
    pub fn tls13(mut self) -> Self {
        static ONLY: &[&SupportedProtocolVersion] = &[&version::TLS13];
        self.versions = ONLY;
        self
    }

    /// The server shows a certificate for [`WRONG_NAME`].
    pub fn wrong_name(mut self) -> Self {
        self.wrong_name = true;
        self
    }

    /// The server demands a client certificate of our CA.
    pub fn client_auth(mut self) -> Self {
        self.client_auth = true;
        self
    }

    /// The server's side.
    pub fn server(&self) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.versions)
            .unwrap();
        let builder = if self.client_auth {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots()), provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let identity = if self.wrong_name {
            &certs().wrong
        } else {
            &certs().leaf
        };
        let mut config = builder
            .with_single_cert(vec![identity.cert.clone()], identity.key())
            .unwrap();
        config.alpn_protocols.clone_from(&self.alpn);
        Arc::new(config)
    }

    /// The client's side, which trusts our CA and nothing else.
    pub fn client(&self) -> ClientConfig {
        self.client_builder(None)
    }

    /// The same with a client certificate.
    pub fn client_as(&self, identity: &Identity) -> ClientConfig {
        self.client_builder(Some(identity))
    }

    fn client_builder(&self, identity: Option<&Identity>) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots());
        let mut config = match identity {
            Some(identity) => builder
                .with_client_auth_cert(vec![identity.cert.clone()], identity.key())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config
    }
}

/// A client configuration that trusts the CA of this process, without ALPN: for whoever sets it himself.
pub fn client_config() -> ClientConfig {
    Tls::new(&[]).client()
}
