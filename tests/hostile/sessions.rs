//! Connections that never become useful, or never for long: no storm of dials, and every caller hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;

use crate::arena::{Arena, Fetch, chain, ends, fails, settle};
use crate::support::peer::{Peer, code, frame, setting};
use crate::support::server::body::full;

/// What a server does with every connection.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// Closes at once.
    Close,
    /// GOAWAY instead of SETTINGS.
    GoawayFirst,
    /// SETTINGS, GOAWAY that excludes everything, the end.
    Goaway,
    /// The same, but the connection stays open.
    GoawayLingering,
    /// SETTINGS that allow no stream, for ever; what was sent before them is refused.
    NoStreams,
    /// Refuses every stream.
    Refuse,
    /// GOAWAY for each request that comes, which excludes it.
    GoawayEach,
}

async fn behave(mut peer: Peer, habit: Habit, requests: Arc<AtomicUsize>) -> Option<()> {
    let refuse_all = frame::goaway(0, code::NO_ERROR, b"");
    match habit {
        Habit::Close => return None,
        Habit::GoawayFirst => peer.try_send_raw(&refuse_all).await.ok()?,
        Habit::Goaway | Habit::GoawayLingering => {
            peer.greet(&[]).await.ok()?;
            peer.try_send_raw(&refuse_all).await.ok()?;
        }
        Habit::NoStreams => peer.greet(&[(setting::MAX_CONCURRENT_STREAMS, 0)]).await.ok()?,
        Habit::Refuse => {
            peer.greet(&[]).await.ok()?;
            while let Some((stream, _)) = peer.next_complete().await {
                requests.fetch_add(1, Ordering::SeqCst);
                peer.try_send_raw(&frame::reset(stream, code::REFUSED_STREAM))
                    .await
                    .ok()?;
            }
        }
        Habit::GoawayEach => {
            peer.greet(&[]).await.ok()?;
            let (stream, _) = peer.next_complete().await?;
            requests.fetch_add(1, Ordering::SeqCst);
            peer.try_send_raw(&frame::goaway(stream - 2.min(stream), code::NO_ERROR, b""))
                .await
                .ok()?;
        }
    }
    if !matches!(habit, Habit::Goaway | Habit::GoawayEach) {
        while let Ok(Some(_)) = peer.recv().await {}
    }
    Some(())
}

/// Plays the habit until all requests have ended, and returns how they ended.
async fn play(arena: &mut Arena, habit: Habit, fetches: Vec<Fetch>) -> Vec<h2pool::Error> {
    play_counting(arena, habit, fetches, &Arc::default()).await
}

/// The same, counting the requests that come.
async fn play_counting(
    arena: &mut Arena,
    habit: Habit,
    fetches: Vec<Fetch>,
    requests: &Arc<AtomicUsize>,
) -> Vec<h2pool::Error> {
    let mut peers = tokio::task::JoinSet::new();
    let mut errors = Vec::new();
    for mut fetch in fetches {
        let ended = async {
            loop {
                tokio::select! {
                    ended = &mut fetch => return ended.unwrap(),
                    peer = arena.accept_any() => drop(peers.spawn(behave(peer, habit, Arc::clone(requests)))),
                }
            }
        };
        // Acquiring takes 30 s at most; three replays may wait a little more.
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        errors.push(
            ended
                .unwrap_or_else(|_| panic!("{habit:?}: no end"))
                .expect_err("nobody answers"),
        );
    }
    errors
}

/// P3, P9, P21, P22, P44: twenty requests, a few dials, and every caller is told that nothing was done.
async fn few_dials(habit: Habit) {
    let mut arena = Arena::new();
    let fetches = (0..20).map(|_| arena.post("/useless", full("small"))).collect();
    for error in play(&mut arena, habit, fetches).await {
        assert!(error.is_unprocessed(), "{habit:?}: {}", chain(&error));
        assert!(error.origin().is_some(), "{habit:?}: {}", chain(&error));
    }
    no_more_than_one_a_second(&arena);
    arena.recovers().await;
    arena.end().await;
}

/// P9: after the first few, a dial a second at most: back-off ends between one and two.
fn no_more_than_one_a_second(arena: &Arena) {
    let (dials, elapsed) = (arena.dials(), arena.elapsed());
    assert!(
        dials as u64 <= 10 + elapsed.as_secs(),
        "{dials} dials in {elapsed:?}"
    );
}

/// P9, P44: the same under load for a whole minute.
async fn no_storm(habit: Habit) {
    let mut arena = Arena::with(|builder| builder.acquire_timeout(Duration::from_secs(5)));
    let mut all = Vec::new();
    let mut peers = tokio::task::JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    let minute = tokio::time::sleep(Duration::from_secs(60));
    tokio::pin!(minute);
    loop {
        tokio::select! {
            () = &mut minute => break,
            _ = ticks.tick() => all.push(arena.get("/loaded")),
            peer = arena.accept_any() => drop(peers.spawn(behave(peer, habit, Arc::default()))),
        }
    }
    no_more_than_one_a_second(&arena);
    // A head that was on its way when the connection closed, or that went out before SETTINGS said 0, may have been
    // processed.
    let ambiguous = matches!(habit, Habit::Close | Habit::GoawayFirst | Habit::NoStreams);
    for error in play(&mut arena, habit, all).await {
        assert!(
            error.is_unprocessed() || ambiguous,
            "{habit:?}: {}",
            chain(&error)
        );
    }
    arena.end().await;
}

#[tokio::test(start_paused = true)]
async fn closing_at_once() {
    few_dials(Habit::Close).await;
    no_storm(Habit::Close).await;
}

#[tokio::test(start_paused = true)]
async fn goaway_instead_of_settings() {
    few_dials(Habit::GoawayFirst).await;
    no_storm(Habit::GoawayFirst).await;
}

#[tokio::test(start_paused = true)]
async fn goaway_after_settings() {
    few_dials(Habit::Goaway).await;
    no_storm(Habit::Goaway).await;
}

#[tokio::test(start_paused = true)]
async fn goaway_without_an_end() {
    few_dials(Habit::GoawayLingering).await;
    no_storm(Habit::GoawayLingering).await;
}

#[tokio::test(start_paused = true)]
async fn no_streams_for_ever() {
    few_dials(Habit::NoStreams).await;
    no_storm(Habit::NoStreams).await;
}

#[tokio::test(start_paused = true)]
async fn refusing_everything() {
    few_dials(Habit::Refuse).await;
    no_storm(Habit::Refuse).await;
}

#[tokio::test(start_paused = true)]
async fn goaway_for_each_request() {
    few_dials(Habit::GoawayEach).await;
    no_storm(Habit::GoawayEach).await;
}

/// P21: a request that is refused for ever is sent `1 + max_replays` times, whatever the connections do.
#[tokio::test(start_paused = true)]
async fn a_request_refused_for_ever_is_sent_four_times() {
    for habit in [Habit::Refuse, Habit::GoawayEach] {
        let mut arena = Arena::new();
        let heads = Arc::<AtomicUsize>::default();
        let fetch = arena.post("/refused", full("again and again"));
        let errors = play_counting(&mut arena, habit, vec![fetch], &heads).await;
        assert!(errors[0].is_unprocessed(), "{}", chain(&errors[0]));
        assert_eq!(heads.load(Ordering::SeqCst), 4, "{habit:?}");
        arena.end().await;
    }
}

/// P3: the limit falls to 0 after the first answer; those who wait are told in time, nobody is sent.
#[tokio::test(start_paused = true)]
async fn a_limit_that_falls_to_zero_for_ever_ends_in_a_timeout() {
    let mut arena = Arena::with(|builder| builder.acquire_timeout(Duration::from_secs(3)));
    let served = arena.get("/served");
    let mut peer = arena.greeted(&[]).await;
    assert!(peer.answer_one(b"served").await.is_some());
    served.await.unwrap().unwrap();
    peer.send_settings(&[(setting::MAX_CONCURRENT_STREAMS, 0)]).await;
    peer.ping_round_trip().await;

    let waiting: Vec<_> = (0..10).map(|_| arena.get("/waits")).collect();
    for error in play(&mut arena, Habit::NoStreams, waiting).await {
        assert!(error.is_unprocessed(), "{}", chain(&error));
    }
    assert!(
        peer.ping_round_trip().await.iter().all(frame::Frame::is_control),
        "nothing is sent over the limit"
    );
    no_more_than_one_a_second(&arena);
    arena.end().await;
}

/// P8, P9: a server that says nothing after the dial; all who wait fail together and not one after the other.
#[tokio::test(start_paused = true)]
async fn silence_instead_of_settings_is_a_failed_dial() {
    let mut arena = Arena::with(|builder| builder.connect_timeout(Duration::from_secs(2)));
    let waiting: Vec<_> = (0..50).map(|_| arena.post("/silent", full("body"))).collect();
    let mut silent = Vec::new();
    let mut errors = Vec::new();
    for mut fetch in waiting {
        loop {
            tokio::select! {
                ended = &mut fetch => break errors.push(ended.unwrap().unwrap_err()),
                peer = arena.accept_any() => silent.push(peer),
            }
        }
    }
    for error in &errors {
        assert!(
            error.is_connect() && error.is_timeout() && error.is_unprocessed(),
            "{}",
            chain(error)
        );
    }
    assert!(arena.elapsed() < Duration::from_secs(20), "{:?}", arena.elapsed());
    assert!(arena.dials() <= 8, "{} dials", arena.dials());
    drop(silent);
    arena.recovers().await;
    arena.end().await;
}

/// P18: a warning for ever (2³¹−1), or a last stream that shrinks; nothing new is sent, what is covered is answered.
#[tokio::test(start_paused = true)]
async fn repeated_goaways_replace_the_session_and_keep_what_they_cover() {
    let mut arena = Arena::new();
    let covered = arena.get("/covered");
    let mut peer = arena.greeted(&[]).await;
    peer.next_headers().await;
    let excluded = arena.post("/excluded", full("x"));
    peer.next_request().await;
    for last in [0x7fff_ffff, 0x7fff_ffff, 3, 1] {
        peer.send_goaway(last, code::NO_ERROR, b"").await;
    }
    let mut second = arena.greeted(&[]).await;
    assert_eq!(second.answer_one(b"replayed").await.as_deref(), Some("/excluded"));
    assert_eq!(excluded.await.unwrap().unwrap().body, "replayed");
    peer.respond(1, 200, b"covered").await;
    assert_eq!(ends(covered).await.unwrap().body, "covered");
    peer.until_closed().await;
    assert_eq!(arena.dials(), 2);
    arena.end().await;
}

/// P5: a server that drains for ever: at most `max_sessions` draining ones are kept beside the active one.
#[tokio::test(start_paused = true)]
async fn draining_sessions_do_not_pile_up() {
    let mut arena = Arena::with(|builder| builder.max_sessions(2).drain_timeout(Duration::ZERO));
    let mut held = Vec::new();
    for _ in 0..6 {
        let pool = arena.pool.clone();
        held.push(tokio::spawn(async move {
            pool.request(crate::arena::get(0, "/held")).await?.collect().await
        }));
        let Ok(mut peer) = tokio::time::timeout(Duration::from_secs(20), arena.accept_any()).await else {
            break;
        };
        peer.handshake(&[]).await;
        peer.next_headers().await;
        peer.send_headers(1, 200, false).await;
        peer.send_goaway(1, code::NO_ERROR, b"").await;
        settle().await;
        // Kept open for as long as the test lives.
        tokio::spawn(async move { while let Ok(Some(_)) = peer.recv().await {} });
    }
    let open = arena
        .pool
        .sessions()
        .iter()
        .filter(|session| session.origin.contains("bad"))
        .count();
    assert!(open <= 4, "{open} sessions");
    arena.end().await;
}

/// P22: the end comes after the request was sent: never replayed, and the caller knows that it is open what happened.
#[tokio::test(start_paused = true)]
async fn an_end_after_the_request_is_never_replayed() {
    let mut arena = Arena::new();
    for last_words in [
        None,
        Some(frame::goaway(1, code::NO_ERROR, b"covered, and yet")),
        Some(frame::goaway(1, code::ENHANCE_YOUR_CALM, b"")),
        Some(frame::reset(1, code::INTERNAL_ERROR)),
    ] {
        let fetch = arena.post("/once", full("x"));
        let mut peer = arena.greeted(&[]).await;
        peer.next_request().await;
        if let Some(words) = &last_words {
            peer.send_raw(words).await;
        }
        drop(peer);
        let error = fails(fetch).await;
        assert!(!error.is_unprocessed(), "{last_words:?}: {}", chain(&error));
        settle().await;
        assert!(
            arena.try_accept().is_none(),
            "{last_words:?}: no second connection"
        );
        arena.recovers().await;
    }
    arena.end().await;
}
