//! Choosing among sessions: `protocol=h2,state=draining`.

use std::str::FromStr;

use super::{SessionInfo, SessionProtocol, SessionState};
use crate::error::Error;
use crate::origin::Origin;

/// Which sessions to show. Read from text; the default shows all.
///
/// The text is a list of conditions with commas between them, without spaces; a session must meet all of them:
///
/// | condition | sessions |
/// | --- | --- |
/// | `protocol=h2`, `protocol=h1` | that speak it |
/// | `state=dialing`, `state=active`, `state=draining` | that are doing it |
/// | `origin=https://example.com` | that lead there (any spelling of the origin) |
/// | `idle` | without a stream |
/// | `full` | active, with all slots in use |
///
/// Anything else is refused, each condition may be given once, and a text without a condition is refused too.
///
/// ```
/// use h2pool::SessionFilter;
///
/// let draining: SessionFilter = "protocol=h2,state=draining".parse()?;
/// # fn show(sessions: &[h2pool::SessionInfo], filter: &SessionFilter) -> usize {
/// sessions.iter().filter(|session| filter.matches(session)).count()
/// # }
/// # assert_eq!(show(&[], &draining), 0);
/// # Ok::<(), h2pool::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    protocol: Option<SessionProtocol>,
    state: Option<SessionState>,
    origin: Option<String>,
    idle: bool,
    full: bool,
}

const ALLOWED: &str = "protocol=h2|h1, state=dialing|active|draining, origin=URL, idle, full";

impl SessionFilter {
    /// Whether the session meets every condition.
    #[must_use]
    pub fn matches(&self, session: &SessionInfo) -> bool {
        self.protocol
            .is_none_or(|protocol| session.protocol == Some(protocol))
            && self.state.is_none_or(|state| session.state == state)
            && self
                .origin
                .as_ref()
                .is_none_or(|origin| session.origin == *origin)
            && (!self.idle || session.idle.is_some())
            && (!self.full || (session.state == SessionState::Active && session.streams >= session.limit))
    }

    fn add(&mut self, condition: &str) -> Result<(), Error> {
        match condition.split_once('=') {
            Some(("protocol", name)) => {
                let protocol = SessionProtocol::ALL
                    .into_iter()
                    .find(|protocol| protocol.as_str() == name);
                put(
                    &mut self.protocol,
                    "protocol",
                    protocol.ok_or_else(|| no_value("protocol", name))?,
                )
            }
            Some(("state", name)) => {
                let state = SessionState::ALL.into_iter().find(|state| state.as_str() == name);
                put(
                    &mut self.state,
                    "state",
                    state.ok_or_else(|| no_value("state", name))?,
                )
            }
            Some(("origin", url)) => {
                let origin = url
                    .parse::<Origin>()
                    .map_err(|cause| no_value("origin", url).with_source(cause))?;
                put(&mut self.origin, "origin", origin.to_string())
            }
            None if condition == "idle" => set(&mut self.idle, "idle"),
            None if condition == "full" => set(&mut self.full, "full"),
            Some((key @ ("idle" | "full"), _)) => Err(refuse(format_args!("`{key}` takes no value"))),
            None if ["protocol", "state", "origin"].contains(&condition) => {
                Err(refuse(format_args!("`{condition}` needs a value")))
            }
            None if condition.is_empty() => Err(refuse("there is an empty condition")),
            _ => {
                let key = condition.split('=').next().unwrap_or_default();
                Err(refuse(format_args!("there is no `{key}`")))
            }
        }
    }
}

impl FromStr for SessionFilter {
    type Err = Error;

    /// # Errors
    /// `is_config()`; the text names the condition and what is allowed.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut filter = Self::default();
        text.split(',').try_for_each(|condition| filter.add(condition))?;
        Ok(filter)
    }
}

fn put<T>(place: &mut Option<T>, key: &str, value: T) -> Result<(), Error> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice(key)),
    }
}

fn set(place: &mut bool, key: &str) -> Result<(), Error> {
    if std::mem::replace(place, true) {
        Err(twice(key))
    } else {
        Ok(())
    }
}

fn twice(key: &str) -> Error {
    refuse(format_args!("`{key}` is given twice"))
}

fn no_value(key: &str, value: &str) -> Error {
    refuse(format_args!("`{key}` cannot be `{value}`"))
}

fn refuse(what: impl std::fmt::Display) -> Error {
    Error::config(format!("in the session filter, {what}; allowed: {ALLOWED}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn session(protocol: SessionProtocol, state: SessionState, streams: usize) -> SessionInfo {
        SessionInfo {
            id: 1,
            origin: "https://example.com:443".to_owned(),
            protocol: Some(protocol),
            state,
            streams,
            limit: 2,
            streams_served: 7,
            age: Duration::from_secs(3),
            idle: (streams == 0).then_some(Duration::from_secs(1)),
            peer_addr: None,
        }
    }

    fn matches(filter: &str, session: &SessionInfo) -> bool {
        filter.parse::<SessionFilter>().unwrap().matches(session)
    }

    #[test]
    fn every_condition_must_hold() {
        // P40
        let busy = session(SessionProtocol::H2, SessionState::Draining, 2);
        for filter in [
            "protocol=h2",
            "state=draining",
            "protocol=h2,state=draining",
            "state=draining,origin=HTTPS://Example.com",
        ] {
            assert!(matches(filter, &busy), "{filter}");
        }
        for filter in [
            "protocol=h1",
            "state=active",
            "protocol=h1,state=draining",
            "protocol=h2,state=dialing",
            "idle",
            "full",
            "origin=http://example.com",
        ] {
            assert!(!matches(filter, &busy), "{filter}");
        }
        assert!(SessionFilter::default().matches(&busy));
    }

    #[test]
    fn idle_and_full_look_at_the_streams() {
        // P40
        let with = |streams| session(SessionProtocol::H1, SessionState::Active, streams);
        assert!(matches("idle", &with(0)) && !matches("full", &with(0)));
        assert!(!matches("idle", &with(1)) && !matches("full", &with(1)));
        assert!(!matches("idle", &with(2)) && matches("full", &with(2)));
        // A dial has neither streams nor a protocol.
        let dial = SessionInfo {
            protocol: None,
            limit: 0,
            idle: None,
            ..session(SessionProtocol::H2, SessionState::Dialing, 0)
        };
        assert!(matches("state=dialing", &dial));
        assert!(!matches("protocol=h2", &dial) && !matches("idle", &dial) && !matches("full", &dial));
    }

    #[test]
    #[cfg(feature = "serde")]
    fn a_session_is_written_in_the_words_of_the_filter() {
        // P40
        let mut session = session(SessionProtocol::H2, SessionState::Active, 0);
        session.peer_addr = Some(([127, 0, 0, 1], 443).into());
        let expected = serde_json::json!({
            "id": 1, "origin": "https://example.com:443", "protocol": "h2", "state": "active", "streams": 0,
            "limit": 2, "streams_served": 7, "age": "3s", "idle": "1s", "peer_addr": "127.0.0.1:443",
        });
        assert_eq!(serde_json::to_value(&session).unwrap(), expected);
    }
}
