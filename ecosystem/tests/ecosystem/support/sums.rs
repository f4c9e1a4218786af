//! A gRPC service as a tonic server serves it, and its client over any transport: what a generator makes of
//!
//! ```proto
//! service Sums {
//!     rpc Double(Number) returns (Number);
//!     rpc Count(Number) returns (stream Number);
//!     rpc Sum(stream Number) returns (Number);
//!     rpc Running(stream Number) returns (stream Number);
//! }
//! ```
//!
//! [`HANGS`] given to any of them is not answered.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::Uri;
use http::uri::PathAndQuery;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::transport::Server;
use tonic::{IntoStreamingRequest, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::{BoxError, Service, service_fn};

/// The one message.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Number {
    #[prost(uint64, tag = "1")]
    pub(crate) value: u64,
    /// What makes it long.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) ballast: Bytes,
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self {
            value,
            ballast: Bytes::new(),
        }
    }
}

/// Not answered.
pub(crate) const HANGS: u64 = u64::MAX;

/// What the server does now.
#[derive(Clone, Default)]
pub(crate) struct Sums {
    running: Arc<AtomicUsize>,
}

impl Sums {
    /// Calls under way.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    fn enter(&self) -> Running {
        self.running.fetch_add(1, Ordering::SeqCst);
        Running(self.running.clone())
    }
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type Numbers = Pin<Box<dyn Stream<Item = Result<Number, Status>> + Send>>;

async fn double(request: Request<Number>) -> Result<Response<Number>, Status> {
    let mut number = request.into_inner();
    match number.value {
        HANGS => std::future::pending().await,
        0 => Err(Status::invalid_argument("nothing to double")),
        value => {
            number.value = 2 * value;
            Ok(Response::new(number))
        }
    }
}

async fn count(request: Request<Number>) -> Result<Response<Numbers>, Status> {
    let numbers = stream::iter(1..=request.into_inner().value).map(|value| Ok(value.into()));
    Ok(Response::new(numbers.boxed()))
}

async fn sum(request: Request<Streaming<Number>>) -> Result<Response<Number>, Status> {
    let mut numbers = request.into_inner();
    let mut sum = 0;
    while let Some(number) = numbers.message().await? {
        sum += number.value;
    }
    Ok(Response::new(sum.into()))
}

async fn running(request: Request<Streaming<Number>>) -> Result<Response<Numbers>, Status> {
    let sums = stream::unfold((request.into_inner(), 0), |(mut numbers, sum)| async move {
        let number = numbers.message().await.transpose()?;
        let sum = sum + number.as_ref().map_or(0, |number| number.value);
        Some((number.map(|_| sum.into()), (numbers, sum)))
    });
    Ok(Response::new(sums.boxed()))
}

impl Service<http::Request<Body>> for Sums {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let guard = self.enter();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Number, Number>::default());
            let response = match request.uri().path() {
                "/Sums/Double" => grpc.unary(service_fn(double), request).await,
                "/Sums/Count" => grpc.server_streaming(service_fn(count), request).await,
                "/Sums/Sum" => grpc.client_streaming(service_fn(sum), request).await,
                "/Sums/Running" => grpc.streaming(service_fn(running), request).await,
                other => Status::unimplemented(other.to_owned()).into_http(),
            };
            // Under way until the body has been sent, or was dropped.
            Ok(response.map(|body| Body::new(Guarded { body, _guard: guard })))
        })
    }
}

/// A response body that is counted.
struct Guarded {
    body: Body,
    _guard: Running,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A tonic server on a loopback port.
pub(crate) struct SumsServer {
    addr: SocketAddr,
    pub(crate) sums: Sums,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl SumsServer {
    /// Starts it; `max_streams` is its SETTINGS_MAX_CONCURRENT_STREAMS.
    pub(crate) async fn start(max_streams: u32) -> Self {
        Self::start_at("127.0.0.1:0", max_streams).await
    }

    pub(crate) async fn start_at(addr: impl ToSocketAddrs, max_streams: u32) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let sums = Sums::default();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = Server::builder()
            .max_concurrent_streams(max_streams)
            .serve_with_incoming_shutdown(sums.clone(), TcpListenerStream::new(listener), async {
                drop(stopped.await)
            });
        let task = tokio::spawn(async { serving.await.unwrap() });
        Self {
            addr,
            sums,
            stop: Some(stop),
            task,
        }
    }

    pub(crate) fn uri(&self) -> Uri {
        format!("http://{}", self.addr).parse().unwrap()
    }

    /// Says GOAWAY on every connection; ends when the calls have.
    pub(crate) fn shut_down(&mut self) {
        drop(self.stop.take());
    }

    pub(crate) async fn ended(self) {
        self.task.await.unwrap();
    }
}

/// What a generator would call `SumsClient`.
#[derive(Clone, Debug)]
pub(crate) struct SumsClient<T> {
    inner: tonic::client::Grpc<T>,
}

impl<T> SumsClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<BoxError>,
    T::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<BoxError> + Send,
{
    pub(crate) fn with_origin(transport: T, origin: Uri) -> Self {
        Self {
            inner: tonic::client::Grpc::with_origin(transport, origin),
        }
    }

    pub(crate) async fn double(&mut self, request: Request<Number>) -> Result<Number, Status> {
        self.ready().await?;
        let path = PathAndQuery::from_static("/Sums/Double");
        self.inner
            .unary(request, path, ProstCodec::default())
            .await
            .map(Response::into_inner)
    }

    pub(crate) async fn count(&mut self, to: u64) -> Result<Streaming<Number>, Status> {
        self.ready().await?;
        let (request, path) = (
            Request::new(Number::from(to)),
            PathAndQuery::from_static("/Sums/Count"),
        );
        let numbers = self.inner.server_streaming(request, path, ProstCodec::default());
        numbers.await.map(Response::into_inner)
    }

    pub(crate) async fn sum(
        &mut self,
        numbers: impl IntoStreamingRequest<Message = Number>,
    ) -> Result<Number, Status> {
        self.ready().await?;
        let (numbers, path) = (
            numbers.into_streaming_request(),
            PathAndQuery::from_static("/Sums/Sum"),
        );
        let sum = self.inner.client_streaming(numbers, path, ProstCodec::default());
        sum.await.map(Response::into_inner)
    }

    pub(crate) async fn running(
        &mut self,
        numbers: impl IntoStreamingRequest<Message = Number>,
    ) -> Result<Streaming<Number>, Status> {
        self.ready().await?;
        let (numbers, path) = (
            numbers.into_streaming_request(),
            PathAndQuery::from_static("/Sums/Running"),
        );
        let sums = self.inner.streaming(numbers, path, ProstCodec::default());
        sums.await.map(Response::into_inner)
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.inner.ready().await;
        ready.map_err(|error| Status::unknown(error.into().to_string()))
    }
}
