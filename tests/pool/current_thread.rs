//! Everything on runtimes of one thread: nothing may need a second one (P36, P38).

use h2pool::H2Pool;
use http_body_util::BodyExt;

use crate::support::server::Server;
use crate::util::*;

#[tokio::test]
async fn a_burst_on_one_thread() {
    // P5, P7, P36
    let server = Server::builder().h2_max_streams(20).start_on_own_thread();
    let pool = tls().build().unwrap();
    let requests = fetch_many(&pool, &server.uri("/delay/1"), 300);
    for read in join_all(requests).await {
        assert_eq!(read.unwrap().body, "ok");
    }
    let counts = server.counts();
    assert!(counts.accepted <= 4 && counts.max_streams() <= 20, "{counts:?}");
    assert_eq!(counts.duplicates().len(), 0);
}

#[test]
fn several_runtimes_of_one_thread_at_once() {
    // P5, P36: each has sessions of its own, and `max_sessions` of them.
    let server = Server::builder().h2_max_streams(5).start_on_own_thread();
    let pool = tls().max_sessions(2).build().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    for read in join_all(fetch_many(&pool, &server.uri("/delay/1"), 60)).await {
                        assert_eq!(read.unwrap().body, "ok");
                    }
                });
            });
        }
    });
    let counts = server.counts();
    assert_eq!(counts.requests, 240);
    assert!((4..=8).contains(&counts.accepted), "{counts:?}");
    assert!(counts.max_streams() <= 5);
    assert!(pool.sessions().is_empty(), "they went with their runtimes");
    assert_eq!((pool.stats().streams, pool.stats().waiters), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_needs_no_task_of_its_callers() {
    // P1, P29: polled by hand within one task, beside others.
    let (pool, server) = with_server(H2Pool::builder(), Server::builder());
    let all = (0..50).map(|n| pool.request(get(uri(&format!("https://a/bytes/{n}")))));
    for (n, response) in futures_util::future::join_all(all).await.into_iter().enumerate() {
        let body = response.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.len(), n);
    }
    assert_eq!(server.counts().requests, 50);
}
