//! The reference: who is to be served, from plain vectors, by looking at everybody each time.
//!
//! It keeps its own queue and its own count of slots. What becomes of sessions (opened, draining, gone) it is told;
//! which of them serves whom it knows better, and says so. The rules, in one place:
//!
//! * The oldest goes first: those who return before newcomers, then first come first served.
//! * A private session serves the oldest of its runtime, a shared one the oldest of all.
//! * A session gives a slot when it has room, a suspect one if no other has, and if none has any, one that is held only by
//!   readiness.
//! * Among those, own sessions come first, then ready before fresh, then the least busy, or the busiest for `Pack`.

use std::sync::Arc;
use std::time::Instant;

use super::super::{Caller, Limits, Phase, Protocol, RuntimeId, SessionId, WaiterId};

type Key = Option<RuntimeId>;

#[derive(Clone, Debug)]
struct Waiting {
    /// `None` for a caller that is answered at once.
    id: Option<WaiterId>,
    group: Key,
    empty: bool,
    soft: bool,
    /// Newcomers (true) after those who return (false), then by arrival.
    place: (bool, usize),
}

#[derive(Clone, Debug)]
struct Slots {
    id: SessionId,
    group: Key,
    h1: bool,
    limit: u32,
    ready: bool,
    active: bool,
    in_use: u32,
    holders: Vec<WaiterId>,
    parked: u32,
    suspect: bool,
    stalled: bool,
    refusals: u32,
    held_until: Option<Instant>,
    /// When a stream ended last.
    last_stream: Option<Instant>,
}

/// What the simulation tells the model of a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) id: SessionId,
    pub(super) group: Key,
    pub(super) protocol: Protocol,
    pub(super) limit: u32,
    pub(super) ready: bool,
    pub(super) phase: Phase,
    pub(super) in_use: u32,
}

/// The model.
#[derive(Debug)]
pub(super) struct Model {
    limits: Arc<Limits>,
    queue: Vec<Waiting>,
    sessions: Vec<Slots>,
    arrivals: usize,
}

impl Model {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self {
            limits,
            queue: Vec::new(),
            sessions: Vec::new(),
            arrivals: 0,
        }
    }

    /// Somebody came, and holds a slot softly or waits.
    pub(super) fn entered(&mut self, id: WaiterId, caller: Caller, first: bool, held: Option<SessionId>) {
        self.push(Some(id), caller, first);
        if let Some(session) = held {
            self.grant(Some(id), session);
        }
    }

    /// Somebody came and got a slot at once.
    pub(super) fn granted_at_once(&mut self, caller: Caller, first: bool, session: SessionId) {
        self.push(None, caller, first);
        self.grant(None, session);
    }

    /// Somebody was turned away; `others` wait in no queue and count.
    pub(super) fn refused(&mut self, caller: Caller, first: bool, others: u32) {
        let waiting = u32::try_from(self.queue.len()).expect("few") + others;
        let full = self.limits.max_waiters.is_some_and(|max| waiting >= max);
        assert!(full && !first && !caller.soft, "the queue is not full: {self:#?}");
        self.push(None, caller, first);
        let last = self.queue.len() - 1;
        assert_eq!(self.choices(last), [], "there was a slot for it: {self:#?}");
        self.queue.pop();
    }

    /// The fast path declined: what it could take was not there.
    pub(super) fn declined(&mut self, caller: Caller) {
        self.push(None, caller, false);
        let last = self.queue.len() - 1;
        let there = self.choices_among(last, &[Slots::is_sound, Slots::has_room]);
        assert_eq!(there, [], "the fast path found nothing: {self:#?}");
        self.queue.pop();
    }

    /// Somebody left; `returned` is where it had a slot.
    pub(super) fn left(&mut self, id: WaiterId, returned: Option<SessionId>) {
        self.queue.retain(|waiting| waiting.id != Some(id));
        if let Some(session) = returned.and_then(|id| self.session(id)) {
            session.holders.retain(|holder| *holder != id);
            session.in_use -= 1;
        }
    }

    /// A soft slot became a lease.
    pub(super) fn firmed_up(&mut self, id: WaiterId) {
        for session in &mut self.sessions {
            session.holders.retain(|holder| *holder != id);
        }
    }

    pub(super) fn moved(&mut self, id: WaiterId, there: Caller) {
        if let Some(waiting) = self.queue.iter_mut().find(|waiting| waiting.id == Some(id)) {
            waiting.group = key(there);
        }
    }

    /// A slot was given back.
    pub(super) fn returned(&mut self, id: SessionId) {
        if let Some(session) = self.session(id) {
            session.in_use -= 1;
        }
    }

    /// A stream ended.
    pub(super) fn stream_over(&mut self, id: SessionId, now: Instant) {
        if let Some(session) = self.session(id) {
            session.last_stream = Some(now);
        }
    }

    /// It may be closed for being idle: its last stream is over for the whole timeout (P16).
    pub(super) fn is_idle_long_enough(&self, id: SessionId, now: Instant) -> bool {
        let session = self.sessions.iter().find(|session| session.id == id);
        let since = session.and_then(|session| session.last_stream);
        match (since, self.limits.idle_timeout) {
            (Some(since), Some(timeout)) => since + timeout <= now,
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }

    pub(super) fn parked(&mut self, id: SessionId) {
        match self.session(id) {
            Some(session) if session.active => {
                session.parked += 1;
                session.suspect = true;
            }
            Some(session) => session.in_use -= 1,
            None => {}
        }
    }

    pub(super) fn settings(&mut self, id: SessionId, limit: u32) {
        let cap = self.limits.streams_per_session;
        if let Some(session) = self.session(id) {
            session.limit = limit.min(cap);
            session.ready = true;
        }
    }

    pub(super) fn answered(&mut self, id: SessionId) {
        if let Some(session) = self.session(id) {
            session.refusals = 0;
        }
    }

    pub(super) fn refused_stream(&mut self, id: SessionId, now: Instant) {
        let until = now + self.limits.refusal_pause;
        if let Some(session) = self.session(id) {
            session.refusals += 1;
            if session.refusals >= 2 {
                session.held_until = Some(until);
            }
        }
    }

    pub(super) fn alive(&mut self, id: SessionId) {
        if let Some(session) = self.session(id) {
            session.in_use -= std::mem::take(&mut session.parked);
            session.suspect = false;
        }
    }

    pub(super) fn stalled(&mut self, id: SessionId, stalled: bool) {
        if let Some(session) = self.session(id) {
            session.stalled = stalled;
        }
    }

    /// The timer fired.
    pub(super) fn timeout(&mut self, now: Instant) {
        for session in &mut self.sessions {
            if session.held_until.is_some_and(|until| until <= now) {
                session.held_until = None;
                session.refusals = 0;
            }
        }
    }

    pub(super) fn is_h1(&self, id: SessionId) -> bool {
        self.sessions.iter().any(|session| session.id == id && session.h1)
    }

    /// No caller uses or parks a slot there.
    pub(super) fn is_unused(&self, id: SessionId) -> bool {
        let session = self.sessions.iter().find(|session| session.id == id);
        session.is_none_or(|session| session.in_use as usize == session.holders.len())
    }

    /// Takes over which sessions there are, and takes back what they can no longer give.
    pub(super) fn sync(&mut self, seen: &[Seen]) {
        self.sessions
            .retain(|session| seen.iter().any(|seen| seen.id == session.id));
        for seen in seen {
            let active = seen.phase == Phase::Active;
            match self.session(seen.id) {
                Some(session) if session.active && !active => {
                    session.active = false;
                    session.in_use -= std::mem::take(&mut session.parked);
                    session.suspect = false;
                }
                // Its caller's own, who waited for SETTINGS.
                Some(session) if !active && session.in_use == 0 => session.in_use = seen.in_use,
                Some(_) => {}
                None => self.sessions.push(Slots::new(*seen)),
            }
        }
        for session in &mut self.sessions {
            while !session.holders.is_empty() && (!session.takes_work() || session.in_use > session.limit) {
                session.holders.remove(0);
                session.in_use -= 1;
            }
        }
    }

    /// The state gave a slot to one who waited.
    pub(super) fn granted(&mut self, id: WaiterId, session: SessionId) {
        if self.queue.iter().any(|waiting| waiting.id == Some(id)) {
            self.grant(Some(id), session);
        }
    }

    /// The state failed one who waited.
    pub(super) fn failed(&mut self, id: WaiterId) {
        if let Some(place) = self.queue.iter().position(|waiting| waiting.id == Some(id)) {
            assert!(self.is_first(place, false), "the oldest fail first: {self:#?}");
            self.queue.remove(place);
        }
    }

    /// Nobody waits whom a session could serve.
    pub(super) fn check_service(&self) {
        for place in 0..self.queue.len() {
            let choices = self.choices(place);
            assert_eq!(
                choices,
                [],
                "{:?} waits for what is free: {self:#?}",
                self.queue[place]
            );
        }
    }

    /// Who holds slots of a session, and how many are in use.
    pub(super) fn slots(&self, id: SessionId) -> Option<(u32, &[WaiterId])> {
        let session = self.sessions.iter().find(|session| session.id == id)?;
        Some((session.in_use, &session.holders))
    }

    /// How many wait in a group.
    pub(super) fn waiting(&self, group: Key) -> usize {
        self.queue.iter().filter(|waiting| waiting.group == group).count()
    }

    fn push(&mut self, id: Option<WaiterId>, caller: Caller, first: bool) {
        self.arrivals += 1;
        self.queue.push(Waiting {
            id,
            group: key(caller),
            empty: caller.empty,
            soft: caller.soft,
            place: (!first, self.arrivals),
        });
    }

    fn grant(&mut self, id: Option<WaiterId>, session: SessionId) {
        let place = self
            .queue
            .iter()
            .position(|waiting| waiting.id == id)
            .expect("it waits");
        let choices = self.choices(place);
        assert!(
            choices.contains(&session),
            "{:?} got {session:?}, not one of {choices:?}: {self:#?}",
            self.queue[place]
        );
        let waiting = self.queue.remove(place);
        if let Some(session) = self.session(session) {
            if session.in_use >= session.limit && !session.holders.is_empty() {
                session.holders.remove(0);
                session.in_use -= 1;
            }
            session.in_use += 1;
            session.holders.extend(id.filter(|_| waiting.soft));
        }
    }

    /// The sessions any of which may serve this waiter now: none, or the best ones.
    fn choices(&self, place: usize) -> Vec<SessionId> {
        self.choices_among(place, &[Slots::is_sound, Slots::has_room, Slots::yields])
    }

    /// The same among sessions of these kinds, in order.
    fn choices_among(&self, place: usize, kinds: &[fn(&Slots) -> bool]) -> Vec<SessionId> {
        let waiting = &self.queue[place];
        let own = waiting.group.is_some() && self.is_first(place, false);
        let shared = self.is_first(place, true);
        let (own, shared) = (own.then_some(waiting.group), shared.then_some(None));
        for kind in kinds {
            for group in [own, shared].into_iter().flatten() {
                let gives = |session: &&Slots| {
                    session.group == group && session.gives(waiting.empty) && kind(session)
                };
                let found: Vec<&Slots> = self.sessions.iter().filter(gives).collect();
                let rank = |session: &&Slots| (!session.ready, self.load(session));
                if let Some(best) = found.iter().map(rank).min() {
                    let best = found.iter().filter(|session| rank(session) == best);
                    return best.map(|session| session.id).collect();
                }
            }
        }
        Vec::new()
    }

    fn load(&self, session: &Slots) -> i64 {
        let load = i64::from(session.in_use);
        if self.limits.pack { -load } else { load }
    }

    /// Whether nobody in its group, or nobody at all, was there before.
    fn is_first(&self, place: usize, of_all: bool) -> bool {
        let waiting = &self.queue[place];
        self.queue
            .iter()
            .filter(|other| of_all || other.group == waiting.group)
            .all(|other| other.place >= waiting.place)
    }

    fn session(&mut self, id: SessionId) -> Option<&mut Slots> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }
}

impl Slots {
    fn new(seen: Seen) -> Self {
        Self {
            id: seen.id,
            group: seen.group,
            h1: seen.protocol == Protocol::H1,
            limit: seen.limit,
            ready: seen.ready,
            active: seen.phase == Phase::Active,
            // One that drains from the start is its caller's own.
            in_use: if seen.phase == Phase::Active {
                0
            } else {
                seen.in_use
            },
            holders: Vec::new(),
            parked: 0,
            suspect: false,
            stalled: false,
            refusals: 0,
            held_until: None,
            last_stream: None,
        }
    }

    fn takes_work(&self) -> bool {
        self.active && !self.stalled && self.held_until.is_none()
    }

    fn gives(&self, empty: bool) -> bool {
        self.takes_work() && (self.ready || empty)
    }

    fn has_room(&self) -> bool {
        self.in_use < self.limit
    }

    fn is_sound(&self) -> bool {
        self.has_room() && !self.suspect
    }

    fn yields(&self) -> bool {
        self.in_use == self.limit && !self.holders.is_empty()
    }
}

fn key(caller: Caller) -> Key {
    caller.private.then_some(caller.runtime)
}
