//! How often a session writes: a system call each.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2pool::connect::{Connection, from_fn};
use h2pool::{Error, H2Pool, Origin};
use http::{Request, Response, Version};
use http_body_util::{Empty, Full};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::watch;

use crate::bench::{response, uri};

/// A transport that counts the writes that it takes.
struct Counted {
    io: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if written.is_ready() {
            self.writes.fetch_add(1, Ordering::SeqCst);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

async fn serve(io: DuplexStream) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let mut body = request.into_body();
        tokio::spawn(async move {
            while body.data().await.is_some() {}
            respond.send_response(Response::new(()), true).unwrap();
        });
    }
}

/// A pool of one session, and how often it has written.
fn counted() -> (H2Pool, Arc<AtomicUsize>) {
    let writes = Arc::<AtomicUsize>::default();
    let counted = writes.clone();
    let connector = from_fn(move |_: &Origin, _| {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        tokio::spawn(serve(theirs));
        let writes = counted.clone();
        async move { Ok::<_, Error>(Connection::new(Counted { io: ours, writes }, Version::HTTP_2)) }
    });
    let pool = H2Pool::builder().connector(connector).max_sessions(1);
    (pool.build().unwrap(), writes)
}

fn get(pool: &H2Pool) -> h2pool::ResponseFuture {
    pool.request(Request::get(uri("/")).body(Empty::<Bytes>::new()).unwrap())
}

// On one worker, whose scheduler runs what a task woke before the tasks that are ready already: the session's task would
// come after each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_that_come_together_are_written_together() {
    // P33
    const TOGETHER: usize = 64;
    let (pool, writes) = counted();
    response(tokio::spawn(get(&pool))).await;
    let before = writes.load(Ordering::SeqCst);

    let (go, ready) = watch::channel(());
    let answers: Vec<_> = (0..TOGETHER)
        .map(|_| {
            let (pool, mut ready) = (pool.clone(), ready.clone());
            tokio::spawn(async move {
                ready.changed().await.unwrap();
                get(&pool).await
            })
        })
        .collect();
    go.send(()).unwrap();
    for answer in answers {
        response(answer).await;
    }
    let writes = writes.load(Ordering::SeqCst) - before;
    assert!(writes <= TOGETHER / 4, "{writes} writes for {TOGETHER} requests");
}

#[tokio::test]
async fn a_small_body_is_written_with_its_head() {
    // P33
    let (pool, writes) = counted();
    response(tokio::spawn(get(&pool))).await;
    let before = writes.load(Ordering::SeqCst);
    for _ in 0..10 {
        let body = Full::new(Bytes::from_static(&[7; 1000]));
        let request = Request::post(uri("/")).body(body).unwrap();
        response(tokio::spawn(pool.request(request))).await;
    }
    assert_eq!(writes.load(Ordering::SeqCst) - before, 10);
}
