//! What a case asks of a server, and what a server can be asked.

use std::path::Path;
use std::time::Duration;

use crate::Failure;
use crate::process::Program;
use crate::site::Site;

/// How a server is configured for a case. The default is the server's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Settings {
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`.
    pub(crate) streams: Option<u32>,
    /// GOAWAY after so many requests on a connection.
    pub(crate) goaway_after: Option<u32>,
    /// A connection on which nothing happens is closed after the time in [`Can::idle`].
    pub(crate) short_idle: bool,
    /// Nothing but HTTP/1.1.
    pub(crate) h1_only: bool,
    /// One request per connection.
    pub(crate) keep_alive_off: bool,
}

/// What a server can do of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Can {
    /// Takes any limit of streams.
    pub(crate) streams: bool,
    /// Takes a number of requests after which it says GOAWAY.
    pub(crate) goaway_after: bool,
    /// A short time after which it closes idle connections.
    pub(crate) idle: Option<Duration>,
    /// Can be told to speak nothing but HTTP/1.1.
    pub(crate) h1_only: bool,
    /// Can close after each request: over HTTP/2, over HTTP/1.1.
    pub(crate) keep_alive_off: (bool, bool),
    /// Compares uploads and holds requests; else it echoes what it is sent.
    pub(crate) application: bool,
    /// Goes on reading where more streams than its limit were opened ahead of its SETTINGS.
    pub(crate) early: bool,
    /// Goes on with its answers by itself; else now and then only when a frame comes, such as a PING.
    pub(crate) goes_on: bool,
    /// Takes uploads whose length is not known at first.
    pub(crate) pieces: bool,
    /// How it is asked to start afresh while requests come in.
    pub(crate) renew: Renew,
}

impl Can {
    /// Everything there is, by a signal that reloads.
    pub(crate) const ALL: Self = Self {
        streams: true,
        goaway_after: true,
        idle: Some(Duration::from_millis(200)),
        h1_only: true,
        keep_alive_off: (true, true),
        application: true,
        early: true,
        goes_on: true,
        pieces: true,
        renew: Renew::Signal("HUP"),
    };

    /// Whether the server can be configured so.
    pub(crate) fn be(&self, settings: &Settings) -> bool {
        let keep_alive_off = if settings.h1_only {
            self.keep_alive_off.1
        } else {
            self.keep_alive_off.0
        };
        (settings.streams.is_none() || self.streams)
            && (settings.goaway_after.is_none() || self.goaway_after)
            && (!settings.short_idle || self.idle.is_some())
            && (!settings.h1_only || self.h1_only)
            && (!settings.keep_alive_off || keep_alive_off)
    }
}

/// How a server is made to start afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renew {
    /// A signal to the first program: it reloads and goes on listening.
    Signal(&'static str),
    /// A signal on which the first program ends; then it is started again.
    Restart(&'static str),
}

/// Where one start of a server happens.
pub(crate) struct Place<'a> {
    pub(crate) site: &'a Site,
    pub(crate) dir: &'a Path,
    /// Where it listens for TLS.
    pub(crate) port: u16,
    /// For its own use: between its parts, or for its administration.
    pub(crate) inner_port: u16,
    /// Where the back end listens.
    pub(crate) back_end: u16,
}

impl Place<'_> {
    /// A path in the directory of this start.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Writes a configuration file; its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<String, Failure> {
        std::fs::write(self.dir.join(name), text)?;
        Ok(self.path(name))
    }
}

/// One kind of server.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    pub(crate) can: Can,
    /// What it does that others do not.
    pub(crate) peculiar: &'static str,
    /// The commands that tell its version.
    pub(crate) version: &'static [&'static str],
    /// The log in which it counts what it processes: the file, and what stands before the id. Without one, the back end
    /// counts.
    pub(crate) counts: Option<(&'static str, &'static str)>,
    /// Writes the configuration; what to run, in this order.
    pub(crate) programs: fn(&Place<'_>, &Settings) -> Result<Vec<Program>, Failure>,
}
