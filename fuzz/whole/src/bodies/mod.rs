//! Bodies in both directions under flow control, against a server that keeps to every rule and checks that the client
//! does too: nothing is lost, nothing stalls, no window is exceeded, and all credit comes back.

mod callers;
mod server;

use h2pool::{Builder, H2Pool};
use http::Version;

use crate::input::Input;
use crate::wire::{alone, choppy, close, within};

/// The bodies of one run together take far less.
const PATIENCE: u64 = 60;

/// Panics where a promise is broken.
pub fn run(bytes: &[u8]) {
    alone(story(Input::new(bytes)));
}

async fn story(mut input: Input<'_>) {
    let (builder, settings) = (configured(&mut input), server::settings(&mut input));
    let chops = input.below(64);
    let (connector, mut listener) = choppy(input.take(chops));
    let pool = builder
        .connector(connector)
        .build()
        .expect("a valid configuration");
    let plans = callers::plans(&mut input);
    let callers = callers::start(&pool, &plans);
    let dial = within(PATIENCE, "a dial", listener.accept())
        .await
        .expect("the pool is there");
    let mut server = server::Server::new(dial.accept(Version::HTTP_2), &plans, settings);
    within(PATIENCE, "the script", server.play(&mut input)).await;
    let finishing = async {
        tokio::select! {
            never = server.finish() => match never {},
            () = callers::all(callers) => {}
        }
    };
    within(PATIENCE, "every body arrives", finishing).await;
    within(PATIENCE, "the credit comes back", server.settle()).await;
    let closing = async {
        tokio::select! {
            never = server.finish() => match never {},
            () = close(pool) => {}
        }
    };
    closing.await;
}

/// No time limits at all: whatever stalls is found.
fn configured(input: &mut Input<'_>) -> Builder {
    let flags = input.byte();
    let mut builder = H2Pool::builder().max_sessions(1);
    if flags & 1 != 0 {
        builder = builder.adaptive_window(false);
    }
    if flags & 2 != 0 {
        builder = builder
            .connection_window(65_535)
            .stream_window(1024 << (flags >> 5).min(5));
    }
    if flags & 4 != 0 {
        builder = builder.max_send_buffer(1024);
    }
    if flags & 8 != 0 {
        builder = builder.replay_buffer(0);
    }
    builder
}
