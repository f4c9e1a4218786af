//! The embedded server: this program, started once more as a process of its own.
//!
//! The client's half is [`Server`], the other half [`child`]. They talk in JSON lines over the child's standard input
//! and output: first the [`Settings`] go down and the [`Address`] comes back; after that each line down ends a round
//! and starts the next, and its [`Count`] comes back. The child ends when its input does, so it cannot outlive us.

pub(crate) mod child;
mod count;
mod h2;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The hidden first argument that makes this program the server.
pub(crate) const ARGUMENT: &str = "__server";

/// How the server behaves.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) delay_ms: u64,
    pub(crate) streams: u32,
    pub(crate) body_bytes: usize,
}

/// Where the server listens, and whom to trust.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) addr: SocketAddr,
    pub(crate) ca_pem: String,
}

/// What the server counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    /// Connections that were accepted, or carried a request, in the round.
    pub(crate) used: u64,
    /// Connections that are open now.
    pub(crate) open: u64,
}

/// A running server; it ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(crate) address: Address,
}

impl Server {
    /// Starts the server and waits until it listens.
    pub(crate) fn start(settings: Settings) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own file")?;
        let mut child = Command::new(program)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start of the server's process")?;
        let mut input = child.stdin.take().context("the server's input")?;
        let mut output = BufReader::new(child.stdout.take().context("the server's output")?);
        let address = ask(&mut input, &mut output, &settings)?;
        Ok(Self {
            child,
            input: Some(input),
            output,
            address,
        })
    }

    /// Ends the round, and says what the server counted in it.
    pub(crate) fn next_round(&mut self) -> Result<Count> {
        let input = self.input.as_mut().context("the server's input")?;
        ask(input, &mut self.output, &())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        // Nothing can be done about a child that cannot be waited for.
        let _ = self.child.wait();
    }
}

fn ask<A: DeserializeOwned>(
    input: &mut ChildStdin,
    output: &mut impl BufRead,
    question: &impl Serialize,
) -> Result<A> {
    let mut line = serde_json::to_string(question)?;
    line.push('\n');
    input.write_all(line.as_bytes()).context("the server has ended")?;
    line.clear();
    output.read_line(&mut line).context("the server's answer")?;
    serde_json::from_str(&line).context("the server has ended")
}
