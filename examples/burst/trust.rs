//! Whose certificates are good.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Which certificates of a server are accepted.
pub(crate) enum Trust {
    /// Those signed by one of these, and these themselves.
    Only(Vec<CertificateDer<'static>>),
    /// Those that the platform trusts.
    Platform,
    /// All.
    Anyone,
}

impl Trust {
    /// The certificates in a PEM file.
    pub(crate) fn file(path: &Path) -> Result<Self> {
        let read = || Self::pem(&std::fs::read(path)?);
        read().with_context(|| path.display().to_string())
    }

    /// The certificates in a PEM text.
    pub(crate) fn pem(text: &[u8]) -> Result<Self> {
        let certificates = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>()?;
        ensure!(!certificates.is_empty(), "no certificate in it");
        Ok(Self::Only(certificates))
    }

    /// The verifier for rustls.
    pub(crate) fn verifier(self, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
        Ok(match self {
            Self::Only(certificates) => Arc::new(Verifier::new(certificates, provider)?),
            Self::Platform => Arc::new(rustls_platform_verifier::Verifier::new(provider)?),
            Self::Anyone => Arc::new(Verifier {
                chain: None,
                pinned: Vec::new(),
                provider,
            }),
        })
    }
}

/// Verifies by the chain to an authority, but takes a pinned certificate as it is.
///
/// rustls refuses an authority's certificate as a server's own, which is what `openssl req -x509` makes.
#[derive(Debug)]
struct Verifier {
    /// Without it everything is accepted.
    chain: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(certificates: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone())?;
        }
        let chain = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build()?;
        Ok(Self {
            chain: Some(chain),
            pinned: certificates,
            provider,
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        if self.pinned.contains(end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn authority(name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .clone()
    }

    fn accepts(trust: Trust, certificate: &CertificateDer<'_>) -> bool {
        let verifier = trust
            .verifier(rustls::crypto::ring::default_provider().into())
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        verifier
            .verify_server_cert(certificate, &[], &name, &[], now)
            .is_ok()
    }

    #[test]
    fn a_self_signed_certificate_is_good_if_it_is_the_pinned_one_and_has_the_name() {
        let (localhost, other) = (authority("localhost"), authority("other"));
        assert!(accepts(Trust::Only(vec![localhost.clone()]), &localhost));
        assert!(!accepts(Trust::Only(vec![authority("localhost")]), &localhost));
        assert!(!accepts(Trust::Only(vec![other.clone()]), &other));
        assert!(accepts(Trust::Anyone, &other));
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        assert!(Trust::pem(b"hello").is_err());
    }
}
