//! kube's client over one origin of the pool, against a server that answers as the API server does.
//!
//! kube gives its requests no authority, puts a `Buffer` over the service, and keeps streams (watches) open for long:
//! what the service of one origin is for (P29).

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use h2pool::H2Pool;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use k8s_openapi::api::core::v1::ConfigMap;
use kube_client::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube_client::{Client, Error};
use serde_json::{Value, json};

use crate::support::endpoint::{Answer, Endpoint};
use crate::support::{certs, eventually, origin, within};

fn config_map(name: &str, version: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": "default", "resourceVersion": version.to_string() },
        "data": { "name": name },
    })
}

fn event(kind: &str, version: u64) -> Bytes {
    let event = json!({ "type": kind, "object": config_map("watched", version) });
    format!("{event}\n").into()
}

fn answer(status: StatusCode, value: &Value) -> Answer {
    let body = Full::from(value.to_string()).boxed_unsync();
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(body)
        .unwrap()
}

async fn api_server(request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let path = parts
        .uri
        .path()
        .strip_prefix("/api/v1/namespaces/default/configmaps")
        .unwrap()
        .to_owned();
    let watches = parts
        .uri
        .query()
        .is_some_and(|query| query.contains("watch=true"));
    let body = body.collect().await.unwrap().to_bytes();
    match (parts.method, path.trim_start_matches('/')) {
        (Method::GET, "") if watches => {
            // Two events, and then silence, as a watch is most of its time.
            let events = [event("ADDED", 1), event("MODIFIED", 2)];
            let events = stream::iter(events)
                .map(|event| Ok(Frame::data(event)))
                .chain(stream::pending());
            Response::new(BodyExt::boxed_unsync(StreamBody::new(events)))
        }
        (Method::GET, "") => {
            let items: Vec<_> = (0..500).map(|n| config_map(&format!("map-{n}"), n)).collect();
            let list = json!({
                "apiVersion": "v1", "kind": "ConfigMapList", "metadata": { "resourceVersion": "9" }, "items": items,
            });
            answer(StatusCode::OK, &list)
        }
        (Method::GET, "missing") => {
            let status = json!({
                "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 404,
                "reason": "NotFound", "message": "configmaps \"missing\" not found",
            });
            answer(StatusCode::NOT_FOUND, &status)
        }
        (Method::GET, name) => answer(StatusCode::OK, &config_map(name, 1)),
        // What was written comes back.
        (Method::POST, "") => answer(StatusCode::CREATED, &serde_json::from_slice(&body).unwrap()),
        (Method::PATCH, name) => {
            let mut patched = config_map(name, 2);
            let patch: Value = serde_json::from_slice(&body).unwrap();
            patched["data"] = patch["data"].clone();
            answer(StatusCode::OK, &patched)
        }
        other => panic!("{other:?}"),
    }
}

async fn client() -> (Endpoint, H2Pool, Api<ConfigMap>) {
    let server = Endpoint::tls(&["h2", "http/1.1"], api_server).await;
    let pool = H2Pool::builder()
        .tls_config(certs::client())
        .max_sessions(2)
        .build()
        .unwrap();
    let client = Client::new(pool.origin(origin(&server.uri())), "default");
    (server, pool, Api::default_namespaced(client))
}

type Events = stream::BoxStream<'static, Result<WatchEvent<ConfigMap>, Error>>;

async fn watch(maps: &Api<ConfigMap>) -> Events {
    let events = within("a watch", maps.watch(&WatchParams::default(), "0"))
        .await
        .unwrap();
    events.boxed()
}

#[tokio::test]
async fn objects_are_read_and_written() {
    // P29, P31
    let (_server, pool, maps) = client().await;
    let list = within("the list", maps.list(&ListParams::default()))
        .await
        .unwrap();
    assert_eq!(
        (list.items.len(), list.metadata.resource_version.as_deref()),
        (500, Some("9"))
    );
    let error = within("the answer", maps.get("missing")).await.unwrap_err();
    assert!(
        matches!(&error, Error::Api(status) if status.code == 404),
        "{error:?}"
    );

    let map: ConfigMap = serde_json::from_value(config_map("written", 1)).unwrap();
    let created = within("the answer", maps.create(&PostParams::default(), &map))
        .await
        .unwrap();
    assert_eq!(created, map);
    let (params, patch) = (
        PatchParams::default(),
        Patch::Merge(json!({ "data": { "colour": "blue" } })),
    );
    let patched = within("the answer", maps.patch("written", &params, &patch))
        .await
        .unwrap();
    assert_eq!(patched.data.unwrap()["colour"], "blue");
    assert_eq!((pool.stats().sessions_opened, pool.stats().streams), (1, 0));
}

#[tokio::test]
async fn watches_stay_open_beside_many_requests() {
    // P29, P30
    let (_server, pool, maps) = client().await;
    let mut watches = Vec::new();
    for _ in 0..20 {
        let mut events = watch(&maps).await;
        let first = within("an event", events.try_next()).await.unwrap().unwrap();
        assert!(matches!(&first, WatchEvent::Added(map) if map.metadata.name.as_deref() == Some("watched")));
        let second = within("an event", events.try_next()).await.unwrap().unwrap();
        assert!(matches!(second, WatchEvent::Modified(_)));
        watches.push(events);
    }
    assert_eq!(pool.stats().streams, 20);
    let reads = (0..200).map(|n| {
        let maps = maps.clone();
        tokio::spawn(async move { maps.get(&format!("map-{n}")).await })
    });
    for (n, read) in reads.collect::<Vec<_>>().into_iter().enumerate() {
        let map = within("an answer", read).await.unwrap().unwrap();
        assert_eq!(map.metadata.name, Some(format!("map-{n}")));
    }
    drop(watches);
    eventually("the watches' slots are back", || pool.stats().streams == 0).await;
}

#[tokio::test]
async fn the_client_outlives_a_server_that_went_away() {
    // P14, P29
    let (mut server, _pool, maps) = client().await;
    within("an answer", maps.get("a")).await.unwrap();
    server.die().await;
    let error = within("an answer", maps.get("a")).await.unwrap_err();
    assert!(matches!(error, Error::Service(_)), "{error:?}");
    server.come_back().await;
    within("it answers again", async {
        while maps.get("a").await.is_err() {}
    })
    .await;
}
