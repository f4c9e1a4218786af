//! The limit on streams as the client has to obey it: from its acknowledgement on (RFC 9113 §6.5.3).

use std::collections::VecDeque;

/// The limits of one connection.
#[derive(Default)]
pub(super) struct Limit {
    acknowledged: Option<u32>,
    /// Sent and not acknowledged, the oldest first.
    sent: VecDeque<u32>,
}

impl Limit {
    pub(super) fn sent(&mut self, limit: u32) {
        self.sent.push_back(limit);
    }

    /// The client acknowledged SETTINGS; all of ours carry a limit.
    pub(super) fn acknowledged(&mut self) {
        if let Some(limit) = self.sent.pop_front() {
            self.acknowledged = Some(limit);
        }
    }

    /// The limit that this many streams exceed, if they do.
    pub(super) fn exceeded_by(&self, streams: usize) -> Option<u32> {
        self.acknowledged
            .filter(|limit| usize::try_from(*limit).is_ok_and(|limit| streams > limit))
    }
}
