//! Sessions that are opened and lead nowhere, and what is sent before SETTINGS (P3, P9, P21).

use std::time::Duration;

use h2pool::{Error, H2Pool};
use http::Version;

use crate::support::peer::{Frame, Peer, code, frame, hpack};
use crate::util::*;

/// How many sessions a pool opened within `seconds`, each of which `then` ended, and how its one request failed.
async fn loop_of_sessions<F, Fut>(seconds: f64, then: F) -> (usize, Error)
where
    F: Fn(Peer) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (pool, mut net) = net(H2Pool::builder());
    let request = fetch(&pool, get(uri("https://a/")));
    let dials = tokio::spawn(async move {
        let mut dials = 0;
        let deadline = now() + Duration::from_secs_f64(seconds);
        while let Ok(dial) = tokio::time::timeout_at(deadline, net.dial()).await {
            dials += 1;
            tokio::spawn(then(Peer::new(dial.accept(Version::HTTP_2))));
        }
        dials
    });
    let (read, took) = timed(join(request)).await;
    let error = read.unwrap_err();
    assert!(took < Duration::from_secs(25), "it was tried for {took:?}");
    // Callers go on coming.
    let more = async {
        loop {
            drop(join(fetch(&pool, get(uri("https://a/")))).await);
            settle().await;
        }
    };
    let dials = tokio::select! {
        dials = dials => dials.unwrap(),
        () = more => unreachable!(),
    };
    (dials, error)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_goaway_at_once_is_no_loop() {
    // P3, P9
    let (dials, error) = loop_of_sessions(25.0, |mut peer| async move {
        drop(peer.greet(&streams(10)).await);
        peer.send_goaway(0, code::NO_ERROR, b"").await;
        drop(peer.until_closed().await);
    })
    .await;
    assert!(error.is_goaway() && error.is_unprocessed(), "{error:?}");
    assert!((10..=32).contains(&dials), "{dials} dials in 25 s");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_waits_for_settings_fails_where_goaway_comes_with_them() {
    // P3, P9, P14: the SETTINGS grant it a slot on a session that is gone before it looks.
    for goaway in [true, false] {
        let (pool, mut net) = net(H2Pool::builder().acquire_timeout(Duration::ZERO));
        let request = fetch(&pool, post(uri("https://a/"), "body"));
        let server = tokio::spawn(async move {
            for dials in 1.. {
                let mut peer = net.peer().await;
                peer.silent();
                let goaway = match goaway {
                    true => frame::goaway(0, code::NO_ERROR, b""),
                    false => Default::default(),
                };
                peer.expect_preface().await;
                let last = [frame::settings(&streams(10)), goaway].concat();
                peer.send_raw(&last).await;
                drop(peer);
                assert!(dials < 10, "{dials} dials for one request");
            }
        });
        let (read, took) = timed(join(request)).await;
        let error = read.unwrap_err();
        assert!(error.is_connect() && error.is_unprocessed(), "{error:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(!server.is_finished());
        server.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_before_it_serves_is_no_loop() {
    // P3, P9
    let (dials, error) = loop_of_sessions(25.0, |peer| async move { drop(peer) }).await;
    assert!(error.is_transient(), "{error:?}");
    assert!((10..=32).contains(&dials), "{dials} dials in 25 s");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_what_came_early_and_closes_is_no_loop() {
    // P3, P9, P21: such refusals are no replays, and yet there is an end to them.
    for goaway in [false, true] {
        let (dials, error) = loop_of_sessions(25.0, move |mut peer| async move {
            peer.silent();
            peer.expect_preface().await;
            let head = peer.next_headers().await;
            peer.send_settings(&streams(10)).await;
            peer.send_rst(head.stream, code::REFUSED_STREAM).await;
            if goaway {
                peer.send_goaway(head.stream, code::NO_ERROR, b"").await;
            }
        })
        .await;
        assert!(error.is_unprocessed(), "{error:?}");
        assert!((3..=40).contains(&dials), "{dials} dials in 25 s");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_does_not_make_a_server_useful() {
    // P3, P9: each ends its session before it served anything.
    let goaway = |stream| frame::goaway(stream, code::NO_ERROR, b"");
    let hint = || frame::headers(1, &hpack::literals([(":status", "103"), ("link", "x")]), false);
    for what in [
        [hint(), goaway(0)].concat(),
        hint().to_vec(),
        frame::headers(1, &[0xff; 6], true).to_vec(),
        frame::data(0, b"on no stream", false).to_vec(),
    ] {
        let (dials, _) = loop_of_sessions(25.0, move |mut peer| {
            let what = what.clone();
            async move {
                peer.handshake(&streams(1)).await;
                peer.next_headers().await;
                peer.send_raw(&what).await;
            }
        })
        .await;
        assert!((3..=40).contains(&dials), "{dials} dials in 25 s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_before_its_settings_is_not_asked_again_and_again() {
    // P21, P44, RFC 9113 §3.4: refusals of early streams count for nothing, but SETTINGS come first of all.
    let (pool, mut net) = net(H2Pool::builder());
    let request = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.peer().await;
    peer.silent();
    peer.expect_preface().await;
    let head = peer.next_headers().await;
    peer.send_rst(head.stream, code::REFUSED_STREAM).await;
    let (read, took) = timed(join(request)).await;
    assert!(
        !read.unwrap_err().is_unprocessed() && took < Duration::from_millis(10),
        "{took:?}"
    );
    assert!(
        !peer
            .until_closed()
            .await
            .iter()
            .any(|frame| matches!(frame, Frame::Headers(_)))
    );
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_holds_requests_back() {
    // P3
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let request = fetch(&pool, post(uri("https://a/"), "body"));
    let mut peer = net.ready_peer(0).await;
    pass(5.0).await;
    assert!(!request.is_finished());
    assert_eq!(pool.sessions()[0].limit, 0);
    peer.send_settings(&streams(1)).await;
    assert_eq!(peer.next_request().await.body, "body");
    peer.respond(1, 200, b"ok").await;
    assert_eq!(join(request).await.unwrap().body, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_stays_zero_is_a_failed_dial() {
    // P3, P9
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1));
    let request = fetch(&pool, post(uri("https://a/"), "body"));
    let mut peer = net.ready_peer(0).await;
    let (read, took) = timed(join(request)).await;
    let error = read.unwrap_err();
    assert!(
        error.is_connect() && error.is_timeout() && error.is_unprocessed(),
        "{error:?}"
    );
    assert_eq!(took.as_secs(), 10);
    let frames = peer.until_closed().await;
    assert!(!frames.iter().any(|frame| matches!(frame, Frame::Headers(_))));
    assert_eq!(pool.stats().sessions_closed.unused, 1);
}

#[tokio::test(start_paused = true)]
async fn a_burst_before_settings_survives_its_refusals() {
    // P3, P21: nginx, Apache, HAProxy and others refuse what comes before their SETTINGS and exceeds them.
    let (pool, mut net) = net(H2Pool::builder().max_sessions(1).max_replays(0));
    let requests = fetch_many(&pool, &uri("https://a/"), 300);
    let mut peer = net.peer().await;
    peer.expect_preface().await;
    settle().await;
    peer.send_settings(&streams(10)).await;
    let (mut refused, mut served) = (0, 0);
    while served < 300 {
        // All that the client has sent until now; it keeps to the limit once it knows it.
        let mut heads = Vec::new();
        while let Ok(frame) = tokio::time::timeout(Duration::from_millis(1), peer.recv()).await {
            if let Some(Frame::Headers(head)) = frame.unwrap() {
                heads.push(head.stream);
            }
        }
        assert!(!heads.is_empty(), "after {served} answers");
        for (nth, stream) in heads.iter().enumerate() {
            if nth < 10 {
                served += 1;
                peer.respond(*stream, 200, b"ok").await;
            } else {
                refused += 1;
                peer.send_rst(*stream, code::REFUSED_STREAM).await;
            }
        }
    }
    for read in join_all(requests).await {
        assert_eq!(read.unwrap().body, "ok");
    }
    assert_eq!(refused, 90, "100 came early, 10 of them could be served");
    assert_eq!(pool.stats().replays, 0);
}

#[tokio::test(start_paused = true)]
async fn sessions_that_came_to_nothing_are_counted_as_failed_dials() {
    // P3, P43
    let (pool, mut net) = net(H2Pool::builder());
    let request = fetch(&pool, post(uri("https://a/"), "waits for SETTINGS"));
    // Connected, and closed before SETTINGS; then refused outright.
    let peer = net.peer().await;
    settle().await;
    drop(peer);
    net.dial().await.refuse(Error::connect("refused"));
    let error = join(request).await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    let stats = pool.stats();
    assert_eq!((stats.dials_failed, stats.sessions_opened), (2, 1));
    // One that has served is none.
    let request = fetch(&pool, get(uri("https://a/")));
    let mut peer = net.ready_peer(1).await;
    peer.answer_one(b"ok").await.unwrap();
    join(request).await.unwrap();
    drop(peer);
    settle().await;
    assert_eq!(pool.stats().sessions_closed.total(), 2);
    assert_eq!(pool.stats().dials_failed, 2);
}
