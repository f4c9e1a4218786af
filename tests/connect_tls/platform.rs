//! The platform's verifier, in processes whose trust store the test chooses.
#![cfg(target_os = "linux")]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use h2pool::connect::{Offer, TlsConnector, from_fn};
use h2pool::{Error, Origin};
use http::Version;

use crate::certs::{Tls, certs};
use crate::{Server, dial};

/// The port of the parent's server, in a child process.
const CHILD: &str = "H2POOL_TEST_CHILD";

/// Runs the test again in a process whose trust store is this; there, `parents_port` says so.
async fn in_a_process_that_trusts(pem: &str, test: &'static str, port: u16) {
    let file = std::env::temp_dir().join(format!("h2pool-{}-{test}.pem", std::process::id()));
    std::fs::write(&file, pem).unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, port.to_string());
    child.env("SSL_CERT_FILE", &file).env_remove("SSL_CERT_DIR");
    let output = tokio::task::spawn_blocking(move || child.output())
        .await
        .unwrap()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
}

fn parents_port() -> Option<u16> {
    std::env::var(CHILD).ok().map(|port| port.parse().unwrap())
}

#[tokio::test]
async fn the_platform_verifier_uses_the_systems_trust_store() {
    if let Some(port) = parents_port() {
        let origin = Origin::https("localhost", port).unwrap();
        let connection = dial(&TlsConnector::platform(), &origin, Offer::Any)
            .await
            .unwrap();
        assert!(connection.version() == Version::HTTP_2 && connection.is_authenticated());
        return;
    }
    let server = Server::start(Tls::any().server()).await;
    let test = "platform::the_platform_verifier_uses_the_systems_trust_store";
    in_a_process_that_trusts(&certs().ca.cert_pem, test, server.port).await;
}

#[tokio::test]
async fn a_system_without_trust_store_is_a_configuration_error() {
    // P41: named at the first https dial, while plain origins work.
    if let Some(port) = parents_port() {
        let connector = TlsConnector::platform();
        let origin = Origin::https("localhost", port).unwrap();
        let error = dial(&connector, &origin, Offer::Any).await.unwrap_err();
        assert!(
            error.is_config() && error.to_string().contains("trust store"),
            "{error:?}"
        );
        let plain = Origin::http("127.0.0.1", port).unwrap();
        dial(&connector, &plain, Offer::Any).await.unwrap();
        return;
    }
    let server = Server::start(Tls::any().server()).await;
    let test = "platform::a_system_without_trust_store_is_a_configuration_error";
    in_a_process_that_trusts("", test, server.port).await;
}

#[test]
fn a_runtime_that_stands_still_keeps_the_platforms_verifier_from_no_other() {
    // P36: it stands still while one of its dials has the verifier loaded.
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let connector = TlsConnector::platform().over(from_fn(|_: &Origin, _| {
        std::future::ready(Err(Error::connect("this far")))
    }));
    let origin = Origin::https("localhost", 443).unwrap();
    let (still, other) = (runtime(), runtime());
    let mut first = pin!(dial(&connector, &origin, Offer::Any));
    still.block_on(async { assert!(first.as_mut().now_or_never().is_none()) });
    let second =
        async { tokio::time::timeout(Duration::from_secs(20), dial(&connector, &origin, Offer::Any)).await };
    assert!(other.block_on(second).expect("it is loaded").is_err());
}

#[tokio::test]
async fn a_crowd_of_first_dials_loads_the_platforms_verifier_once() {
    // P38: those that wait for it hold no thread.
    if parents_port().is_some() {
        let threads = tokio::task::spawn_blocking(threads_of_a_crowd);
        assert_eq!(threads.await.unwrap(), 1);
        return;
    }
    let test = "platform::a_crowd_of_first_dials_loads_the_platforms_verifier_once";
    in_a_process_that_trusts(&certs().ca.cert_pem, test, 0).await;
}

/// How many threads a runtime starts for many dials at once that wait for the verifier.
fn threads_of_a_crowd() -> usize {
    let threads = Arc::<AtomicUsize>::default();
    let counting = threads.clone();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.on_thread_start(move || {
        counting.fetch_add(1, Ordering::Relaxed);
    });
    let runtime = builder.build().unwrap();
    let connector = TlsConnector::platform().over(from_fn(|_: &Origin, _| {
        std::future::ready(Err(Error::connect("this far")))
    }));
    let origin = Origin::https("localhost", 443).unwrap();
    let crowd = (0..64).map(|_| dial(&connector, &origin, Offer::Any));
    for dialed in runtime.block_on(join_all(crowd)) {
        assert!(dialed.unwrap_err().is_connect());
    }
    drop(runtime);
    threads.load(Ordering::Relaxed)
}
