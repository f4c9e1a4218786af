//! One session as it is shown to the outside.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::state::{Phase, Protocol};

/// One session at one moment.
///
/// With the feature `serde` it can be written; durations as `"1s 500ms"`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SessionInfo {
    /// Tells the sessions of the process apart, in logs and response extensions too; 0 for a dial.
    pub id: u64,
    /// Where it leads, as `scheme://host:port`.
    pub origin: String,
    /// What it speaks; `None` while that is not settled.
    pub protocol: Option<SessionProtocol>,
    /// What it is doing.
    pub state: SessionState,
    /// Slots in use.
    pub streams: usize,
    /// Slots there are: the smaller of `streams_per_session` and what the server allows; 1 over HTTP/1.1.
    pub limit: usize,
    /// Slots given out since it was opened.
    pub streams_served: u64,
    /// Time since it was opened, or since the dial began.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub age: Duration,
    /// Time since its last stream ended, if it has none now.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub idle: Option<Duration>,
    /// The address that it is connected to, where the connector named it.
    pub peer_addr: Option<SocketAddr>,
}

/// What a session speaks. Shown as `h2` or `h1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum SessionProtocol {
    /// HTTP/2 (RFC 9113).
    H2,
    /// HTTP/1.1 (RFC 9112).
    H1,
}

/// What a session is doing. Shown as `dialing`, `active` or `draining`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum SessionState {
    /// Its connection is being opened.
    Dialing,
    /// It takes work.
    Active,
    /// It takes no more work and ends with its last stream; or it does so as soon as its replacement is open.
    Draining,
}

impl SessionProtocol {
    pub(super) const ALL: [Self; 2] = [Self::H2, Self::H1];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::H1 => "h1",
        }
    }
}

impl SessionState {
    pub(super) const ALL: [Self; 3] = [Self::Dialing, Self::Active, Self::Draining];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dialing => "dialing",
            Self::Active => "active",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for SessionProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<Protocol> for SessionProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::H2 => Self::H2,
            Protocol::H1 => Self::H1,
        }
    }
}

impl From<Phase> for SessionState {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Active => Self::Active,
            Phase::Draining => Self::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_filters_and_logs() {
        // P40
        assert_eq!(
            SessionProtocol::ALL.map(|protocol| protocol.to_string()),
            ["h2", "h1"]
        );
        assert_eq!(
            SessionState::ALL.map(|state| state.to_string()),
            ["dialing", "active", "draining"]
        );
        assert_eq!(
            format!("{:>8}|{:<9}|", SessionState::Active, SessionProtocol::H2),
            "  active|h2       |"
        );
        let shown = [Phase::Active, Phase::Draining].map(SessionState::from);
        assert_eq!(shown, [SessionState::Active, SessionState::Draining]);
        let shown = [Protocol::H2, Protocol::H1].map(SessionProtocol::from);
        assert_eq!(shown, SessionProtocol::ALL);
    }
}
