//! What sessions are shared by: the origin, and keys that know theirs.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{Method, Uri};

use crate::error::Error;

/// What connections are kept apart by.
///
/// Sessions are never shared across different keys; keys are compared in full, never by hash alone. The default key is
/// the [`Origin`]; a key of your own may add a tenant or a TLS identity, so that connections with different client
/// certificates, roots or verification are never mixed up:
///
/// ```
/// use h2pool::{Error, Key, Origin};
///
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct TenantKey {
///     origin: Origin,
///     tenant: String,
/// }
///
/// #[derive(Clone)]
/// struct Tenant(String);
///
/// impl Key for TenantKey {
///     fn from_parts(parts: &http::request::Parts) -> Result<Self, Error> {
///         let tenant = parts.extensions.get::<Tenant>().map(|t| t.0.clone()).unwrap_or_default();
///         Ok(Self { origin: Origin::from_parts(parts)?, tenant })
///     }
///     fn origin(&self) -> &Origin {
///         &self.origin
///     }
///     fn detached(&self) -> Self {
///         // An origin read from a request holds on to its whole URI.
///         Self { origin: self.origin.detached(), tenant: self.tenant.clone() }
///     }
/// }
/// ```
pub trait Key: Clone + Eq + Hash + Send + Sync + 'static {
    /// Reads the key of a request from its head.
    ///
    /// # Errors
    /// An error whose `is_config()` is true ([`Error::config`]) when the request names no origin, or lacks what else the
    /// key is made of.
    fn from_parts(parts: &Parts) -> Result<Self, Error>;

    /// The origin that a connection for this key goes to.
    fn origin(&self) -> &Origin;

    /// An equal key to be kept for long: one that shares no memory with the request that it was read from. The pool
    /// keeps this one. Default: a clone.
    #[must_use]
    fn detached(&self) -> Self {
        self.clone()
    }
}

/// Scheme, host and port: what a connection leads to (RFC 6454 §4, RFC 9110 §4.3.1).
///
/// The host is kept in lower case and the port is always explicit, so that `https://Example.com` and
/// `https://example.com:443` are the same origin. Cheap to clone.
///
/// ```
/// use h2pool::Origin;
///
/// let origin: Origin = "https://Example.com".parse()?;
/// assert_eq!(origin.to_string(), "https://example.com:443");
/// assert_eq!(origin, Origin::https("example.com", 443)?);
/// # Ok::<(), h2pool::Error>(())
/// ```
#[derive(Clone)]
pub struct Origin {
    https: bool,
    port: u16,
    /// Where the host begins and ends in the authority.
    host: (u16, u16),
    /// Only its host counts, which is in lower case. Reading an origin off a request copies nothing.
    authority: Authority,
}

impl Origin {
    /// An `https` origin.
    ///
    /// # Errors
    /// `is_config()` when the host is empty or not a valid URI host.
    pub fn https(host: &str, port: u16) -> Result<Self, Error> {
        Self::new(true, host, port)
    }

    /// An `http` origin: plain text, HTTP/1.1 or HTTP/2 by prior knowledge.
    ///
    /// # Errors
    /// `is_config()` when the host is empty or not a valid URI host.
    pub fn http(host: &str, port: u16) -> Result<Self, Error> {
        Self::new(false, host, port)
    }

    /// The origin of an absolute URI.
    ///
    /// # Errors
    /// `is_config()` when the URI has no scheme or authority, or a scheme other than `http` and `https`.
    pub fn from_uri(uri: &Uri) -> Result<Self, Error> {
        let authority = uri.authority().ok_or_else(|| {
            Error::config(format!(
                "the request URI `{uri}` has no authority: give an absolute URI"
            ))
        })?;
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) => {
                return Err(Error::config(format!(
                    "the scheme `{scheme}` is not supported: use http or https"
                )));
            }
            None => {
                return Err(Error::config(format!(
                    "the request URI `{uri}` has no scheme: give an absolute URI"
                )));
            }
        };
        Self::from_authority(https, authority)
    }

    fn from_authority(https: bool, authority: &Authority) -> Result<Self, Error> {
        match Self::read_plain(https, authority) {
            Some(origin) => Ok(origin),
            None => Self::read(https, authority),
        }
    }

    /// A name in lower case, and a port in digits where there is one: what nearly every request says, read in one pass.
    fn read_plain(https: bool, authority: &Authority) -> Option<Self> {
        let mut rest = authority.as_str().as_bytes();
        while let Some((b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_', after)) = rest.split_first() {
            rest = after;
        }
        let host = u16::try_from(authority.as_str().len() - rest.len()).ok()?;
        let port = match rest {
            _ if host == 0 => return None,
            [] => default_port(https),
            [b':', digits @ ..] if (1..=5).contains(&digits.len()) => {
                let digit = |port, digit: &u8| {
                    digit
                        .is_ascii_digit()
                        .then(|| port * 10 + u32::from(digit - b'0'))
                };
                u16::try_from(digits.iter().try_fold(0_u32, digit)?).ok()?
            }
            _ => return None,
        };
        Some(Self {
            https,
            port,
            host: (0, host),
            authority: authority.clone(),
        })
    }

    fn read(https: bool, authority: &Authority) -> Result<Self, Error> {
        let host = authority.host();
        let written = authority
            .as_str()
            .rsplit('@')
            .next()
            .and_then(|rest| rest.strip_prefix(host));
        let port = match (authority.port_u16(), written) {
            (Some(port), _) => port,
            (None, None | Some("" | ":")) => default_port(https),
            (None, Some(port)) => {
                let port = port.trim_start_matches(':');
                let message = format!("the port `{port}` of `{host}` is not in 0..=65535");
                return Err(Error::config(message));
            }
        };
        if host.is_empty() {
            return Err(Error::config(format!("the authority `{authority}` has no host")));
        }
        // `http` takes brackets anywhere; alone, such a host would not be taken.
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if inner.unwrap_or(host).contains(['[', ']']) {
            return Err(Error::config(format!("`{host}` is not a host")));
        }
        Self::assemble(https, authority, port)
    }

    fn new(https: bool, host: &str, port: u16) -> Result<Self, Error> {
        let bracketed;
        let host = if host.parse::<std::net::Ipv6Addr>().is_ok() {
            bracketed = format!("[{host}]");
            bracketed.as_str()
        } else {
            host
        };
        match host.parse::<Authority>() {
            Ok(authority) if authority.host() == host => Self::assemble(https, &authority, port),
            _ => Err(Error::config(format!(
                "`{host}` is not a host: give a name or an address without a port"
            ))),
        }
    }

    fn assemble(https: bool, authority: &Authority, port: u16) -> Result<Self, Error> {
        let upper = authority.host().bytes().any(|byte| byte.is_ascii_uppercase());
        let lower = if upper {
            authority.host().to_ascii_lowercase().parse().ok()
        } else {
            None
        };
        let authority: Authority = lower.unwrap_or_else(|| authority.clone());
        // User and password stand before the host, and may hold anything.
        let before = authority.as_str().rfind('@').map_or(0, |at| at + 1);
        let place = |at| u16::try_from(at).ok();
        let host = place(before).zip(place(before + authority.host().len()));
        let host = host.ok_or_else(|| Error::config("the authority is longer than 65,535 bytes"))?;
        Ok(Self {
            https,
            port,
            host,
            authority,
        })
    }

    /// `https`?
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// `"https"` or `"http"`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// The host in lower case; an IPv6 address keeps its brackets.
    #[must_use]
    #[inline]
    pub fn host(&self) -> &str {
        let (start, end) = self.host;
        &self.authority.as_str()[usize::from(start)..usize::from(end)]
    }

    /// The port, explicit or the scheme's default.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The origin as a URI with the path `/`, as connectors take it; the scheme's default port is left out
    /// (RFC 9110 §4.2.3).
    #[must_use]
    pub fn uri(&self) -> Uri {
        let default = if self.https { ":443" } else { ":80" };
        let full = self.to_string();
        let text = full.strip_suffix(default).unwrap_or(&full);
        text.parse().unwrap_or_else(|_| Uri::from_static("/"))
    }
}

/// The port that a scheme implies (RFC 9110 §4.2).
pub(crate) fn usual_port(scheme: Option<&Scheme>) -> Option<u16> {
    let scheme = scheme?;
    let known = *scheme == Scheme::HTTPS || *scheme == Scheme::HTTP;
    known.then(|| default_port(*scheme == Scheme::HTTPS))
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

impl Key for Origin {
    fn from_parts(parts: &Parts) -> Result<Self, Error> {
        if parts.method == Method::CONNECT && parts.uri.scheme().is_none() {
            return Err(Error::config(
                "a CONNECT request names its target, not the proxy: send it by `pool.origin(proxy)`",
            ));
        }
        Self::from_uri(&parts.uri)
    }

    fn origin(&self) -> &Origin {
        self
    }

    fn detached(&self) -> Self {
        let copied = self.host().parse::<Authority>();
        let copied = copied
            .ok()
            .and_then(|host| Self::assemble(self.https, &host, self.port).ok());
        copied.unwrap_or_else(|| self.clone())
    }
}

impl Origin {
    /// The bytes of the host, for look-ups, which care neither for characters nor for their boundaries.
    #[inline]
    fn host_bytes(&self) -> &[u8] {
        let (start, end) = self.host;
        let authority = self.authority.as_str().as_bytes();
        &authority[usize::from(start)..usize::from(end)]
    }
}

impl PartialEq for Origin {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.https == other.https && self.port == other.port && self.host_bytes() == other.host_bytes()
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let host = self.host_bytes();
        // All that is of fixed length in one write, the length of the rest among it.
        let (port, https) = (u64::from(self.port), u64::from(self.https));
        state.write_u64((host.len() as u64) << 32 | port << 16 | https);
        state.write(host);
    }
}

impl FromStr for Origin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid =
            |error: http::uri::InvalidUri| Error::config(format!("`{text}` is not a URI")).with_source(error);
        let uri: Uri = text.parse().map_err(invalid)?;
        Self::from_uri(&uri)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme(), self.host(), self.port())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_origins_are_equal_however_they_are_written() {
        // P37
        let origin = Origin::https("EXAMPLE.com", 443).unwrap();
        for text in [
            "https://example.com",
            "https://example.COM:443/path?query",
            "https://user@example.com",
        ] {
            assert_eq!(text.parse::<Origin>().unwrap(), origin, "{text}");
        }
        for other in [
            "http://example.com:443",
            "https://example.com:444",
            "https://example.org",
        ] {
            assert_ne!(other.parse::<Origin>().unwrap(), origin, "{other}");
        }
        assert_eq!(
            Origin::https("::1", 443).unwrap(),
            "https://[::1]".parse().unwrap()
        );
        assert_eq!(
            Origin::https("::1", 8443).unwrap().uri().to_string(),
            "https://[::1]:8443/"
        );
        for (text, host, port) in [
            ("https://u:p@[::1]:8443", "[::1]", 8443),
            ("https://u@A-b.c_d:", "a-b.c_d", 443),
            ("http://10.0.0.1:08080", "10.0.0.1", 8080),
            ("http://a~b", "a~b", 80),
        ] {
            let origin: Origin = text.parse().unwrap();
            assert_eq!((origin.host(), origin.port()), (host, port), "{text}");
            assert_eq!(origin.detached(), origin, "{text}");
        }
        for (text, uri) in [
            ("https://a:443", "https://a/"),
            ("http://a:80", "http://a/"),
            ("http://a:443", "http://a:443/"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().uri(), uri);
        }
    }

    #[test]
    fn bad_origins_are_named() {
        for (text, part) in [
            ("/path", "no authority"),
            ("example.com", "no scheme"),
            ("ftp://example.com", "ftp"),
            ("https://example.com:99999", "99999"),
            ("::", "not a URI"),
            ("https://a[]", "`a[]` is not a host"),
            ("https://a[b]c", "`a[b]c` is not a host"),
        ] {
            let error = text.parse::<Origin>().unwrap_err();
            assert!(error.is_config(), "{text}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
        assert!(Origin::http("a:b", 80).is_err());
        assert!(Origin::http("", 80).is_err());
    }
}
