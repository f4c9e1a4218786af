//! What users of the types take for granted: that they can be sent, shared, cloned, shown, and filled with any body.
//! Most of it is proved by compiling.

use std::cell::Cell;
use std::fmt::Debug;
use std::io::{self, Cursor};
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2pool::connect::memory;
use h2pool::poll::{LongPoll, Reply, Round, SharedWait, WaitError, wait_for_status};
use h2pool::retry::{
    Attempts, Delay, Outcome, ReplayBody, Retry, RetryBudget, RetryError, RetryFuture, RetryOptions,
    RetryPolicy, TowerPolicy,
};
use h2pool::{
    Body, Builder, ConnectionInfo, Error, H2Pool, Lease, Origin, OriginPool, PoolConfig, Protocol,
    RequestBody, ResponseFuture, SessionFilter, SessionInfo, Stats,
};
use http::Request;
use http_body::Frame;
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{Empty, Full};
use tower::{BoxError, Service, ServiceExt};

fn shared<T: Debug + Send + Sync + Unpin + 'static>() {}
fn cloned<T: Clone + Debug + Send + Sync + Unpin + 'static>() {}
fn sent<T: Debug + Send + Unpin + 'static>() {}
fn send<T: Send + 'static>(_: T) {}

#[test]
fn types_can_be_sent_shared_cloned_and_shown() {
    // P29 P45 R1 W1
    cloned::<H2Pool>();
    cloned::<OriginPool>();
    cloned::<Builder>();
    cloned::<PoolConfig>();
    cloned::<Origin>();
    cloned::<Error>();
    cloned::<Stats>();
    cloned::<SessionInfo>();
    cloned::<SessionFilter>();
    cloned::<ConnectionInfo>();
    cloned::<Protocol>();
    cloned::<RetryPolicy>();
    cloned::<RetryOptions>();
    cloned::<RetryBudget>();
    cloned::<TowerPolicy>();
    cloned::<Retry<H2Pool>>();
    cloned::<Attempts>();
    cloned::<Outcome>();
    cloned::<LongPoll>();
    cloned::<SharedWait<u8>>();
    cloned::<WaitError<u8>>();
    cloned::<Reply<u8>>();
    cloned::<Round>();
    shared::<Lease>();
    shared::<RetryError>();
    shared::<Body>();
    shared::<RequestBody>();
    sent::<ResponseFuture>();
    sent::<ReplayBody<Odd>>();
    let _: fn(RetryFuture<H2Pool, Odd, Body>) = send;
    let _: fn(Delay) = send;
}

fn pool() -> H2Pool {
    let (connector, _) = memory::pair();
    H2Pool::builder().connector(connector).build().unwrap()
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("https://a.test/").body(Empty::new()).unwrap()
}

#[test]
fn futures_can_be_sent() {
    // P29 P45 W1
    let (pool, policy) = (pool(), RetryPolicy::default());
    let owned = pool.clone();
    send(async move { owned.acquire(&"https://a.test".parse()?).await?.send(get()).await });
    let owned = pool.clone();
    send(async move {
        owned
            .origin("https://a.test".parse()?)
            .ready()
            .await?
            .call(get())
            .await
    });
    send(pool.request(get()));
    send(Retry::new(policy, pool).oneshot(get()));
    let call = async |round: Round| Ok::<_, io::Error>(Reply::Value(round.number()));
    send(wait_for_status(Duration::from_secs(1), call, |number| {
        *number == 1
    }));
}

/// Neither `Sync` nor `Unpin`, with data that is not `Bytes`.
#[derive(Default)]
struct Odd {
    _not_sync: Cell<u8>,
    _not_unpin: PhantomPinned,
}

impl http_body::Body for Odd {
    type Data = Cursor<Vec<u8>>;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, io::Error>>> {
        Poll::Ready(None)
    }
}

/// Its error is none, but becomes one.
struct Words;

impl http_body::Body for Words {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        Poll::Ready(None)
    }
}

fn takes_all_bodies<S>(_: &S)
where
    S: Service<Request<Odd>, Future: Send>,
    S: Service<Request<Words>, Future: Send>,
    S: Service<Request<String>, Future: Send>,
    S: Service<Request<Full<Bytes>>, Future: Send>,
    S: Service<Request<Pin<Box<Odd>>>, Future: Send>,
    S: Service<Request<UnsyncBoxBody<Bytes, io::Error>>, Future: Send>,
    S: Service<Request<BoxBody<Bytes, BoxError>>, Future: Send>,
{
}

#[test]
fn any_body_will_do() {
    // P29 R1
    let pool = pool();
    takes_all_bodies(&pool);
    takes_all_bodies(&pool.origin("https://a.test".parse().unwrap()));
    takes_all_bodies(&Retry::new(RetryPolicy::default(), pool));
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_tells_nothing_of_what_is_sent() {
    // P41, P43, R14: `Debug` is for logs, where neither bodies nor credentials belong.
    const SECRET: &str = "hunter2";
    let (connector, mut listener) = memory::pair::<Origin>();
    let mut seen = vec![format!("{connector:?} {listener:?}")];
    let pool = H2Pool::builder().connector(connector).build().unwrap();
    let secret = || Full::<Bytes>::from(SECRET);
    let post = || {
        let request = Request::post("https://u:hunter2@a.test/").header("authorization", SECRET);
        request.body(secret()).unwrap()
    };
    let serve = async {
        let dial = listener.accept().await.unwrap();
        let shown = format!("{dial:?}");
        let io = dial.accept(http::Version::HTTP_2);
        let mut connection = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data(SECRET.into(), true).unwrap();
        }
        shown
    };
    let client = async {
        let key: Origin = "https://a.test".parse().unwrap();
        let lease = pool.acquire(&key).await.unwrap();
        assert!(format!("{lease:?}").contains("a.test"), "{lease:?}");
        let future = pool.request(post());
        let mut seen = vec![format!("{pool:?} {:?} {lease:?} {future:?}", pool.origin(key))];
        let response = future.await.unwrap();
        seen.push(format!("{:?} {:?}", response.body(), Body::default()));
        let policy = RetryPolicy::default().budget(RetryBudget::default());
        let retried = Retry::new(policy.clone(), pool.clone()).call(post());
        let body = ReplayBody::new(secret(), 10);
        seen.push(format!(
            "{policy:?} {retried:?} {body:?} {:?}",
            policy.tower_policy()
        ));
        drop((lease, response));
        pool.close();
        seen
    };
    let (dial, shown) = tokio::join!(serve, client);
    seen.extend(shown);
    seen.push(dial);
    let wait = SharedWait::new(async |_| Ok::<_, io::Error>(Reply::Value(SECRET)), |_| false);
    seen.push(format!(
        "{:?} {wait:?} {:?}",
        LongPoll::default(),
        wait.wait(Duration::from_secs(9)).await
    ));
    for shown in seen {
        assert!(!shown.is_empty() && !shown.contains(SECRET), "{shown}");
    }
}
