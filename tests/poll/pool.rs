//! Over the pool, in memory: connections that break while a call reads the answer.

use bytes::Bytes;
use h2pool::connect::memory::{self, MemoryListener};
use h2pool::poll::{Reply, Round, wait_for_status};
use h2pool::{H2Pool, Origin};
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
#[cfg(feature = "http1")]
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::BoxError;

use crate::{now, secs};

fn pool() -> (H2Pool, MemoryListener<Origin>) {
    let (connector, listener) = memory::pair::<Origin>();
    (H2Pool::builder().connector(connector).build().unwrap(), listener)
}

/// Reads whole answers until one is "ready".
async fn wait(pool: &H2Pool) {
    let before = now();
    let found = wait_for_status(
        secs(10),
        async |_: Round| {
            let request = Request::get("https://a.example/").body(Full::<Bytes>::default())?;
            let body = pool.request(request).await?.into_body();
            Ok::<_, BoxError>(Reply::Value(body.collect().await?.to_bytes()))
        },
        |body| body == "ready",
    );
    assert_eq!(found.await.unwrap(), "ready");
    assert!(now() - before < secs(1), "after one pause of the back-off");
}

/// The first answer breaks off in its body, by a reset of its stream or with its connection; the second is whole.
async fn serve_h2(mut listener: MemoryListener<Origin>, reset: bool) {
    for number in 0.. {
        let io = listener.accept().await.unwrap().accept(Version::HTTP_2);
        let mut connection = h2::server::handshake(io).await.unwrap();
        let mut whole = number > 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut answer = respond.send_response(Response::new(()), false).unwrap();
            let text = if whole { "ready" } else { "rea" };
            answer
                .send_data(Bytes::from_static(text.as_bytes()), whole)
                .unwrap();
            if std::mem::replace(&mut whole, true) {
                continue;
            }
            // What is written goes out before the end of it.
            let written =
                tokio::time::timeout(secs(0), std::future::poll_fn(|cx| connection.poll_closed(cx)));
            assert!(written.await.is_err());
            match reset {
                true => answer.send_reset(h2::Reason::INTERNAL_ERROR),
                false => break,
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_or_stream_that_breaks_within_an_answer_keeps_waiting() {
    // W2
    for reset in [false, true] {
        let (pool, listener) = pool();
        let server = tokio::spawn(serve_h2(listener, reset));
        wait(&pool).await;
        server.abort();
    }
}

#[cfg(feature = "http1")]
#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_within_an_answer_over_http1_keeps_waiting() {
    // W2
    let (pool, mut listener) = pool();
    let server = tokio::spawn(async move {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nready";
        for sent in [whole.len() - 3, whole.len()] {
            let mut io = listener.accept().await.unwrap().accept(Version::HTTP_11);
            io.read_u8().await.unwrap();
            io.write_all(&whole[..sent]).await.unwrap();
        }
    });
    wait(&pool).await;
    server.await.unwrap();
}
