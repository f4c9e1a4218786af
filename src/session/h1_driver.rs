//! The task behind an HTTP/1.1 session: it polls hyper's connection, and lets a slot go when the connection is free: the
//! response was read, and hyper has written all of the request. A write that fails ends the connection only when the
//! server's last words were read ([`Wire`]).

use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::alive::{Alive, Ending, caught};
use super::bound::{Bound, LAST_WORDS};
use super::h1::{H1, H1Control, Returned};
use super::h1_held::Watch;
use super::h2_driver::Tuning;
use super::link::{Address, Observer};
use crate::connect::{Connection, Io};
use crate::error::{Error, Kind};
use crate::state::SessionId;

/// hyper reads and writes through buffers of at least this size, in bytes.
const MIN_BUFFER: usize = 8192;

/// The connection, before its session has an id.
pub(crate) struct H1Driver {
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
    control: Arc<H1Control>,
    watch: Watch,
}

/// Nothing is sent: HTTP/1.1 begins with the first request.
pub(crate) async fn handshake(
    connection: Connection,
    tuning: &Tuning,
    address: Arc<Address>,
) -> Result<(Arc<H1>, H1Driver), Error> {
    let control = Arc::new(H1Control::new(
        address,
        &connection,
        &tuning.bounds,
        tuning.body_idle_timeout,
    ));
    let wire = Wire {
        io: connection.io,
        control: control.clone(),
        stalled: None,
        broken: None,
        wrote: false,
    };
    let limit = usize::try_from(tuning.max_header_list_size).unwrap_or(usize::MAX);
    let (sender, connection) = http1::Builder::new()
        .max_header_size(limit)
        .max_buf_size(limit.max(MIN_BUFFER))
        .handshake(TokioIo::new(wire))
        .await
        .map_err(Error::connect)?;
    control.rest(sender);
    let driver = H1Driver {
        connection: Box::pin(connection.with_upgrades()),
        control: control.clone(),
        watch: Watch::default(),
    };
    Ok((Arc::new(H1 { control }), driver))
}

/// Runs the session until it ends.
pub(crate) fn drive(
    driver: H1Driver,
    observer: Arc<dyn Observer>,
    id: SessionId,
) -> impl Future<Output = ()> + Send {
    let control = driver.control.clone();
    let alive = Alive {
        observer,
        id,
        control: control.clone(),
    };
    let task = Task {
        driver,
        alive,
        leftover: Leftover {
            returned: None,
            control,
        },
    };
    async move {
        let mut task = task;
        let ended = poll_fn(|cx| caught(|| task.poll(cx))).await;
        let (Ok(cause) | Err(cause)) = ended;
        task.alive.control.end(cause);
        drop(task);
    }
}

/// Dropped in this order: the connection, the report of its end, the slot that it still filled.
struct Task {
    driver: H1Driver,
    alive: Alive<H1Control>,
    leftover: Leftover,
}

/// The slot whose request is over, while the connection is not free.
struct Leftover {
    returned: Option<Returned>,
    control: Arc<H1Control>,
}

impl Drop for Leftover {
    fn drop(&mut self) {
        drop(self.control.take_returned());
        // Nobody watches over what is still held.
        drop(self.control.held.take());
    }
}

impl Task {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let control = &self.driver.control;
        control.waker.register(cx.waker());
        if let Some(verdict) = control.verdict() {
            return Poll::Ready(verdict.clone());
        }
        if let Some(returned) = control.take_returned() {
            self.leftover.returned = Some(returned);
        }
        if let Poll::Ready(result) = self.driver.connection.as_mut().poll(cx) {
            if control.served_unseen() {
                self.alive.observer.clone().answered(self.alive.id);
            }
            return Poll::Ready(self.driver.why(result));
        }
        self.poll_returned(cx);
        self.driver.watch.poll(&self.driver.control, cx)
    }

    /// An error of the sender means that the connection ends by itself; then the slot waits for that.
    fn poll_returned(&mut self, cx: &mut Context<'_>) {
        let Some(returned) = &mut self.leftover.returned else {
            return;
        };
        let ready = returned.sender.as_mut().map(|sender| sender.poll_ready(cx));
        if let Some(Poll::Ready(Ok(()))) = ready {
            let resting = returned
                .sender
                .take()
                .is_some_and(|sender| self.driver.control.rest(sender));
            if resting {
                self.leftover.returned = None;
            }
        } else if self.driver.control.take_drained() {
            // hyper was at rest before it had written everything, and does not look by itself whether more is wanted.
            cx.waker().wake_by_ref();
        }
    }
}

impl H1Driver {
    /// Why the connection ended.
    fn why(&self, result: hyper::Result<()>) -> Error {
        if let Some(fault) = self.control.fault.get() {
            return fault;
        }
        match result {
            Ok(()) => Error::new(
                Kind::Io,
                "the connection was closed, or upgraded to another protocol",
            ),
            Err(error) if error.is_parse() => {
                let broken = Error::new(Kind::Protocol, "the server broke the HTTP/1.1 protocol");
                broken.lasting().with_source(error)
            }
            Err(error) => Error::new(Kind::Io, "the connection failed").with_source(error),
        }
    }
}

/// The byte stream, whose writes must make progress within `write_timeout`.
///
/// A write that fails does not end the connection at once: a server that answered early and closed makes writes fail while
/// its answer lies unread. Such a write waits until nothing more is to be read, at most [`LAST_WORDS`] from the last
/// time that something was.
struct Wire {
    io: Box<dyn Io>,
    control: Arc<H1Control>,
    stalled: Option<Bound>,
    broken: Option<Broken>,
    /// Something, since the last flush.
    wrote: bool,
}

/// A write failed.
struct Broken {
    error: io::Error,
    until: Bound,
    /// There is nothing more to be read.
    over: bool,
}

impl Broken {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.over {
            ready!(self.until.poll(stalled_write, cx));
        }
        let kind = self.error.kind();
        Poll::Ready(std::mem::replace(&mut self.error, kind.into()))
    }
}

impl Wire {
    /// Nothing is written any more once a write has failed.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.broken {
            Some(broken) => broken.poll(cx).map(Err),
            None => Poll::Ready(Ok(())),
        }
    }

    fn bounded<T>(&mut self, cx: &mut Context<'_>, step: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(step) = step {
            self.stalled = None;
            let error = match step {
                Ok(done) => return Poll::Ready(Ok(done)),
                // An upgraded connection is its user's.
                Err(error) if self.control.has_ended() => return Poll::Ready(Err(error)),
                Err(error) => error,
            };
            let broken = self.broken.insert(Broken {
                error,
                until: Bound::new(Some(LAST_WORDS)),
                over: false,
            });
            return broken.poll(cx).map(Err);
        }
        let control = &self.control;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Bound::new(control.write_timeout()));
        stalled.poll(stalled_write, cx).map(|error| {
            control.kill(error.clone());
            Err(io::Error::new(io::ErrorKind::TimedOut, error))
        })
    }
}

/// The transport took nothing.
fn stalled_write() -> Error {
    let message = "the server took nothing for `write_timeout` while the request was sent";
    Error::new(Kind::Timeout, message)
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        // hyper would let go of the body that it reads for as of one that has ended.
        let step = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.io).poll_read(cx, buf)));
        let step = step.unwrap_or_else(|_| Poll::Ready(Err(io::Error::other("the transport panicked"))));
        let read = buf.filled().len() > before;
        if read {
            self.control.hear();
        }
        if let Some(broken) = self.broken.as_mut().filter(|_| step.is_ready()) {
            broken.over = !read;
            broken.until.reset();
            // The write that waits is looked at again.
            cx.waker().wake_by_ref();
        }
        step
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_broken(cx))?;
        let step = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote |= matches!(step, Poll::Ready(Ok(1..)));
        self.bounded(cx, step)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_broken(cx))?;
        let step = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote |= matches!(step, Poll::Ready(Ok(1..)));
        self.bounded(cx, step)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_broken(cx))?;
        let step = Pin::new(&mut self.io).poll_flush(cx);
        if let Poll::Ready(Ok(())) = step {
            let wrote = std::mem::take(&mut self.wrote);
            self.control.flushed(wrote);
        }
        self.bounded(cx, step)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.io).poll_shutdown(cx);
        if step.is_ready() {
            return step;
        }
        self.bounded(cx, step)
    }
}
