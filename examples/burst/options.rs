//! The command line.

use std::path::{Path, PathBuf};

use clap::builder::RangedU64ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, ValueEnum};
use h2pool::PoolConfig;
use http::Uri;
use serde::Serialize;

use crate::target::CONNECT_TIMEOUT;

/// Sends a burst of concurrent requests by several HTTP transports, from cold and then warm, and compares them.
///
/// Without `--url` it needs no network: it starts a TLS server on loopback, in a process of its own. With `--url` the
/// connections shown are those that the client opened, since only a server can count what it accepted.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "burst",
    after_help = "Exit code: 0 measured; 1 no server, or a transport without an answer; 2 usage."
)]
pub(crate) struct Options {
    /// Requests in each round.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = positive::<usize>())]
    pub(crate) requests: usize,

    /// Requests under way at once [default: all of them].
    #[arg(long, value_name = "N", value_parser = positive::<usize>())]
    concurrency: Option<usize>,

    /// Time that the embedded server takes for an answer, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub(crate) delay_ms: u64,

    /// Concurrent streams that the embedded server allows on one connection.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive::<u32>())]
    pub(crate) server_streams: u32,

    /// Sessions that h2pool may open.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive::<usize>())]
    max_sessions: usize,

    /// Streams that h2pool puts on one session, where the server allows as many.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = positive::<usize>())]
    streams_per_session: usize,

    /// Size of the embedded server's answers, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub(crate) body_bytes: usize,

    /// Transports to run, in this order [default: all].
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    transports: Option<Vec<Kind>>,

    /// GET this https URL instead of the embedded server.
    #[arg(long, value_name = "URL", env = "H2POOL_BENCH_URL", value_parser = https_url)]
    pub(crate) url: Option<Uri>,

    /// PEM file of the authorities that signed the server's certificate [default: the platform's].
    #[arg(long, value_name = "FILE", requires = "url")]
    pub(crate) ca: Option<PathBuf>,

    /// Accept any certificate.
    #[arg(long, requires = "url", conflicts_with = "ca")]
    pub(crate) insecure: bool,

    /// Print one JSON object a line for each transport and round, and no table.
    #[arg(long)]
    pub(crate) json: bool,

    /// Draw the distributions of latency into this file.
    #[arg(long, value_name = "FILE", value_parser = new_file)]
    pub(crate) svg: Option<PathBuf>,
}

/// The ways to send a request that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// hyper-util's client over HTTP/1.1.
    H1,
    /// hyper-util's client over one HTTP/2 connection.
    #[value(name = "h2-single")]
    H2Single,
    /// Eight bare h2 connections, opened beforehand: the floor.
    #[value(name = "h2-bare")]
    H2Bare,
    /// This crate.
    #[value(name = "h2pool")]
    #[serde(rename = "h2pool")]
    H2Pool,
}

impl Kind {
    /// The name used on the command line and in every output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2Single => "h2-single",
            Self::H2Bare => "h2-bare",
            Self::H2Pool => "h2pool",
        }
    }

    /// Whether it cannot talk to a server that speaks only HTTP/1.1.
    pub(crate) fn needs_h2(self) -> bool {
        matches!(self, Self::H2Single | Self::H2Bare)
    }
}

impl Options {
    /// Reads the command line; prints what is wrong with a usage line and ends with code 2.
    pub(crate) fn from_command_line() -> Self {
        let options = Self::try_parse().unwrap_or_else(|error| exit(error));
        options
            .pool()
            .validate()
            .unwrap_or_else(|error| Self::reject(error));
        options
    }

    /// Requests under way at once.
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency.unwrap_or(self.requests).min(self.requests)
    }

    /// The transports to run, each once.
    pub(crate) fn transports(&self) -> Vec<Kind> {
        let mut chosen = Vec::new();
        for kind in self.transports.as_deref().unwrap_or(Kind::value_variants()) {
            if !chosen.contains(kind) {
                chosen.push(*kind);
            }
        }
        chosen
    }

    /// The configuration of h2pool: its defaults, but for what the options say.
    pub(crate) fn pool(&self) -> PoolConfig {
        let mut config = PoolConfig::default();
        config.max_sessions = self.max_sessions;
        config.streams_per_session = self.streams_per_session;
        config.max_waiters = self.concurrency();
        config.connect_timeout = CONNECT_TIMEOUT;
        config
    }

    /// Whether the user named the transports, so that none may be left out in silence.
    pub(crate) fn names_transports(&self) -> bool {
        self.transports.is_some()
    }

    /// Ends with code 2, as for any other wrong option.
    pub(crate) fn reject(message: impl std::fmt::Display) -> ! {
        exit(Self::command().error(ErrorKind::ValueValidation, message))
    }
}

/// Prints the error, or the help that was asked for, and ends.
fn exit(error: clap::Error) -> ! {
    usage(error).exit()
}

/// Adds the usage line, which clap leaves out where a value is wrong.
fn usage(mut error: clap::Error) -> clap::Error {
    if error.use_stderr() && error.get(ContextKind::Usage).is_none() {
        let usage = Options::command().render_usage();
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    }
    error
}

fn positive<T: TryFrom<u64> + Clone + Send + Sync>() -> RangedU64ValueParser<T> {
    RangedU64ValueParser::new().range(1..=u64::from(u32::MAX))
}

fn https_url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(host)) if !host.is_empty() => Ok(uri),
        _ => Err("expected https://host[:port]/path".to_owned()),
    }
}

fn new_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.parent() {
        Some(folder) if folder == Path::new("") || folder.is_dir() => Ok(path),
        _ => Err("not a file in an existing folder".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn all_requests_go_at_once_unless_told_otherwise() {
        assert_eq!(parse("burst --requests 7").unwrap().concurrency(), 7);
        assert_eq!(
            parse("burst --requests 7 --concurrency 3").unwrap().concurrency(),
            3
        );
        assert_eq!(
            parse("burst --requests 7 --concurrency 30")
                .unwrap()
                .concurrency(),
            7
        );
    }

    #[test]
    fn transports_run_in_the_given_order_and_once() {
        let options = parse("burst --transports h2pool,h1,h2pool").unwrap();
        assert_eq!(options.transports(), [Kind::H2Pool, Kind::H1]);
        assert_eq!(parse("burst").unwrap().transports(), Kind::value_variants());
    }

    #[test]
    fn the_names_on_the_command_line_are_those_of_the_output() {
        for kind in Kind::value_variants() {
            assert_eq!(kind.to_possible_value().unwrap().get_name(), kind.name());
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn wrong_options_are_usage_errors() {
        for line in [
            "burst --no-such-option",
            "burst extra",
            "burst --requests 0",
            "burst --requests many",
            "burst --transports h3",
            "burst --url http://localhost/",
            "burst --url localhost",
            "burst --url https://localhost/ --ca a.pem --insecure",
            "burst --svg /no/such/folder/burst.svg",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(usage(error).to_string().contains("Usage: burst"), "{line}");
        }
    }
}
