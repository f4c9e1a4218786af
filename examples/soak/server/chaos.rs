//! What goes wrong on a connection, and when.

use std::io;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;

use crate::clock::Instant;
use crate::support::peer::code;

use super::connection::{Connection, Leaving};

/// The plans of one connection.
pub(super) struct Mischief {
    next: Instant,
    raise: Option<Instant>,
    refusing: Option<Instant>,
    silent: Option<Instant>,
    /// GOAWAY at this time; until then nothing more is decided, so that it has streams to exclude.
    abrupt: Option<Instant>,
}

impl Mischief {
    pub(super) fn new(now: Instant, rng: &mut SmallRng) -> Self {
        Self {
            next: now + pause(rng),
            raise: None,
            refusing: None,
            silent: None,
            abrupt: None,
        }
    }

    /// Behaves from now on.
    pub(super) fn stop(&mut self) {
        self.raise = None;
        self.refusing = None;
        self.silent = None;
        self.abrupt = None;
    }

    /// Until when the connection neither reads nor writes, if it does not.
    pub(super) fn silent_until(&self, now: Instant) -> Option<Instant> {
        self.silent.filter(|until| *until > now)
    }

    /// Whether streams are to be decided at all.
    pub(super) fn decides(&self) -> bool {
        self.abrupt.is_none()
    }

    pub(super) fn refuses(&self, now: Instant, rng: &mut SmallRng) -> bool {
        self.refusing.is_some_and(|until| until > now) || rng.random_bool(0.02)
    }

    /// When something is planned next.
    pub(super) fn due(&self) -> Instant {
        let planned = [self.raise, self.abrupt].into_iter().flatten();
        planned.fold(self.next, Instant::min)
    }
}

fn pause(rng: &mut SmallRng) -> Duration {
    Duration::from_millis(rng.random_range(10..250))
}

impl Connection {
    /// Does what is planned for now. `Err` cuts the connection.
    pub(super) fn misbehave(&mut self, now: Instant) -> io::Result<()> {
        if self.mischief.raise.is_some_and(|at| at <= now) {
            self.mischief.raise = None;
            let limit = self.rng.random_range(1..200);
            self.set_limit(limit);
        }
        if self.mischief.abrupt.is_some_and(|at| at <= now) {
            self.mischief.abrupt = None;
            self.leave_at_once(now);
        }
        if self.mischief.next > now {
            return Ok(());
        }
        self.mischief.next = now + pause(&mut self.rng);
        let going = self.leaving != Leaving::No || self.mischief.abrupt.is_some();
        match self.rng.random_range(0..100) {
            0..35 => {
                self.world.count("server: limits changed");
                let limit = self.random_limit();
                self.set_limit(limit);
            }
            35..45 => {
                self.world.count("server: times of refusal");
                let until = now + Duration::from_millis(self.rng.random_range(5..60));
                self.mischief.refusing = Some(until);
            }
            45..52 if !going => {
                self.world.count("server: GOAWAY, graceful");
                let after = Duration::from_millis(self.rng.random_range(1..80));
                self.leave(after);
            }
            52..58 if !going => {
                let after = Duration::from_millis(self.rng.random_range(5..60));
                self.mischief.abrupt = Some(now + after);
            }
            58..63 => {
                self.world.count("server: sockets cut");
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            63..70 => {
                self.world.count("server: silences");
                let longest = if self.rng.random_bool(0.2) { 4_000 } else { 400 };
                let until = now + Duration::from_millis(self.rng.random_range(20..longest));
                self.mischief.silent = Some(until);
            }
            _ => {}
        }
        Ok(())
    }

    /// One of the limits that servers have; zero only for a moment.
    pub(super) fn random_limit(&mut self) -> u32 {
        let limits = [0, 1, 2, 5, 10, 20, 50, 100, 200];
        let limit = limits[self.rng.random_range(0..limits.len())];
        if limit == 0 {
            let moment = Duration::from_millis(self.rng.random_range(5..200));
            self.mischief.raise = Some(crate::clock::now() + moment);
        }
        limit
    }

    /// GOAWAY that excludes some or all streams that were not processed. Then the others are served, or the connection
    /// is cut.
    fn leave_at_once(&mut self, now: Instant) {
        self.world.count("server: GOAWAY, abrupt");
        let last = self.rng.random_range(self.processed..=self.highest);
        let excluded = self.streams.split_off(&(last + 1));
        let excluded = u64::try_from(excluded.len()).unwrap_or(u64::MAX);
        self.world
            .count_many("server: streams excluded by GOAWAY", excluded);
        let codes = [code::NO_ERROR, code::INTERNAL_ERROR, code::ENHANCE_YOUR_CALM];
        let code = codes[self.rng.random_range(0..codes.len())];
        self.goaway(last, code);
        let cut = self.rng.random_bool(0.4).then_some(now);
        self.leaving = Leaving::Final(cut);
    }
}
