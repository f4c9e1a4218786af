//! A server that runs with the settings of a case, and the back end behind it.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Mutex;

use crate::Failure;
use crate::back_end::BackEnd;
use crate::process::{Process, free_port};
use crate::settings::{Fixture, Place, Renew, Settings};
use crate::site::Site;

/// Another process may take a port between the look and the server's start.
const ATTEMPTS: usize = 3;

/// A running server. Dropping it ends all of its processes.
pub(crate) struct Running {
    fixture: &'static Fixture,
    port: u16,
    dir: PathBuf,
    processes: Mutex<Vec<Process>>,
    back_end: BackEnd,
}

impl Running {
    /// Starts a server; answers when it accepts connections.
    pub(crate) async fn start(
        fixture: &'static Fixture,
        site: &Site,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        let mut last = Failure::from("never started");
        for _ in 0..ATTEMPTS {
            match Self::attempt(fixture, site, settings).await {
                Ok(running) => return Ok(running),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn attempt(fixture: &'static Fixture, site: &Site, settings: &Settings) -> Result<Self, Failure> {
        static STARTS: AtomicUsize = AtomicUsize::new(0);
        let number = STARTS.fetch_add(1, Ordering::Relaxed);
        let dir = site.dir(&format!("{}-{number}", fixture.name))?;
        let back_end = BackEnd::start().await?;
        let place = Place {
            site,
            dir: &dir,
            port: free_port()?,
            inner_port: free_port()?,
            back_end: back_end.port(),
        };
        let mut processes = Vec::new();
        for program in (fixture.programs)(&place, settings)? {
            processes.push(Process::start(program, &dir).await?);
        }
        let port = place.port;
        let processes = Mutex::new(processes);
        Ok(Self {
            fixture,
            port,
            dir,
            processes,
            back_end,
        })
    }

    /// The URI of a path on this server. By name, so that TLS names the server too.
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// Makes the server start afresh, its own way.
    pub(crate) async fn renew(&self) -> Result<(), Failure> {
        let mut processes = self.processes.lock().await;
        let first = processes.first_mut().ok_or("the server has no process")?;
        match self.fixture.can.renew {
            Renew::Signal(name) => first.signal(name),
            Renew::Restart(name) => {
                first.signal(name)?;
                first.ended().await?;
                first.kill()?;
                *first = Process::start(first.program().clone(), &self.dir).await?;
                Ok(())
            }
        }
    }

    /// How often each request to `/count/{id}` was processed, by id.
    pub(crate) fn counts(&self) -> Result<HashMap<String, u32>, Failure> {
        let Some((log, before)) = self.fixture.counts else {
            return Ok(self.back_end.counts());
        };
        let log = self.dir.join(log);
        let log = if log.exists() { fs::read(log)? } else { Vec::new() };
        let mut counts = HashMap::new();
        for line in String::from_utf8_lossy(&log).lines() {
            if let Some((_, id)) = line.split_once(before) {
                *counts.entry(id.trim().to_owned()).or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// The end of what its programs printed.
    pub(crate) async fn tail(&self) -> String {
        self.processes.lock().await.iter().map(Process::tail).collect()
    }
}
