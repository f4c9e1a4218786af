//! The bounds in the `h2` crate that end a session in its midst: where they come near, it is replaced (P17).

use super::meter::Meter;

/// Half of its cap on stream errors of ours in a session's life.
const RESETS: u64 = 4096;
/// Its bound on the memory that small DATA frames take never gets back what came for streams that were given up.
const LATE_FRAMES: u64 = 2 << 20;
/// Its fixed cap on empty DATA frames is 100.
const EMPTY_FRAMES: u64 = 50;
/// Client stream ids end at 2^31.
const STREAMS: u64 = (1 << 30) - (1 << 16);

/// The server sent many frames that are counted against the session.
pub(super) fn is_worn(meter: &Meter) -> bool {
    meter.error_resets_sent() > RESETS
        || meter.empty_data_frames() > EMPTY_FRAMES
        || meter.late_overhead() > LATE_FRAMES
}

/// Stream ids are about to run out.
pub(super) fn is_used_up(meter: &Meter) -> bool {
    meter.opened() > STREAMS
}
