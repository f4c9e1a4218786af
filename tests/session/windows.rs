//! Windows that grow with bandwidth × delay (P33).

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http::Response;
use http_body_util::BodyExt;
use tokio::io::DuplexStream;

use crate::bench::{Bench, now, response};
use crate::path::delayed;

const RTT: Duration = Duration::from_millis(100);
const MIB: u64 = 1 << 20;

/// Answers each request with `size` bytes, as fast as the windows allow. What was sent is added to `sent`.
async fn serve(io: DuplexStream, size: usize, sent: Arc<AtomicU64>) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let stream = respond.send_response(Response::new(()), false).unwrap();
        tokio::spawn(send(stream, size, sent.clone()));
    }
}

async fn send(mut stream: SendStream<Bytes>, size: usize, sent: Arc<AtomicU64>) {
    let zeros = Bytes::from(vec![0; 1 << 20]);
    let mut left = size;
    while left > 0 {
        stream.reserve_capacity(left.min(zeros.len()));
        let Some(Ok(granted)) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return;
        };
        let part = zeros.slice(..granted.min(left).min(zeros.len()));
        left -= part.len();
        sent.fetch_add(part.len() as u64, Ordering::Relaxed);
        stream.send_data(part, left == 0).unwrap();
    }
}

// P33: 100 MB over a path of 100 ms: at least 60 times of what a window of 65,535 bytes allows; the windows are seen to
// grow, within their bounds; and few PINGs are sent, one at a time.
#[tokio::test(start_paused = true)]
#[expect(clippy::print_stdout, reason = "what was measured is worth a look")]
async fn a_long_fat_path_is_filled() {
    const SIZE: usize = 100_000_000;
    let mut bench = Bench::new(|builder| builder);
    let request = bench.get("/large");
    let (server, seen) = delayed(bench.raw().await, RTT / 2);
    let sent = Arc::<AtomicU64>::default();
    tokio::spawn(serve(server, SIZE, sent.clone()));
    let start = now();
    let mut body = response(request).await.into_body();
    let (mut read, mut ahead, mut window) = (0_u64, 0, 0);
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len() as u64;
        // Frame headers are delivered too: a little more than the DATA.
        ahead = ahead.max(seen.delivered.load(Ordering::Relaxed).saturating_sub(read));
        window = window.max(seen.allowed.load(Ordering::Relaxed).saturating_sub(read));
    }
    assert_eq!(read, SIZE as u64);
    let taken = start.elapsed();
    let rate = SIZE as f64 / taken.as_secs_f64();
    let small = 65_535.0 / RTT.as_secs_f64();
    let times = rate / small;
    println!(
        "100 MB over a path of {RTT:?} in {taken:?}: {:.1} MB/s, {times:.0} times of what 65,535 bytes allow ({:.2} MB/s)",
        rate / 1e6,
        small / 1e6
    );
    assert!(times >= 60.0, "{times}");

    let windows = seen.stream_windows.lock().clone();
    println!("stream windows: {windows:?}; the connection's at most {window}; unread at most {ahead}");
    assert_eq!(windows[0], 2 << 20);
    assert!(windows.len() > 1 && windows.is_sorted(), "{windows:?}");
    assert_eq!(
        *windows.last().unwrap(),
        8 << 20,
        "half of `max_connection_window`"
    );
    assert!(window > 5 * MIB && window <= 16 * MIB, "{window}");
    assert!(ahead <= 16 * MIB, "{ahead}");

    let pings = seen.pings.lock().clone();
    assert!(pings.windows(2).all(|pair| pair[1] - pair[0] >= RTT), "{pings:?}");
    assert!(pings.len() <= 5, "{pings:?}");
}

// P33, P30: whatever the windows grew to, what nobody reads stays within them; a body that is held then leaves others
// room.
#[tokio::test(start_paused = true)]
async fn grown_windows_bound_what_is_unread() {
    let mut bench = Bench::new(|builder| builder);
    let request = bench.get("/large");
    let (server, seen) = delayed(bench.raw().await, RTT / 2);
    let sent = Arc::<AtomicU64>::default();
    tokio::spawn(serve(server, 60_000_000, sent.clone()));
    let mut body = response(request).await.into_body();
    let mut read = 0;
    while read < 40_000_000 {
        read += body.frame().await.unwrap().unwrap().into_data().unwrap().len() as u64;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let unread = sent.load(Ordering::Relaxed) - read;
    assert!((4 * MIB..=8 * MIB).contains(&unread), "{unread}");
    let other = response(bench.get("/other")).await.into_body().collect().await;
    assert_eq!(other.unwrap().to_bytes().len(), 60_000_000);
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len() as u64;
    }
    assert_eq!(read, 60_000_000);
    assert!(!bench.dials());
    assert!(seen.pings.lock().len() <= 5);
}

// P33: windows that are to stay as they are do; nothing is measured.
#[tokio::test(start_paused = true)]
async fn fixed_windows() {
    let mut bench = Bench::new(|builder| {
        let builder = builder.adaptive_window(false);
        builder.stream_window(65_535).connection_window(65_535)
    });
    let request = bench.get("/large");
    let (server, seen) = delayed(bench.raw().await, RTT / 2);
    tokio::spawn(serve(server, 1_000_000, Arc::default()));
    let start = now();
    let body = response(request).await.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes().len(), 1_000_000);
    let trips = start.elapsed().as_secs_f64() / RTT.as_secs_f64();
    assert!(trips > 1_000_000.0 / 65_535.0, "{trips} round trips");
    assert_eq!(*seen.stream_windows.lock(), [65_535]);
    assert!(seen.pings.lock().is_empty());
}

// P33: a body that nobody reads measures nothing, and many small responses do not either.
#[tokio::test(start_paused = true)]
async fn small_responses_cause_no_ping() {
    let mut bench = Bench::new(|builder| builder);
    let first = bench.get("/small");
    let (server, seen) = delayed(bench.raw().await, RTT / 2);
    tokio::spawn(serve(server, 1000, Arc::default()));
    response(first).await.into_body().collect().await.unwrap();
    for _ in 0..200 {
        let response = response(bench.get("/small")).await;
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes().len(),
            1000
        );
    }
    assert!(seen.pings.lock().is_empty());
    assert_eq!(*seen.stream_windows.lock(), [2 << 20]);
}
