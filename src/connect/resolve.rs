//! From a name to addresses: the user's resolver or the system's, seen by hyper-util as one service.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use tower_service::Service;

use super::blocking::BlockingPool;
use crate::error::BoxError;

/// A resolver that blocks.
type BlockingLookup = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Where addresses come from.
#[derive(Clone)]
pub(super) enum Lookup {
    /// A function that blocks.
    Blocking(Arc<BlockingLookup>),
    /// An async service.
    Service(BoxCloneSyncService<Name, Vec<SocketAddr>, BoxError>),
}

impl Lookup {
    /// The system's `getaddrinfo`.
    pub(super) fn system() -> Self {
        Self::Blocking(Arc::new(|name| Ok((name, 0).to_socket_addrs()?.collect())))
    }

    /// A service of the user's.
    pub(super) fn service<S>(service: S) -> Self
    where
        S: Service<Name> + Clone + Send + Sync + 'static,
        S::Response: IntoIterator<Item = SocketAddr>,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        let service = service
            .map_response(|addrs: S::Response| addrs.into_iter().collect())
            .map_err(Into::into);
        Self::Service(BoxCloneSyncService::new(service))
    }

    async fn run(self, pool: BlockingPool, name: Name) -> Result<Vec<SocketAddr>, BoxError> {
        match self {
            Self::Blocking(function) => Ok(pool.run(move || function(name.as_str())).await??),
            Self::Service(service) => service.oneshot(name).await,
        }
    }
}

/// The service that hyper-util's connector asks.
#[derive(Clone)]
pub(super) struct Resolver {
    pub(super) lookup: Lookup,
    pub(super) pool: BlockingPool,
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, LookupError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (lookup, pool) = (self.lookup.clone(), self.pool.clone());
        Box::pin(async move {
            let text = name.as_str().to_owned();
            match lookup.run(pool, name).await {
                Ok(addrs) if addrs.is_empty() => Err(LookupError {
                    name: text,
                    source: None,
                }),
                Ok(mut addrs) => {
                    // hyper-util keeps any other where the origin's port is its scheme's own.
                    addrs.iter_mut().for_each(|addr| addr.set_port(0));
                    Ok(addrs.into_iter())
                }
                Err(source) => Err(LookupError {
                    name: text,
                    source: Some(source),
                }),
            }
        })
    }
}

/// A name that led nowhere.
#[derive(Debug)]
pub(super) struct LookupError {
    name: String,
    source: Option<BoxError>,
}

impl LookupError {
    /// What it means for the dial.
    pub(super) fn meaning(&self) -> String {
        match self.source {
            Some(_) => format!("the name `{}` could not be resolved", self.name),
            None => format!("the name `{}` has no address", self.name),
        }
    }
}

// The dial's own error says the rest.
impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Some(_) => "the look-up failed",
            None => "the look-up found nothing",
        })
    }
}

impl std::error::Error for LookupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_ports_of_an_answer_are_ignored() {
        // P38: hyper-util would keep them where the origin's port is its scheme's own.
        let answer = |name: &str| Ok(vec![([127, 0, 0, 1], name.len() as u16).into()]);
        let blocking = Lookup::Blocking(Arc::new(answer));
        let service = Lookup::service(tower::service_fn(move |name: Name| {
            std::future::ready(answer(name.as_str()))
        }));
        for lookup in [blocking, service] {
            let pool = BlockingPool::new(1);
            let resolver = Resolver { lookup, pool };
            let addrs = resolver.oneshot("a.test".parse().unwrap()).await.unwrap();
            assert_eq!(addrs.as_slice(), [([127, 0, 0, 1], 0).into()]);
        }
    }
}
