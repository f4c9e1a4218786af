//! Server processes that never outlive the run.
//!
//! Each program runs in a process group of its own, beside a small shell that reads a pipe whose other end only this
//! process holds. When the pipe closes (the fixture is dropped, the test panics, is killed, or crashes) the shell kills
//! the whole group, itself included. No signal handler, no `unsafe`, nothing to clean up by hand.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::Failure;
use crate::site::cache;

/// How long a server may take until it accepts connections.
const READY: Duration = Duration::from_secs(20);
/// How long a server may take to end by itself when asked.
const ENDED: Duration = Duration::from_secs(10);
/// Where the servers listen: below what Linux gives to connections (`ip_local_port_range`).
const PORTS: Range<u16> = 10_000..32_000;
/// Between two looks at something that has no event.
const LOOK: Duration = Duration::from_millis(10);

/// Watches the pipe on its standard input, then becomes the server.
const WATCHED: &str = r#"exec 3<&0
( cat <&3 >/dev/null; kill -KILL 0 ) &
exec "$0" "$@" </dev/null 3<&-"#;

/// What to run: a program, its arguments and environment.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    path: PathBuf,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
    /// Accepts connections when the program is ready.
    listens: u16,
}

impl Program {
    pub(crate) fn new(path: impl AsRef<Path>, listens: u16) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            listens,
        }
    }

    /// Adds arguments, separated by spaces.
    pub(crate) fn args(mut self, args: &str) -> Self {
        self.args.extend(args.split_whitespace().map(str::to_owned));
        self
    }

    /// Adds one argument, which may contain spaces.
    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }
}

/// A running program.
pub(crate) struct Process {
    child: Child,
    program: Program,
    log: PathBuf,
}

impl Process {
    /// Starts a program and waits until it accepts connections.
    pub(crate) async fn start(program: Program, dir: &Path) -> Result<Self, Failure> {
        let name = program
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let log = dir.join(format!("{name}.log"));
        let output = OpenOptions::new().create(true).append(true).open(&log)?;
        let child = Command::new("sh")
            .args(["-c", WATCHED])
            .arg(&program.path)
            .args(&program.args)
            .envs(program.env.iter().map(|(name, value)| (*name, value)))
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()?;
        let mut process = Self { child, program, log };
        process.ready().await?;
        Ok(process)
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.program.listens));
        let answers = timeout(READY, async {
            while TcpStream::connect(address).await.is_err() {
                if let Some(status) = self.child.try_wait()? {
                    return Err(format!("{} ended with {status}", self.program.path.display()).into());
                }
                sleep(LOOK).await;
            }
            Ok(())
        });
        let answers = match answers.await {
            Ok(answers) => answers,
            Err(_) => Err(format!("{} accepts no connection", self.program.path.display()).into()),
        };
        answers.map_err(|error: Failure| format!("{error}\n{}", tail(&self.log)).into())
    }

    /// Sends the program a signal, by name.
    pub(crate) fn signal(&self, name: &str) -> Result<(), Failure> {
        let sent = Command::new("sh")
            .args(["-c", "kill -$0 $1", name, &self.child.id().to_string()])
            .status()?;
        if sent.success() {
            Ok(())
        } else {
            Err(format!("kill -{name}: {sent}").into())
        }
    }

    /// Waits until the program has ended; kills it when it takes too long.
    pub(crate) async fn ended(&mut self) -> Result<(), Failure> {
        let ended = timeout(ENDED, async {
            while self.child.try_wait()?.is_none() {
                sleep(LOOK).await;
            }
            Ok(())
        });
        ended.await.unwrap_or_else(|_| self.kill())
    }

    /// Ends the whole group at once.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        Ok(())
    }

    /// What to run to have the same again.
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    /// The end of what the program printed.
    pub(crate) fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to do about a failure here: the group is gone already.
        drop(self.kill());
    }
}

/// The last few lines of a log.
fn tail(path: &Path) -> String {
    const KEPT: i64 = 2_000;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
        file.seek(SeekFrom::End(-length.min(KEPT)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        Ok(String::from_utf8_lossy(&end).into_owned())
    };
    read().unwrap_or_else(|error| format!("{}: {error}", path.display()))
}

/// A port that was free a moment ago and is given to nobody else here, so that a server that starts afresh finds it again.
/// The system's own choice would be one of those that connections leave from: the next may take it.
pub(crate) fn free_port() -> Result<u16, Failure> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Another run of this program begins elsewhere.
    let begin = std::process::id().wrapping_mul(97);
    for _ in PORTS {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed);
        let within = begin.wrapping_add(given) % u32::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(within)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(format!("no port of {PORTS:?} is free").into())
}

/// Finds a program: what `scripts/install-servers` put into the target directory, then the usual places, the
/// administrator's included.
pub(crate) fn which(name: &str) -> Result<PathBuf, Failure> {
    let own = cache().join(name).join("_bin");
    let path = std::env::var("PATH").unwrap_or_default();
    let usual = path
        .split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"])
        .map(PathBuf::from);
    std::iter::once(own)
        .chain(usual)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("no program {name}: run scripts/install-servers").into())
}

/// Runs a short command to its end; its output, both streams.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let done = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    if done.status.success() {
        Ok(text.into_owned())
    } else {
        Err(format!("{command:?}: {}\n{text}", done.status).into())
    }
}

/// What the commands say is their version.
pub(crate) fn version(commands: &[&str]) -> Result<String, Failure> {
    let versions = commands.iter().map(|command| {
        let (program, argument) = command.split_once(' ').unwrap_or((command, "--version"));
        let text = output(Command::new(which(program)?).arg(argument))?;
        let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
        let mut versions = words.filter(|word| word.split('.').filter(|part| !part.is_empty()).count() > 1);
        let version = versions
            .next()
            .ok_or_else(|| format!("{command} tells no version: {text}"))?;
        Ok(format!("{program} {version}"))
    });
    Ok(versions.collect::<Result<Vec<_>, Failure>>()?.join(", "))
}

/// Whether this process is root: some servers need to be told to stay so, others refuse.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
