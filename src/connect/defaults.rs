//! The connector of a pool that was given none.

use std::sync::Arc;
use std::time::Duration;

use super::ErasedConnect;
use crate::error::Error;
use crate::origin::Key;

/// What the default connector is made from.
#[cfg_attr(
    not(feature = "tcp"),
    allow(dead_code, reason = "there is no default connector without `tcp`")
)]
pub(crate) struct Defaults {
    /// `None`: the platform's verifier, loaded at the first `https` dial.
    #[cfg(feature = "tls-no-provider")]
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    /// `http://` origins speak HTTP/2 (RFC 9113 §3.3).
    pub(crate) prior_knowledge: bool,
    /// How many name look-ups run at once.
    pub(crate) blocking_threads: usize,
    /// The pool's, for the whole dial.
    pub(crate) connect_timeout: Duration,
}

/// TLS over TCP with the feature `tls`, plain TCP with `tcp` alone.
///
/// Nothing is loaded, resolved or started here.
///
/// # Errors
/// `is_config()` when the crate was built without `tcp`.
pub(crate) fn default_connector<O: Key>(defaults: Defaults) -> Result<Arc<dyn ErasedConnect<O>>, Error> {
    build(defaults)
}

#[cfg(feature = "tls-no-provider")]
fn build<O: Key>(defaults: Defaults) -> Result<Arc<dyn ErasedConnect<O>>, Error> {
    let Defaults {
        tls,
        prior_knowledge,
        blocking_threads,
        connect_timeout,
    } = defaults;
    let tcp = super::TcpConnector::new()
        .http2_prior_knowledge(prior_knowledge)
        .blocking_threads(blocking_threads)
        .connect_timeout(Some(connect_timeout));
    let tls = match tls {
        Some(config) => super::TlsConnector::new(config),
        None => super::TlsConnector::platform(),
    };
    Ok(super::erase(tls.tcp(tcp)))
}

#[cfg(all(feature = "tcp", not(feature = "tls-no-provider")))]
fn build<O: Key>(defaults: Defaults) -> Result<Arc<dyn ErasedConnect<O>>, Error> {
    let Defaults {
        prior_knowledge,
        blocking_threads,
        connect_timeout,
    } = defaults;
    let tcp = super::TcpConnector::new()
        .http2_prior_knowledge(prior_knowledge)
        .blocking_threads(blocking_threads)
        .connect_timeout(Some(connect_timeout));
    Ok(super::erase(tcp))
}

#[cfg(not(feature = "tcp"))]
fn build<O: Key>(defaults: Defaults) -> Result<Arc<dyn ErasedConnect<O>>, Error> {
    let Defaults {
        prior_knowledge: _,
        blocking_threads: _,
        connect_timeout: _,
    } = defaults;
    Err(Error::config(
        "this build has no connector of its own: enable the feature `tls` (or `tcp`), or give the builder a \
         `connector`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Origin;

    #[test]
    fn a_build_without_tcp_names_the_feature() {
        // P41
        let defaults = Defaults {
            #[cfg(feature = "tls-no-provider")]
            tls: None,
            prior_knowledge: false,
            blocking_threads: 200,
            connect_timeout: Duration::from_secs(10),
        };
        let made = default_connector::<Origin>(defaults);
        if cfg!(feature = "tcp") {
            assert!(made.is_ok());
        } else {
            let error = made.err().unwrap();
            assert!(
                error.is_config() && error.to_string().contains("feature `tls`"),
                "{error}"
            );
        }
    }
}
