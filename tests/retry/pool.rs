//! Over the pool itself, in memory: a server on the `h2` crate that decides by the number of the stream.

use std::sync::Arc;

use bytes::Bytes;
use h2pool::connect::memory;
use h2pool::retry::{Attempts, Failure, Reason, Retry, Stop};
use h2pool::{Builder, H2Pool, Origin};
use http::{Request, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tower::{Layer, ServiceBuilder, ServiceExt};

use crate::mock::{Body, get, millis, now, pause, post, steady};

/// When each stream came, in milliseconds, and what body it brought.
type Seen = Arc<Mutex<Vec<(u128, Bytes)>>>;

/// What becomes of a stream.
enum Act {
    Status(u16),
    /// So many milliseconds later.
    Late(u64, u16),
    Reset(h2::Reason),
    /// More than the client takes.
    LargeHead,
}

fn serve(builder: Builder, act: fn(usize) -> Act) -> (H2Pool, Seen) {
    let (connector, mut listener) = memory::pair::<Origin>();
    let pool = builder.connector(connector).build().unwrap();
    let seen = Seen::default();
    let notes = seen.clone();
    tokio::spawn(async move {
        let io = listener.accept().await.unwrap().accept(http::Version::HTTP_2);
        let before = now();
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let notes = notes.clone();
            tokio::spawn(async move {
                let at = (now() - before).as_millis();
                let mut body = request.into_body();
                let mut whole = Vec::new();
                while let Some(Ok(data)) = body.data().await {
                    whole.extend_from_slice(&data);
                }
                let number = {
                    let mut notes = notes.lock();
                    notes.push((at, Bytes::from(whole)));
                    notes.len()
                };
                let act = act(number);
                if let Act::Late(time, _) = act {
                    pause(time).await;
                }
                match act {
                    Act::Reset(reason) => respond.send_reset(reason),
                    Act::LargeHead => {
                        let head = Response::builder().header("large", "x".repeat(12_000));
                        respond.send_response(head.body(()).unwrap(), true).unwrap();
                    }
                    Act::Status(status) | Act::Late(_, status) => {
                        let head = Response::builder().status(status).body(()).unwrap();
                        let mut answer = respond.send_response(head, false).unwrap();
                        answer.send_data(Bytes::from_static(b"answer"), true).unwrap();
                    }
                }
            });
        }
    });
    (pool, seen)
}

fn times(seen: &Seen) -> Vec<u128> {
    seen.lock().iter().map(|(at, _)| *at).collect()
}

async fn text(request: impl Future<Output = Result<Response<h2pool::Body>, tower::BoxError>>) -> String {
    let body = request.await.unwrap().into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn in_a_pool_of_one_stream_another_request_proceeds_during_the_back_off() {
    // R11 R12
    let builder = H2Pool::builder().max_sessions(1).streams_per_session(1);
    let (pool, seen) = serve(builder, |number| Act::Status(if number == 1 { 503 } else { 200 }));
    let service = ServiceBuilder::new().layer(steady()).service(pool.clone());
    let first = tokio::spawn(service.clone().oneshot(get()));
    pause(50).await;
    assert_eq!(seen.lock().len(), 1);
    assert_eq!(pool.stats().streams, 0, "the failed response's lease is back");
    assert_eq!(text(service.clone().oneshot(get())).await, "answer");
    assert_eq!(times(&seen), [0, 50]);
    let first = first.await.unwrap().unwrap();
    assert_eq!(first.status(), 200);
    drop(first);

    let abandoned = tokio::spawn(service.clone().oneshot(get()));
    abandoned.abort();
    assert_eq!(text(service.oneshot(get())).await, "answer");
    pool.close();
}

#[tokio::test(start_paused = true)]
async fn a_post_that_the_pool_cannot_replay_is_retried_when_refused_and_not_when_answered_503() {
    // R3 R5 R10: the pool replays nothing itself here.
    let builder = H2Pool::builder().max_replays(0);
    let (pool, seen) = serve(builder, |number| match number {
        1 => Act::Reset(h2::Reason::REFUSED_STREAM),
        2 => Act::Status(201),
        _ => Act::Status(503),
    });
    let service = ServiceBuilder::new().layer(steady()).service(pool);
    let created = service.clone().oneshot(post()).await.unwrap();
    assert_eq!(created.status(), 201);
    let attempts = created.extensions().get::<Attempts>().unwrap();
    assert_eq!(attempts.reasons(), [(Reason::Failure(Failure::Refused), 1)]);
    assert!(seen.lock().iter().all(|(_, body)| body == "order"));
    assert_eq!(service.oneshot(post()).await.unwrap().status(), 503);
    assert_eq!(seen.lock().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_retried_for_a_get_and_not_for_a_post() {
    // R3 R4
    let (pool, seen) = serve(H2Pool::builder(), |number| match number {
        1 | 2 => Act::Reset(h2::Reason::INTERNAL_ERROR),
        _ => Act::Status(200),
    });
    let service = ServiceBuilder::new().layer(steady()).service(pool);
    let error = service.clone().oneshot(post()).await.unwrap_err();
    assert_eq!(Attempts::of_error(&*error).unwrap().count(), 1);
    assert_eq!(service.oneshot(get()).await.unwrap().status(), 200);
    assert_eq!(seen.lock().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_in_back_off_leaves_no_stream_behind() {
    // R12
    let (pool, seen) = serve(H2Pool::builder(), |_| Act::Status(503));
    let service = ServiceBuilder::new().layer(steady()).service(pool.clone());
    let request: Request<Body> = get();
    let dropped = tokio::time::timeout(millis(300), service.oneshot(request)).await;
    assert!(dropped.is_err());
    assert_eq!((times(&seen), pool.stats().streams), (vec![0, 200], 0));
    pause(60_000).await;
    assert_eq!(seen.lock().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_with_a_boxed_error_goes_out_from_tasks() {
    // R1, P29: both ways compile, and are `Send`.
    let (pool, seen) = serve(H2Pool::builder(), |number| {
        Act::Status(if number == 1 { 503 } else { 200 })
    });
    let boxed = || get().map(|body: Body| body.map_err(tower::BoxError::from).boxed_unsync());
    let client = Retry::new(steady(), pool.clone());
    let (one, two) = (boxed(), boxed());
    let whole = tokio::spawn(client.clone().oneshot(boxed()));
    assert_eq!(whole.await.unwrap().unwrap().status(), 200);
    let within = tokio::spawn(async move {
        let retried = client.request(one).await.unwrap().status();
        (retried, pool.request(two).await.unwrap().status())
    });
    assert_eq!(
        within.await.unwrap(),
        (http::StatusCode::OK, http::StatusCode::OK)
    );
    assert_eq!(seen.lock().len(), 4);
}

#[cfg(feature = "http1")]
#[tokio::test(start_paused = true)]
async fn a_malformed_response_is_asked_for_once() {
    // R4, W2: as with hyper's own client; a connection that ends without an answer is another matter.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let ask = async |answer: &'static [u8]| {
        let (connector, mut listener) = memory::pair::<Origin>();
        let pool = H2Pool::builder().connector(connector).build().unwrap();
        let connections = Arc::new(Mutex::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            while let Some(dial) = listener.accept().await {
                *count.lock() += 1;
                let mut io = dial.accept(http::Version::HTTP_11);
                let mut head = [0; 1024];
                let _ = io.read(&mut head).await;
                let _ = io.write_all(answer).await;
            }
        });
        let policy = steady().max_attempts(3);
        let error = policy.layer(pool).oneshot(get()).await.unwrap_err();
        let attempts = Attempts::of_error(&*error).unwrap();
        (*connections.lock(), attempts.stop(), attempts.reasons().to_vec())
    };
    let once = (1, Stop::Done, vec![]);
    assert_eq!(ask(b"this is not HTTP\r\n\r\n").await, once);
    let lengths = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx";
    assert_eq!(ask(lengths).await, once);
    let again = vec![(Reason::Failure(Failure::Incomplete), 2)];
    assert_eq!(ask(b"").await, (3, Stop::Attempts, again));
}

#[tokio::test(start_paused = true)]
async fn headers_over_the_limit_are_asked_for_once() {
    // R4, P32
    let (pool, seen) = serve(H2Pool::builder().max_header_list_size(10_000), |_| Act::LargeHead);
    let error = steady().layer(pool).oneshot(get()).await.unwrap_err();
    assert_eq!(Attempts::of_error(&*error).unwrap().stop(), Stop::Done);
    assert_eq!(seen.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_reserve_does_not_hold_the_slot_that_the_hedge_waits_for_for_long() {
    // R13 R15: one stream at a time, and the body of the 503 is not read.
    let builder = H2Pool::builder().max_sessions(1).streams_per_session(1);
    let (pool, seen) = serve(builder, |number| match number {
        1 => Act::Late(150, 503),
        _ => Act::Status(200),
    });
    let policy = steady().hedge(millis(100)).max_attempts(2);
    let before = now();
    let response = policy.layer(pool).oneshot(get()).await.unwrap();
    assert_eq!((response.status().as_u16(), now() - before), (503, millis(1_150)));
    assert_eq!(times(&seen), [0]);
}
