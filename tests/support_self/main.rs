//! The fakes proved against clients that are none of ours: hyper's own and h2's own.

mod peer;
mod server;
#[path = "../support/mod.rs"]
mod support;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;

use support::server::body::{Boxed, empty};
use support::within;

fn get(path: &str) -> Request<Boxed> {
    request("GET", path, empty())
}

fn request(method: &str, path: &str, body: Boxed) -> Request<Boxed> {
    let request = Request::builder()
        .method(method)
        .uri(format!("https://localhost{path}"));
    request.header("x-id", path).body(body).unwrap()
}

async fn read(response: Response<Incoming>) -> Collected<Bytes> {
    within("the whole body", response.into_body().collect())
        .await
        .unwrap()
}

fn header<'a>(response: &'a Response<Incoming>, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}
