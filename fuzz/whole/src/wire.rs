//! What lies between the pool and the fuzzer's servers: connections in memory whose reads and writes are as short, and
//! as often interrupted, as the input says.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2pool::connect::{Connect, from_fn, memory};
use h2pool::{H2Pool, Origin};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Runs it on a runtime of its own with a paused clock, and fails when a task is left over.
pub(crate) fn alone<F: Future<Output = ()>>(story: F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        story.await;
        // What was told to end does so.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let left = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        assert_eq!(left, 0, "tasks are left over");
    });
}

/// Fails when it takes longer in virtual time: nothing else can tell a hang.
pub(crate) async fn within<T>(seconds: u64, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(seconds), future).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen in {seconds} s: {what}"),
    }
}

/// Closes the pool: everything is given back, and it ends in time.
pub(crate) async fn close(pool: H2Pool) {
    pool.close();
    within(30, "the pool ends", pool.closed()).await;
    let stats = pool.stats();
    let now = [
        stats.streams,
        stats.waiters,
        stats.sessions_active,
        stats.sessions_dialing,
        stats.sessions_draining,
    ];
    assert_eq!(now, [0; 5], "{stats:?}");
    assert_eq!(stats.sessions_opened, stats.sessions_closed.total(), "{stats:?}");
}

/// A connector whose connections keep to the schedule: a byte for each read or write says how many bytes it may carry,
/// 0 that it has to come again. After the last byte there are no limits.
pub(crate) fn choppy(schedule: &[u8]) -> (impl Connect<Origin> + use<>, memory::MemoryListener<Origin>) {
    let schedule = Schedule(Arc::new(Mutex::new(schedule.iter().copied().collect())));
    let (connector, listener) = memory::pair();
    let connector = from_fn(move |key: &Origin, offer| {
        let (connector, key, schedule) = (connector.clone(), key.clone(), schedule.clone());
        async move {
            let connection = connector.connect(&key, offer).await?;
            Ok(connection.wrap(|io| Choppy { io, schedule }))
        }
    });
    (connector, listener)
}

#[derive(Clone)]
struct Schedule(Arc<Mutex<VecDeque<u8>>>);

impl Schedule {
    fn next(&self, cx: &Context<'_>) -> Poll<usize> {
        match self.0.lock().unwrap().pop_front() {
            Some(0) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(most) => Poll::Ready(most.into()),
            None => Poll::Ready(usize::MAX),
        }
    }
}

struct Choppy<T> {
    io: T,
    schedule: Schedule,
}

impl<T: AsyncRead + Unpin> AsyncRead for Choppy<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = ready!(self.schedule.next(cx)).min(buf.remaining());
        if most > 255 {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let mut short = [0; 255];
        let mut short = ReadBuf::new(&mut short[..most]);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut short))?;
        buf.put_slice(short.filled());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Choppy<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let most = ready!(self.schedule.next(cx)).min(buf.len());
        Pin::new(&mut self.io).poll_write(cx, &buf[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
