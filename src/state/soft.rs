//! Slots held by readiness (P29).
//!
//! A service that says that it is ready holds a slot, but softly: it counts against the limit of its session, so that
//! readiness is real, and yet it is taken back as soon as somebody waits and nothing else is free, or when the session
//! takes no more work. The waiter then stays ready; its call finds the slot gone and acquires again, before newcomers.
//! Each session keeps the list of its holders, so that taking one back, or all, looks at nobody else.

use super::session::Class;
use super::waiters::Status;
use super::{OriginState, SessionId, WaiterId};

impl<C: Clone> OriginState<C> {
    /// Turns a soft slot into a lease; `None` when it was taken back, or is one that new work is to avoid (P19). Either
    /// way the waiter is gone.
    pub fn firm_up(&mut self, id: WaiterId) -> Option<SessionId> {
        let waiter = self.waiters.get(id)?;
        let empty = waiter.empty;
        match waiter.status {
            Status::Held(session) => {
                let slot = self.let_go(id, session)?;
                if self.is_avoided(slot, empty) {
                    self.sessions[slot].in_use -= 1;
                    self.refile(slot);
                    return None;
                }
                Some(self.count_stream(slot))
            }
            Status::Revoked(_) => {
                self.waiters.remove(id);
                None
            }
            _ => None,
        }
    }

    /// Whether the session has still to answer, and another one has room.
    fn is_avoided(&self, slot: usize, empty: bool) -> bool {
        let session = &self.sessions[slot];
        session.probe_by.is_some() && self.pick(session.group, empty, &Class::SOUND).is_some()
    }

    /// Gives a slot of a session with room to a waiter, softly.
    pub(super) fn hold(&mut self, slot: usize, waiter: u32) {
        let id = self.session_id(slot);
        let session = &mut self.sessions[slot];
        session.in_use += 1;
        self.waiters.push_back(&mut session.holders, waiter);
        self.waiters.at_mut(waiter).status = Status::Held(id);
        self.refile(slot);
    }

    /// Removes a holder; its slot stays in use and is the caller's to use or to give back.
    pub(super) fn let_go(&mut self, id: WaiterId, session: SessionId) -> Option<usize> {
        let slot = self.session_slot(session)?;
        self.waiters.unlink(&mut self.sessions[slot].holders, id.slot);
        self.waiters.remove(id);
        Some(slot)
    }

    /// Takes back the slot that has been held for longest.
    pub(super) fn revoke(&mut self, slot: usize) {
        let id = self.session_id(slot);
        let session = &mut self.sessions[slot];
        if let Some(waiter) = session.holders.head() {
            self.waiters.unlink(&mut session.holders, waiter);
            session.in_use -= 1;
            #[cfg(not(h2pool_seed = "revoke_untold"))]
            {
                self.waiters.at_mut(waiter).status = Status::Revoked(id);
            }
            self.refile(slot);
        }
    }

    /// Takes back what the session cannot give any more: all of it when it takes no work, else what is over its limit.
    pub(super) fn revoke_excess(&mut self, slot: usize) {
        loop {
            let session = &self.sessions[slot];
            let excess = !session.takes_work() || session.in_use > session.limit;
            if !excess || session.holders.is_empty() {
                return;
            }
            self.revoke(slot);
        }
    }
}
