//! The matrix: what is asked of every server that can do it.

use std::future::Future;
use std::pin::Pin;

use crate::Failure;
use crate::cases::{bulk, churn};
use crate::client::{Client, Options, TlsVersions};
use crate::context::Context;
use crate::settings::{Can, Settings};

type Run<C> = fn(Context<C>) -> Pin<Box<dyn Future<Output = Result<String, Failure>> + Send>>;

/// One case: how the server is configured, how the client, and what they do.
pub(crate) struct Case<C> {
    pub(crate) name: &'static str,
    /// What it shows, for the legend of the table.
    pub(crate) about: &'static str,
    pub(crate) settings: Settings,
    pub(crate) options: Options,
    /// Answers with what is worth saying beside the result, or nothing.
    pub(crate) run: Run<C>,
    /// How often, each time with a client of its own.
    pub(crate) rounds: usize,
}

impl<C> Case<C> {
    fn new(name: &'static str, about: &'static str, run: Run<C>) -> Self {
        Self {
            name,
            about,
            settings: Settings::default(),
            options: Options::default(),
            run,
            rounds: 1,
        }
    }

    fn settings(mut self, settings: Settings) -> Self {
        self.options.h1_only = settings.h1_only;
        self.settings = settings;
        self
    }

    fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    fn tls(mut self, tls: TlsVersions) -> Self {
        self.options.tls = tls;
        self
    }

    /// Whether a server can do it.
    pub(crate) fn suits(&self, can: &Can) -> bool {
        can.be(&self.settings)
    }
}

/// All cases. Those with the same settings stand together: they share one start of the server.
pub(crate) fn cases<C: Client>() -> Vec<Case<C>> {
    let limited = |streams| Settings {
        streams: Some(streams),
        ..Settings::default()
    };
    let goaway = Settings {
        goaway_after: Some(20),
        ..Settings::default()
    };
    let idle = Settings {
        short_idle: true,
        ..Settings::default()
    };
    let h1 = Settings {
        h1_only: true,
        ..Settings::default()
    };
    let off = Settings {
        keep_alive_off: true,
        ..Settings::default()
    };
    let h1_off = Settings {
        keep_alive_off: true,
        ..h1
    };
    vec![
        Case::new("gets", "1,000 GETs at once", |c| Box::pin(bulk::gets(c))),
        Case::new("uploads", "100 uploads of 1 MB at once, byte-identical", |c| {
            Box::pin(bulk::uploads(c))
        }),
        Case::new(
            "downloads",
            "100 downloads of 1 MB at once, byte-identical, three times over fresh connections",
            |c| Box::pin(bulk::downloads(c)),
        )
        // The first burst meets a server whose limits and windows are not known yet.
        .rounds(3),
        Case::new(
            "default limit",
            "the server's own limit of streams, 200 requests at once",
            |c| Box::pin(bulk::limited(c)),
        ),
        Case::new("TLS 1.2", "a client that offers TLS 1.2 alone", |c| {
            Box::pin(bulk::mixed(c))
        })
        .tls(TlsVersions::Tls12),
        Case::new("TLS 1.3", "a client that offers TLS 1.3 alone", |c| {
            Box::pin(bulk::mixed(c))
        })
        .tls(TlsVersions::Tls13),
        Case::new(
            "restart",
            "reloaded or restarted twice under load: every GET answered, no POST twice",
            |c| Box::pin(churn::restart(c)),
        ),
        Case::new("limit 1", "one stream per connection", |c| {
            Box::pin(bulk::limited(c))
        })
        .settings(limited(1)),
        Case::new("limit 3", "three streams per connection", |c| {
            Box::pin(bulk::limited(c))
        })
        .settings(limited(3)),
        Case::new("limit 100", "a hundred streams per connection", |c| {
            Box::pin(bulk::limited(c))
        })
        .settings(limited(100)),
        Case::new(
            "GOAWAY",
            "GOAWAY after 20 requests on a connection, under load: none lost, no POST twice",
            |c| Box::pin(churn::goaway(c)),
        )
        .settings(goaway),
        Case::new(
            "idle",
            "the server closes idle connections, requests arrive just then",
            |c| Box::pin(churn::idle(c)),
        )
        .settings(idle),
        Case::new("keep-alive off", "one request per connection", |c| {
            Box::pin(bulk::mixed(c))
        })
        .settings(off),
        Case::new("HTTP/1.1", "a server that speaks nothing else", |c| {
            Box::pin(bulk::h1(c))
        })
        .settings(h1),
        Case::new("HTTP/1.1 closing", "the same, one request per connection", |c| {
            Box::pin(bulk::mixed(c))
        })
        .settings(h1_off),
    ]
}
