//! What one request may ask of the policy, as an extension of it.

use std::time::Duration;

/// Overrides of the policy for one request, put into its extensions.
///
/// What is not set stays as the [`RetryPolicy`](super::RetryPolicy) has it.
///
/// ```
/// use std::time::Duration;
/// use h2pool::retry::RetryOptions;
///
/// // This POST is safe to repeat: the server knows the order by its number.
/// let request = http::Request::post("https://example.com/orders/4711")
///     .extension(RetryOptions::new().any_method().deadline(Duration::from_secs(5)))
///     .body(())?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOptions {
    pub(crate) never: bool,
    pub(crate) any_method: bool,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) deadline: Option<Option<Duration>>,
    pub(crate) attempt_timeout: Option<Option<Duration>>,
    pub(crate) hedge: Option<Option<Duration>>,
    pub(crate) replay_limit: Option<usize>,
}

impl RetryOptions {
    /// No override.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One attempt and no more, whatever it comes to, even if the server provably did nothing. The deadline and the
    /// attempt's time limit still apply.
    #[must_use]
    pub fn never(mut self) -> Self {
        self.never = true;
        self
    }

    /// This request is safe to repeat whatever its method: it is retried, and hedged, as a GET is.
    #[must_use]
    pub fn any_method(mut self) -> Self {
        self.any_method = true;
        self
    }

    /// As [`RetryPolicy::max_attempts`](super::RetryPolicy::max_attempts).
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// As [`RetryPolicy::deadline`](super::RetryPolicy::deadline).
    #[must_use]
    pub fn deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = Some(deadline.into());
        self
    }

    /// As [`RetryPolicy::attempt_timeout`](super::RetryPolicy::attempt_timeout).
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.attempt_timeout = Some(timeout.into());
        self
    }

    /// As [`RetryPolicy::hedge`](super::RetryPolicy::hedge).
    #[must_use]
    pub fn hedge(mut self, delay: impl Into<Option<Duration>>) -> Self {
        self.hedge = Some(delay.into());
        self
    }

    /// As [`RetryPolicy::replay_limit`](super::RetryPolicy::replay_limit).
    #[must_use]
    pub fn replay_limit(mut self, bytes: usize) -> Self {
        self.replay_limit = Some(bytes);
        self
    }
}
