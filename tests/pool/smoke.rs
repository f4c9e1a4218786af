use bytes::Bytes;
use futures_util::future::join_all;
use h2pool::{ConnectionInfo, H2Pool};
use http_body_util::{BodyExt, Empty, Full};

use crate::support::certs::client_config;
use crate::support::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_use_at_most_max_sessions() {
    // P1, P5, P7
    let server = Server::builder().h2_max_streams(128).start_on_own_thread();
    let pool = H2Pool::builder().tls_config(client_config()).build().unwrap();
    let requests = (0..1000).map(|_| {
        let request = http::Request::get(server.uri("/delay/5"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = pool.request(request);
        tokio::spawn(async move {
            let response = response.await?;
            assert!(response.extensions().get::<ConnectionInfo>().is_some());
            response.into_body().collect().await
        })
    });
    for result in join_all(requests).await {
        result.unwrap().unwrap();
    }
    let counts = server.counts();
    assert!((1..=4).contains(&counts.by_protocol("h2")), "{counts:?}");
    let request = http::Request::post(server.uri("/echo"))
        .body(Full::<Bytes>::from("hello"))
        .unwrap();
    let response = pool.request(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    pool.close();
    pool.closed().await;
}
