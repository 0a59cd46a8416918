//! From flags and file to the one configuration that reaches the program.

pub mod names;
pub mod value;

use std::{
    collections::HashSet,
    fmt::Display,
    hash::Hash,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use crate::recorder::file::FileOptions;
use crate::{
    cli::args::{LogArgs, LogFormat, LogLevel, Netns, Options, Requests},
    containers::KubernetesOptions,
    files::{self, FileError},
    model::{
        labels::{ProcessFilter, harmless},
        names::Names,
    },
};
use value::{EndpointRule, Given};

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9778);
const DEFAULT_MAX_PAIRS: u32 = 4096;
const DEFAULT_PAIR_TTL: Duration = Duration::from_hours(1);
const DEFAULT_MAX_CONNECTIONS: u32 = 131_072;
const DEFAULT_SNAPSHOT_AGE: Duration = Duration::from_secs(5);
const DEFAULT_MAX_PORT_SERIES: u32 = 1024;
const DEFAULT_GOODBYE_BYTES: u32 = 80;
const DEFAULT_INCIDENTS: u32 = 1024;
const DEFAULT_INCIDENTS_PER_SECOND: u32 = 10;
const DEFAULT_INCIDENT_FILE_SIZE: u64 = 16 << 20;
const DEFAULT_INCIDENT_FILE_COUNT: u32 = 4;
const DEFAULT_DOCKER_SOCKET: &str = "/var/run/docker.sock";
const DEFAULT_RUN_DIR: &str = "/run/finwatch";
/// Private, loopback, link-local and unique local. Not 100.64.0.0/10: it is shared with an access provider's
/// customers; whoever numbers pods or a VPN from it names it.
const DEFAULT_PROXY_RANGES: [&str; 8] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "::1/128",
    "fe80::/10",
    "fc00::/7",
];
/// Entries a list may have; the kernel's tables have room for them.
const MAX_LIST: usize = 1024;

/// A complete and valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// What guards it.
    pub web_config: Option<PathBuf>,
    /// Pairs there is room for.
    pub max_pairs: u32,
    /// A pair to which nothing happened for this long is dropped.
    pub pair_ttl: Duration,
    /// Live connections there is room for.
    pub max_connections: u32,
    /// How old a level may be when it is shown.
    pub snapshot_age: Duration,
    /// Series of ephemeral ports there is room for.
    pub max_port_series: u32,
    /// Incidents kept in memory.
    pub incidents: usize,
    /// Incidents a pair may report per second.
    pub incidents_per_second: u32,
    /// Where incidents are written too.
    pub incident_file: Option<FileOptions>,
    /// Whether connection tracking is asked who answered behind services' addresses.
    pub conntrack: bool,
    /// Where remote addresses are told apart.
    pub proxy_ranges: Vec<IpNet>,
    /// Ports of the accepting end that are watched; empty for all.
    pub include_ports: Vec<u16>,
    /// Ports of the accepting end that are not watched.
    pub exclude_ports: Vec<u16>,
    /// Networks of the remote end that are watched; empty for all.
    pub include_nets: Vec<IpNet>,
    /// Networks of the remote end that are not watched.
    pub exclude_nets: Vec<IpNet>,
    /// Which processes' pairs are shown.
    pub processes: ProcessFilter,
    /// Bytes after the peer's FIN up to which a protocol's goodbye is assumed.
    pub goodbye_bytes: u32,
    /// Where the rules about requests do not apply.
    pub no_request_rules: Vec<EndpointRule>,
    /// Names of addresses.
    pub names: Names,
    /// How a cluster's API server is asked for names, where it is.
    pub kubernetes: Option<KubernetesOptions>,
    /// Where a container engine may be asked for names.
    pub docker_socket: PathBuf,
    /// How requests are followed.
    pub requests: Requests,
    /// Which network namespaces are watched.
    pub netns: Netns,
    /// Where the lock and the socket are.
    pub run_dir: PathBuf,
    /// How severe a message must be to be logged.
    pub log_level: LogLevel,
    /// How messages are written.
    pub log_format: LogFormat,
}

/// Why there is no configuration. Each is one sentence with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{0}; name a readable file with --config FILE")]
    Unreadable(#[from] FileError),
    /// The file is not what it should be.
    #[error("{path}, line {line}: {problem}; `finwatch run --help` lists every key with its values")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where in the file, from 1.
        line: usize,
        /// What is wrong, with the key.
        problem: String,
    },
    /// A list is longer than the kernel's tables.
    #[error("{key} has {len} entries, at most {MAX_LIST} are possible; join neighbours into larger ones")]
    TooLong {
        /// Flag and key.
        key: &'static str,
        /// Its entries.
        len: usize,
    },
    /// More names than are looked up quickly.
    #[error("[{key}] has {len} entries, at most {limit} are possible; name networks in place of addresses")]
    TooManyNames {
        /// The table.
        key: &'static str,
        /// Its entries.
        len: usize,
        /// How many it may have.
        limit: usize,
    },
    /// Two spellings of one address.
    #[error("[{key}] names the address of {name:?} twice; leave one of the two out")]
    NamedTwice {
        /// The table.
        key: &'static str,
        /// The second name.
        name: String,
    },
    /// The same is included and excluded.
    #[error("{value} stands in both include-{what} and exclude-{what}; leave it in one of them")]
    Conflict {
        /// `port`, `net` or `process`.
        what: &'static str,
        /// Which.
        value: String,
    },
}

impl Config {
    /// What the flags say, else the file, else the default.
    pub fn load(log: LogArgs, flags: Options, file: Option<&Path>) -> Result<Self, ConfigError> {
        let file = file.map(read).transpose()?.unwrap_or_default();
        Self::of(log, flags, file)
    }

    /// The same with the text of a file; `path` is where it is from.
    pub fn from_text(log: LogArgs, flags: Options, path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::of(log, flags, parse(path, text)?)
    }

    fn of(log: LogArgs, flags: Options, file: Options) -> Result<Self, ConfigError> {
        let names = file.names.clone().names()?;
        let config = Self { names, ..Self::merge(log, flags, file) };
        config.check_lengths()?;
        conflict("port", &config.include_ports, &config.exclude_ports)?;
        conflict("net", &config.include_nets, &config.exclude_nets)?;
        conflict("process", &config.processes.include, &config.processes.exclude)?;
        Ok(config)
    }

    fn merge(log: LogArgs, flags: Options, file: Options) -> Self {
        Self {
            listen: one(flags.listen, file.listen).unwrap_or(DEFAULT_LISTEN),
            web_config: one(flags.web_config, file.web_config).map(|path| path.0),
            max_pairs: one(flags.max_pairs, file.max_pairs).map_or(DEFAULT_MAX_PAIRS, |n| n.0),
            pair_ttl: one(flags.pair_ttl, file.pair_ttl).unwrap_or(DEFAULT_PAIR_TTL),
            max_connections: one(flags.max_connections, file.max_connections)
                .map_or(DEFAULT_MAX_CONNECTIONS, |n| n.0),
            snapshot_age: one(flags.snapshot_age, file.snapshot_age).unwrap_or(DEFAULT_SNAPSHOT_AGE),
            max_port_series: one(flags.max_port_series, file.max_port_series)
                .map_or(DEFAULT_MAX_PORT_SERIES, |n| n.0),
            incidents: one(flags.incidents, file.incidents).map_or(DEFAULT_INCIDENTS, |n| n.0) as usize,
            incidents_per_second: one(flags.incidents_per_second, file.incidents_per_second)
                .map_or(DEFAULT_INCIDENTS_PER_SECOND, |n| n.0),
            incident_file: one(flags.incident_file, file.incident_file).map(|path| FileOptions {
                path: path.0,
                size: one(flags.incident_file_size, file.incident_file_size)
                    .map_or(DEFAULT_INCIDENT_FILE_SIZE, |size| size.0),
                count: one(flags.incident_file_count, file.incident_file_count)
                    .map_or(DEFAULT_INCIDENT_FILE_COUNT, |n| n.0),
            }),
            conntrack: flags.conntrack.or(file.conntrack).unwrap_or_default(),
            proxy_ranges: list(flags.proxy_ranges, file.proxy_ranges, |net| net)
                .unwrap_or_else(default_proxy_ranges),
            include_ports: list(flags.include_ports, file.include_ports, |port| port.0).unwrap_or_default(),
            exclude_ports: list(flags.exclude_ports, file.exclude_ports, |port| port.0).unwrap_or_default(),
            include_nets: list(flags.include_nets, file.include_nets, |net| net).unwrap_or_default(),
            exclude_nets: list(flags.exclude_nets, file.exclude_nets, |net| net).unwrap_or_default(),
            processes: ProcessFilter {
                include: list(flags.include_processes, file.include_processes, |name| name.0)
                    .unwrap_or_default(),
                exclude: list(flags.exclude_processes, file.exclude_processes, |name| name.0)
                    .unwrap_or_default(),
            },
            goodbye_bytes: one(flags.goodbye_bytes, file.goodbye_bytes)
                .map_or(DEFAULT_GOODBYE_BYTES, |n| n.0),
            no_request_rules: list(flags.no_request_rules, file.no_request_rules, |rule| rule)
                .unwrap_or_default(),
            names: Names::default(),
            kubernetes: flags.kubernetes.or(file.kubernetes).unwrap_or_default().then(|| KubernetesOptions {
                api: flags.kubernetes_api.or(file.kubernetes_api),
                token: one(flags.kubernetes_token, file.kubernetes_token).map(|path| path.0),
                authority: one(flags.kubernetes_ca, file.kubernetes_ca).map(|path| path.0),
                node: flags.node_name.or(file.node_name),
            }),
            docker_socket: one(flags.docker_socket, file.docker_socket)
                .map_or_else(|| DEFAULT_DOCKER_SOCKET.into(), |path| path.0),
            requests: flags.requests.or(file.requests).unwrap_or_default(),
            netns: flags.netns.or(file.netns).unwrap_or_default(),
            run_dir: one(flags.run_dir, file.run_dir)
                .map_or_else(|| DEFAULT_RUN_DIR.into(), |directory| directory.0),
            log_level: log.log_level.or(file.log_level).unwrap_or_default(),
            log_format: log.log_format.or(file.log_format).unwrap_or_default(),
        }
    }

    /// Whether a daemon that began with `self` would have to begin anew to follow `other`: names it can take over.
    pub fn needs_restart(&self, other: &Self) -> bool {
        Self { names: Names::default(), ..self.clone() } != Self { names: Names::default(), ..other.clone() }
    }

    fn check_lengths(&self) -> Result<(), ConfigError> {
        for (key, len) in [
            ("proxy-ranges", self.proxy_ranges.len()),
            ("include-port", self.include_ports.len()),
            ("exclude-port", self.exclude_ports.len()),
            ("include-net", self.include_nets.len()),
            ("exclude-net", self.exclude_nets.len()),
            ("no-request-rules", self.no_request_rules.len()),
        ] {
            if len > MAX_LIST {
                return Err(ConfigError::TooLong { key, len });
            }
        }
        Ok(())
    }
}

fn one<T>(flag: Option<Given<T>>, file: Option<Given<T>>) -> Option<T> {
    flag.or(file).map(|given| given.0)
}

fn list<T, U, C: FromIterator<U>>(
    flag: Option<Vec<Given<T>>>,
    file: Option<Vec<Given<T>>>,
    inner: impl Fn(T) -> U,
) -> Option<C> {
    Some(flag.or(file)?.into_iter().map(|given| inner(given.0)).collect())
}

fn default_proxy_ranges() -> Vec<IpNet> {
    DEFAULT_PROXY_RANGES.iter().map(|net| net.parse().expect("the defaults are networks")).collect()
}

fn conflict<'a, T: Display + Eq + Hash + 'a>(
    what: &'static str,
    include: impl IntoIterator<Item = &'a T>,
    exclude: impl IntoIterator<Item = &'a T>,
) -> Result<(), ConfigError> {
    let exclude: HashSet<&T> = exclude.into_iter().collect();
    match include.into_iter().find(|value| exclude.contains(value)) {
        // A process's name may hold anything, and the sentence goes to a terminal.
        Some(value) => {
            Err(ConfigError::Conflict { what, value: value.to_string().escape_debug().to_string() })
        }
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<Options, ConfigError> {
    parse(path, &files::plain(path)?)
}

fn parse(path: &Path, text: &str) -> Result<Options, ConfigError> {
    options(text).map_err(|Problem { line, problem }| ConfigError::Invalid {
        path: path.to_owned(),
        line,
        problem,
    })
}

struct Problem {
    line: usize,
    problem: String,
}

fn options(text: &str) -> Result<Options, Problem> {
    let document = toml::Deserializer::parse(text).map_err(|error| problem(text, None, &error))?;
    serde_path_to_error::deserialize(document).map_err(|error| {
        let key = error.path().to_string();
        problem(text, Some(key), error.inner())
    })
}

/// One line out of the parser's several, whatever stands in the file. The key is told unless the message does.
fn problem(text: &str, key: Option<String>, error: &toml::de::Error) -> Problem {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = 1 + before.matches('\n').count();
    let message = error.message().replace("unknown field", "unknown key");
    let problem = match key {
        Some(key) if key != "." && !message.contains(&format!("`{key}`")) => format!("{key}: {message}"),
        _ => message,
    };
    Problem { line, problem: harmless(&problem.replace('\n', ", ")) }
}

#[cfg(test)]
mod tests;
