//! What can happen to an origin, decoded from bytes so that a fuzzer and a property test speak the same language.

use std::time::Duration;

use super::super::Limits;

/// One thing that happens. Small numbers choose among what is there, modulo how much of it there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Acquire {
        runtime: u8,
        empty: bool,
        soft: bool,
        first: bool,
    },
    TryAcquire {
        runtime: u8,
        empty: bool,
    },
    AcquireOwn {
        runtime: u8,
        empty: bool,
    },
    Claim(u8),
    Cancel(u8),
    FirmUp(u8),
    Moved(u8, u8),
    /// A stream ends.
    Release(u8),
    /// A lease that carried none.
    GiveBack(u8),
    Park(u8),
    Connected {
        dial: u8,
        h1: bool,
    },
    Failed(u8),
    H1Only(u8),
    Aborted(u8),
    Settings(u8, u8),
    Answered(u8),
    Refused(u8),
    SignOfLife(u8),
    Stalled(u8, bool),
    Goaway(u8),
    Failing(u8),
    Worn(u8),
    Lost(u8),
    GivenUp(u8),
    Warm {
        runtime: u8,
        count: u8,
    },
    MarkH1Only(bool),
    RuntimeEnded(u8),
    AwaitPermit,
    PermitSettled,
    Pass(Duration),
    Spurious,
    /// Time that went backwards.
    Backwards,
    Close(u8),
}

impl Op {
    /// The operation that these bytes stand for; all have a meaning. What happens often in life is drawn often.
    pub fn decode([kind, which, how]: [u8; 3]) -> Self {
        let flag = how & 1 == 1;
        match kind % 64 {
            0..=9 => Self::Acquire {
                runtime: which,
                empty: how & 1 == 0,
                soft: how & 6 == 6,
                first: how & 24 == 24,
            },
            10..=11 => Self::TryAcquire {
                runtime: which,
                empty: flag,
            },
            12 => Self::AcquireOwn {
                runtime: which,
                empty: flag,
            },
            13..=17 => Self::Claim(which),
            18..=20 => Self::Cancel(which),
            21..=22 => Self::FirmUp(which),
            23 => Self::Moved(which, how),
            24..=30 if how % 4 == 3 => Self::GiveBack(which),
            24..=30 => Self::Release(which),
            31 => Self::Park(which),
            32..=37 => Self::Connected {
                dial: which,
                h1: how % 16 == 0,
            },
            38..=39 => Self::Failed(which),
            40 => Self::H1Only(which),
            41 => Self::Aborted(which),
            42..=45 => Self::Settings(which, how),
            46..=47 => Self::Answered(which),
            48 => Self::Refused(which),
            49 => Self::SignOfLife(which),
            50 => Self::Stalled(which, flag),
            51 => Self::Goaway(which),
            52 => Self::Failing(which),
            53 => Self::Worn(which),
            54 => Self::Lost(which),
            55 if flag => Self::GivenUp(which),
            55 => Self::Lost(which),
            56 => Self::Warm {
                runtime: which,
                count: how % 8,
            },
            57 => Self::MarkH1Only(how % 4 == 0),
            58 => Self::RuntimeEnded(which),
            59 if flag => Self::AwaitPermit,
            59 => Self::PermitSettled,
            60..=61 => Self::Pass(Duration::from_millis(u64::from(which) * u64::from(how))),
            62 if flag => Self::Spurious,
            62 => Self::Backwards,
            _ if which >= 250 => Self::Close(how % 8),
            _ => Self::Pass(Duration::from_secs(u64::from(how) / 8)),
        }
    }
}

/// Small limits, so that short sequences reach them.
pub fn limits([sessions, streams, waiters, flags]: [u8; 4]) -> Limits {
    let flag = |bit: u8| flags & (1 << bit) != 0;
    Limits {
        max_sessions: 1 + u32::from(sessions % 4),
        max_h1_connections: 1 + u32::from(sessions / 4 % 6),
        min_sessions: u32::from(sessions / 32 % 3),
        streams_per_session: 1 + u32::from(streams % 5),
        pack: flag(0),
        max_waiters: (waiters % 32 > 0).then_some(u32::from(waiters % 32)),
        idle_timeout: (!flag(1)).then_some(Duration::from_secs(9)),
        max_age: flag(2).then_some(Duration::from_secs(40)),
        max_streams_per_session: flag(3).then_some(1 + u64::from(streams / 8)),
        drain_timeout: (!flag(4)).then_some(Duration::from_secs(5)),
        ..Limits::default()
    }
}
