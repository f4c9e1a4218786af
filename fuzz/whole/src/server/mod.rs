//! A pool against a server that says whatever the bytes are, over connections that carry as little at a time as the bytes
//! say: every request settles, in bounded virtual time, and nothing leaks.

mod callers;
mod script;

use std::time::Duration;

use h2pool::{Builder, H2Pool};

use crate::input::Input;
use crate::wire::{alone, choppy, close, within};

/// Longer than all the time limits of one request together, replays included.
const PATIENCE: u64 = 600;

/// Panics where a promise is broken.
pub fn run(bytes: &[u8]) {
    alone(story(Input::new(bytes)));
}

async fn story(mut input: Input<'_>) {
    let builder = configured(&mut input);
    let chops = input.below(64);
    let (connector, listener) = choppy(input.take(chops));
    let pool = builder
        .connector(connector)
        .build()
        .expect("a valid configuration");
    let callers = callers::start(&pool, &mut input);
    let server = script::play(listener, &mut input).await;
    let ending = server.ending(&mut input);
    for caller in callers {
        within(PATIENCE, "every request settles", caller)
            .await
            .expect("no caller panics");
    }
    close(pool).await;
    ending.abort();
}

/// Everything that could wait for ever has a limit; the rest is as the bytes say.
fn configured(input: &mut Input<'_>) -> Builder {
    let flags = input.byte();
    let second = Duration::from_secs(1);
    let mut builder = H2Pool::builder()
        .max_sessions(1 + input.below(3))
        .max_h1_connections(1 + input.below(3))
        .connect_timeout(2 * second)
        .acquire_timeout(5 * second)
        .header_timeout(3 * second)
        .body_idle_timeout(3 * second)
        .write_timeout(3 * second)
        .drain_timeout(2 * second)
        .max_header_list_size(4096);
    if flags & 1 != 0 {
        builder = builder
            .keep_alive_interval(second / 2)
            .keep_alive_timeout(second)
            .keep_alive_while_idle(true);
    }
    if flags & 2 != 0 {
        builder = builder.limit_concurrency(2);
    }
    if flags & 4 != 0 {
        builder = builder
            .adaptive_window(false)
            .stream_window(1024)
            .connection_window(65_535);
    }
    if flags & 8 != 0 {
        builder = builder.replay_buffer(16);
    }
    if flags & 16 != 0 {
        builder = builder.max_streams_per_session(2);
    }
    if flags & 32 != 0 {
        builder = builder.idle_timeout(second / 5);
    }
    if flags & 64 != 0 {
        builder = builder.min_sessions(1);
    }
    builder
}
