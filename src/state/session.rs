//! One session as the core sees it: its limit, its streams, its phase.
//!
//! ```text
//!            SETTINGS            GOAWAY, age, idle, retired, close
//!   fresh ───────────▶ ready ─────────────────────────────────────▶ draining ──▶ (removed)
//!     │                  ▲│ held: stalled, refused twice              in use > 0: told to retire
//!     └── empty bodies   └┘ suspect: an unanswered cancel             in use = 0: told to close
//!                                                                     drain deadline: killed
//! ```

use std::time::Instant;

use super::load::Link;
use super::waiters::{Fifo, RuntimeId, WaiterId};

/// A session, never confused with another that later uses the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// Where the session's data lies; small and reused.
    pub slot: u32,
    /// Tells the users of a slot apart.
    pub generation: u32,
}

/// What a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Many streams.
    H2,
    /// One exchange at a time.
    H1,
}

/// Whether a session takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Takes work.
    Active,
    /// Takes no more work; ends with its last stream.
    Draining,
}

/// Why a session stopped taking work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No stream for `idle_timeout`.
    Idle,
    /// Older than `max_age`.
    Age,
    /// Carried `max_streams_per_session`, or came near a lifetime cap of the protocol library.
    Worn,
    /// The server said GOAWAY.
    Goaway,
    /// A probe or a keep-alive PING was not answered.
    Unanswered,
    /// The connection ended or failed.
    Lost,
    /// Never became useful: no SETTINGS in time, or a limit that stayed at zero.
    Useless,
    /// The origin turned to another protocol.
    Protocol,
    /// The origin was forgotten to make room for another.
    Evicted,
    /// The pool was closed.
    Closed,
}

/// In which index a session with a slot to give is filed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It has room, and its SETTINGS are known.
    Ready = 0,
    /// It has room, before SETTINGS: for requests with an empty body only.
    Fresh = 1,
    /// A cancelled request was never answered: the last choice among those with room.
    Suspect = 2,
    /// The same before SETTINGS.
    SuspectFresh = 3,
    /// Full, but a slot is held only by readiness.
    Yielding = 4,
    /// The same before SETTINGS.
    YieldingFresh = 5,
}

impl Class {
    /// How many there are.
    pub(super) const COUNT: usize = 6;

    /// Those with room, in the order in which they are tried.
    pub(super) const SOUND: [Self; 2] = [Self::Ready, Self::Fresh];

    /// Those with room that are tried when no other has any (P19).
    pub(super) const SUSPECT: [Self; 2] = [Self::Suspect, Self::SuspectFresh];

    /// Those that give a slot when no session has room.
    pub(super) const YIELDING: [Self; 2] = [Self::Yielding, Self::YieldingFresh];

    /// Whether a request with, or without, an empty body may go there.
    pub(super) fn takes(self, empty: bool) -> bool {
        empty || matches!(self, Self::Ready | Self::Suspect | Self::Yielding)
    }
}

/// The book-keeping of one session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) generation: u32,
    /// The slot of its group.
    pub(super) group: usize,
    /// The runtime that drives it.
    pub(super) runtime: RuntimeId,
    pub(super) protocol: Protocol,
    pub(super) phase: Phase,
    /// Why it drains.
    pub(super) reason: Option<Reason>,
    /// min(cap, what the server allows).
    pub(super) limit: u32,
    /// Slots given out: firm leases, soft holds and parked slots.
    pub(super) in_use: u32,
    /// The waiters that hold some of those by readiness alone, oldest first.
    pub(super) holders: Fifo,
    /// Of those, the ones of cancelled requests that wait for a sign of life.
    pub(super) parked: u32,
    /// The one caller that it is for (P23), who waits for its SETTINGS.
    pub(super) own: Option<WaiterId>,
    /// SETTINGS have been read.
    pub(super) ready: bool,
    /// Its server has allowed streams.
    pub(super) allowed: bool,
    /// A response has come.
    pub(super) served: bool,
    /// It counted as a failed dial already, or how it ends says nothing about the server.
    pub(super) judged: bool,
    /// A replacement is being opened; it still takes work.
    pub(super) retiring: Option<Reason>,
    /// Unread bodies hold its window.
    pub(super) stalled: bool,
    /// It was told to close or to die already.
    pub(super) told: bool,
    /// It was told to die.
    pub(super) killed: bool,
    /// Streams granted in its life.
    pub(super) streams: u64,
    pub(super) refusals: u32,
    pub(super) opened_at: Instant,
    /// Since when no stream has run: a lease may be out, but has carried none so far. `None`: not known, or one runs.
    pub(super) unused_since: Option<Instant>,
    /// No work before this: it refused twice.
    pub(super) held_until: Option<Instant>,
    /// SETTINGS, or a limit above zero, must be here by then.
    pub(super) useful_by: Option<Instant>,
    /// The probe must be answered by then.
    pub(super) probe_by: Option<Instant>,
    /// Rotation.
    pub(super) expires_at: Option<Instant>,
    /// When it began to drain; `None` for one that serves one caller only.
    pub(super) drains_since: Option<Instant>,
    /// Draining ends by then.
    pub(super) drain_by: Option<Instant>,
    /// Its place in its group's index, with the index it is in.
    pub(super) link: Option<Link>,
    pub(super) class: Option<Class>,
}

impl Session {
    /// Where it is to be filed now; `None` while it has nothing to give.
    pub(super) fn wanted_class(&self) -> Option<Class> {
        if !self.takes_work() {
            return None;
        }
        let suspect = self.probe_by.is_some();
        let class = match (self.in_use < self.limit, suspect, self.ready) {
            (true, false, true) => Class::Ready,
            (true, false, false) => Class::Fresh,
            (true, true, true) => Class::Suspect,
            (true, true, false) => Class::SuspectFresh,
            (false, _, _) if self.holders.is_empty() => return None,
            (false, _, true) => Class::Yielding,
            (false, _, false) => Class::YieldingFresh,
        };
        Some(class)
    }

    /// Whether nothing but its limit keeps it from new work.
    pub(super) fn takes_work(&self) -> bool {
        self.phase == Phase::Active && !self.stalled && self.held_until.is_none()
    }

    /// When its age has come: not before its SETTINGS, until which it has the time limit of a dial.
    pub(super) fn due_to_expire(&self) -> Option<Instant> {
        self.expires_at.filter(|_| self.ready)
    }

    /// Whether it takes work and its SETTINGS are still to come.
    pub(super) fn is_fresh(&self) -> bool {
        self.takes_work() && self.retiring.is_none() && !self.ready
    }

    /// Whether it takes no more work, for as long as its streams take.
    pub(super) fn drains_for_ever(&self) -> bool {
        self.drains_since.is_some() && self.drain_by.is_none()
    }

    /// Slots held by readiness alone.
    pub(super) fn soft(&self) -> u32 {
        self.holders.len()
    }

    /// Streams that somebody really uses.
    pub(super) fn firm(&self) -> u32 {
        self.in_use - self.soft() - self.parked
    }

    /// Since when it has been idle: no firm lease is out.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.unused_since.filter(|_| self.firm() == 0)
    }

    /// Whether it may serve somebody, now or as soon as a stream ends.
    pub(super) fn can_serve(&self) -> bool {
        self.phase == Phase::Active && self.limit > 0
    }
}

/// What the outside may know of a session.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Its id.
    pub id: SessionId,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whether it takes work.
    pub phase: Phase,
    /// Slots in use.
    pub in_use: u32,
    /// Its limit.
    pub limit: u32,
    /// Streams granted in its life.
    pub streams: u64,
    /// When it was opened.
    pub opened_at: Instant,
    /// Since when it is idle.
    pub idle_since: Option<Instant>,
}
