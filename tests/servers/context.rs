//! What a case works with: a client of its own, the running server, checks and counters.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use tokio::task::JoinSet;

use crate::Failure;
use crate::client::{Answer, Client, Payload, Unanswered, get, post};
use crate::running::Running;
use crate::settings::{Can, Settings};
use crate::site::SMALL;

/// How many requests the run sent.
pub(crate) static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Given to every case.
#[derive(Clone)]
pub(crate) struct Context<C> {
    pub(crate) case: &'static str,
    pub(crate) client: C,
    pub(crate) server: Arc<Running>,
    pub(crate) settings: Settings,
    pub(crate) can: Can,
}

impl<C: Client> Context<C> {
    /// Sends a request and checks the protocol of the answer.
    pub(crate) async fn send(&self, request: Request<Payload>) -> Result<Answer, Failure> {
        Ok(self.try_send(request).await??)
    }

    /// The same, with the client's error apart from what is wrong with the answer.
    async fn try_send(&self, request: Request<Payload>) -> Result<Result<Answer, Unanswered>, Failure> {
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        match self.client.send(request).await {
            Ok(answer) => self.checked(answer).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    fn checked(&self, answer: Answer) -> Result<Answer, Failure> {
        let version = if self.settings.h1_only {
            Version::HTTP_11
        } else {
            Version::HTTP_2
        };
        if answer.status != StatusCode::OK || answer.version != version {
            let body = String::from_utf8_lossy(&answer.body);
            return Err(format!("{} over {:?}: {body}", answer.status, answer.version).into());
        }
        Ok(answer)
    }

    /// `GET /small`.
    pub(crate) async fn get_small(&self) -> Result<(), Failure> {
        let answer = self.send(get(&self.server.uri("/small"))).await?;
        same(&answer.body, SMALL)
    }

    /// `GET /small`, sent again until it is answered.
    pub(crate) async fn get_small_again(&self) -> Result<(), Failure> {
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        let request = get(&self.server.uri("/small"));
        let answer = self.checked(self.client.send_again(request).await?)?;
        same(&answer.body, SMALL)
    }

    /// `POST /count/{id}`, which the server counts.
    pub(crate) async fn post_count(&self, number: usize) -> Result<Result<(), Unanswered>, Failure> {
        let id = self.id(number);
        let request = post(&self.server.uri(&format!("/count/{id}")), Bytes::from(id.clone()));
        match self.try_send(request).await? {
            Ok(answer) => same(&answer.body, id.as_bytes()).map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }

    /// The id of a counted request: no two in the whole run are the same.
    fn id(&self, number: usize) -> String {
        let case = self.case.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        format!("{case}-{number}")
    }

    /// Checks that each of the counted requests was processed exactly once.
    pub(crate) fn counted_once(&self, total: usize) -> Result<(), Failure> {
        let counts = self.server.counts()?;
        (0..total).try_for_each(|number| self.count_of(&counts, number, 1..=1))
    }

    /// Checks how often a counted request was processed.
    pub(crate) fn count_of(
        &self,
        counts: &HashMap<String, u32>,
        number: usize,
        allowed: std::ops::RangeInclusive<u32>,
    ) -> Result<(), Failure> {
        let id = self.id(number);
        let count = counts.get(&id).copied().unwrap_or(0);
        if allowed.contains(&count) {
            Ok(())
        } else {
            Err(format!("{id} was processed {count} times, not {allowed:?}").into())
        }
    }

    /// Runs a task for each number, so many at a time, all to their end; the first failure with how many there were.
    /// When it is dropped, so are the tasks.
    pub(crate) async fn each<T, F>(
        &self,
        total: usize,
        at_once: usize,
        task: impl Fn(Self, usize) -> F,
    ) -> Result<Vec<T>, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let (mut next, mut running) = (0, JoinSet::new());
        let mut done: Vec<Result<T, Failure>> = Vec::with_capacity(total);
        while done.len() < total {
            if next < total && running.len() < at_once {
                running.spawn(task(self.clone(), next));
                next += 1;
            } else if let Some(ended) = running.join_next().await {
                done.push(ended.unwrap_or_else(|panicked| Err(panicked.into())));
            }
        }
        let failed = done.iter().filter(|result| result.is_err()).count();
        done.into_iter()
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{failed} of {total} failed, the first: {error}").into())
    }
}

/// Checks a body.
pub(crate) fn same(body: &[u8], expected: &[u8]) -> Result<(), Failure> {
    if body == expected {
        return Ok(());
    }
    let at = body.iter().zip(expected).take_while(|(a, b)| a == b).count();
    Err(format!(
        "{} bytes for {}, different from byte {at} on",
        body.len(),
        expected.len()
    )
    .into())
}
