//! `h1` and `h2-single`: hyper-util's client over hyper-rustls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Empty;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use tower::ServiceExt;

use super::{Answer, Transport, length};
use crate::target::{CONNECT_TIMEOUT, Target};

/// A client of hyper-util.
pub(crate) struct Hyper<C> {
    client: Client<C, Empty<Bytes>>,
    uri: Uri,
    opened: Arc<AtomicU64>,
}

/// HTTP/1.1 alone; the client opens as many connections as it likes.
pub(crate) fn h1(target: &Target) -> Hyper<impl Connect + Clone + Send + Sync + 'static> {
    hyper(target, false)
}

/// HTTP/2 alone, which the client runs over one connection.
pub(crate) fn h2(target: &Target) -> Hyper<impl Connect + Clone + Send + Sync + 'static> {
    hyper(target, true)
}

fn hyper(target: &Target, h2: bool) -> Hyper<impl Connect + Clone + Send + Sync + 'static> {
    let opened = Arc::new(AtomicU64::new(0));
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let count = opened.clone();
    let tcp = tcp.map_response(move |connection| {
        count.fetch_add(1, Relaxed);
        connection
    });
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(target.tls())
        .https_only();
    let tls = if h2 {
        tls.enable_http2().wrap_connector(tcp)
    } else {
        tls.enable_http1().wrap_connector(tcp)
    };
    let client = Client::builder(TokioExecutor::new()).http2_only(h2).build(tls);
    Hyper {
        client,
        uri: target.uri.clone(),
        opened,
    }
}

impl<C: Connect + Clone + Send + Sync + 'static> Transport for Hyper<C> {
    async fn get(&self) -> Result<Answer> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.uri.clone();
        let response = self.client.request(request).await?;
        Ok(Answer {
            status: response.status(),
            body_bytes: length(response.into_body()).await?,
        })
    }

    fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }
}
