//! Flags, subcommands and the keys of the configuration file.
#![expect(clippy::doc_markdown, reason = "doc comments are help texts, which a terminal shows as they are")]

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde::Deserialize;

use super::{
    generate::{CompletionsArgs, ManArgs},
    incidents::IncidentsArgs,
    top::TopArgs,
    triage::TriageArgs,
};
use crate::config::{
    names::NameTables,
    value::{AbsolutePath, Bounded, EndpointRule, FileSize, Given, Port, ProcessName},
};

/// Tells why a proxy's upstream connections die.
#[derive(Debug, Parser)]
#[command(name = "finwatch", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What to log and how.
    #[command(flatten)]
    pub log: LogArgs,
}

/// What finwatch can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch this host's connections and serve /metrics.
    Run(Box<RunArgs>),
    /// Tell what is wrong with this host's upstream connections, why, and what to change.
    Triage(Box<TriageArgs>),
    /// Show this host's pairs live: rates, pools, lost requests, and what is wrong.
    Top(Box<TopArgs>),
    /// Show each lost request, reset and failed connect with its connection's own timeline.
    Incidents(Box<IncidentsArgs>),
    /// Tell whether this host has all it takes, and what to do where it has not.
    Check(CheckArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each subcommand.
    Man(ManArgs),
}

/// Flags of `finwatch run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Read options from this TOML file. Its keys are the flags' names (max-pairs = 4096); what may be repeated is a
    /// list. Flags win over the file. Unknown keys are refused. [default: none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What may also stand in the file.
    #[command(flatten)]
    pub options: Options,
}

/// Flags of `finwatch check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// End with status 1 if anything works only in part. [default: only if nothing would work, with status 2]
    #[arg(long)]
    pub strict: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Also check this configuration file, and use it. [default: none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Logging flags, valid after every subcommand.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct LogArgs {
    /// Log what is at least this severe, to standard error. [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// Log lines of text or JSON objects. [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Every option: what flags give, and what the file gives. `None` where it is silent.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// Serve HTTP (/metrics, /healthz, /readyz) on this address; 0.0.0.0:9778 for all of this host's.
    /// [default: 127.0.0.1:9778]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<Given<SocketAddr>>,

    /// Serve HTTP with the TLS and the passwords of this file (YAML, as Prometheus' exporters have it). It and the files
    /// it names are read again on SIGHUP. [default: none]
    #[arg(long, value_name = "FILE")]
    pub web_config: Option<Given<AbsolutePath>>,

    /// Watch the connections of every network namespace of this host, or only of the one finwatch runs in.
    /// [default: all]
    #[arg(long, value_name = "WHICH")]
    pub netns: Option<Netns>,

    /// Keep this many pairs (who talks to whom); connections of further pairs are counted under "other".
    /// 16 to 1000000, about 1.4 kB each. [default: 4096]
    #[arg(long, value_name = "N", help_heading = "Bounds")]
    pub max_pairs: Option<Given<Bounded<16, 1_000_000>>>,

    /// Drop a pair after nothing happened to it for this long: 1s to 30days, as 90s, 15m or 1h. [default: 1h]
    #[arg(long, value_name = "TIME", help_heading = "Bounds")]
    pub pair_ttl: Option<Given<Duration>>,

    /// Watch this many connections at once; further ones are not watched but counted. 1024 to 4194304, about 0.1 kB
    /// each. [default: 131072]
    #[arg(long, value_name = "N", help_heading = "Bounds")]
    pub max_connections: Option<Given<Bounded<1024, 4_194_304>>>,

    /// Show levels (sockets by state, accept queues, ephemeral ports) that are at most this old: 1s to 30days. A scrape
    /// within that time shares the last reading. [default: 5s]
    #[arg(long, value_name = "TIME", help_heading = "Bounds")]
    pub snapshot_age: Option<Given<Duration>>,

    /// Show at most this many series of ephemeral ports; those that hold the most are kept. 1 to 16384. [default: 1024]
    #[arg(long, value_name = "N", help_heading = "Bounds")]
    pub max_port_series: Option<Given<Bounded<1, 16_384>>>,

    /// Keep this many incidents in memory; the oldest make room. 1 to 1000000, about 1 kB each. [default: 1024]
    #[arg(long, value_name = "N", help_heading = "Incidents")]
    pub incidents: Option<Given<Bounded<1, 1_000_000>>>,

    /// Let a pair report this many incidents per second; its counters count all, and what is held back is counted.
    /// 1 to 1000000. [default: 10]
    #[arg(long, value_name = "N", help_heading = "Incidents")]
    pub incidents_per_second: Option<Given<Bounded<1, 1_000_000>>>,

    /// Also write each incident to this file, as a line of JSON; the owner may write it, the group read it.
    /// [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Incidents")]
    pub incident_file: Option<Given<AbsolutePath>>,

    /// Begin a new incident file when it would be larger than this: 1KiB to 1TiB, such as 500KiB or 16MiB.
    /// [default: 16MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Incidents")]
    pub incident_file_size: Option<Given<FileSize>>,

    /// Keep this many older incident files beside it, as FILE.1 (the youngest), FILE.2 and so on. 0 to 1000.
    /// [default: 4]
    #[arg(long, value_name = "N", help_heading = "Incidents")]
    pub incident_file_count: Option<Given<Bounded<0, 1000>>>,

    /// Ask the kernel's connection tracking, once for each incident of a connection that this host opened, which address
    /// answered behind the one it was opened to: behind a service's, as kube-proxy and DNAT translate it. Keeps
    /// CAP_NET_ADMIN. [default: false]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Incidents"
    )]
    pub conntrack: Option<bool>,

    /// Where this host accepts connections, show remote addresses of these networks one by one and all others as
    /// "external". Repeatable; replaces the default. [default: private, loopback, link-local and unique local:
    /// 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 127.0.0.0/8, 169.254.0.0/16, ::1/128, fe80::/10, fc00::/7]
    #[arg(long, value_name = "CIDR", help_heading = "What is shown")]
    pub proxy_ranges: Option<Vec<Given<IpNet>>>,

    /// Watch only connections whose accepting end has this port. Repeatable. [default: every port]
    #[arg(long = "include-port", value_name = "PORT", help_heading = "What is shown")]
    #[serde(rename = "include-port")]
    pub include_ports: Option<Vec<Given<Port>>>,

    /// Do not watch connections whose accepting end has this port. Repeatable. [default: none]
    #[arg(long = "exclude-port", value_name = "PORT", help_heading = "What is shown")]
    #[serde(rename = "exclude-port")]
    pub exclude_ports: Option<Vec<Given<Port>>>,

    /// Watch only connections whose remote end is in this network. Repeatable. [default: every network]
    #[arg(long = "include-net", value_name = "CIDR", help_heading = "What is shown")]
    #[serde(rename = "include-net")]
    pub include_nets: Option<Vec<Given<IpNet>>>,

    /// Do not watch connections whose remote end is in this network; where networks lie within each other the
    /// smallest decides. Repeatable. [default: none]
    #[arg(long = "exclude-net", value_name = "CIDR", help_heading = "What is shown")]
    #[serde(rename = "exclude-net")]
    pub exclude_nets: Option<Vec<Given<IpNet>>>,

    /// Of the connections this host opens, show only those of this process (as `ps -o comm` prints it). Repeatable.
    /// [default: every process]
    #[arg(long = "include-process", value_name = "NAME", help_heading = "What is shown")]
    #[serde(rename = "include-process")]
    pub include_processes: Option<Vec<Given<ProcessName>>>,

    /// Of the connections this host opens, do not show those of this process. Repeatable. [default: none]
    #[arg(long = "exclude-process", value_name = "NAME", help_heading = "What is shown")]
    #[serde(rename = "exclude-process")]
    pub exclude_processes: Option<Vec<Given<ProcessName>>>,

    /// Take up to this many bytes written after the peer's FIN for a protocol's goodbye (TLS close_notify, HTTP/2
    /// GOAWAY), not for a lost request. 0 to 65535 bytes. [default: 80]
    #[arg(long, value_name = "BYTES", help_heading = "Rules")]
    pub goodbye_bytes: Option<Given<Bounded<0, 65_535>>>,

    /// Do not look for unanswered requests on connections to this accepting end: for protocols in which either side
    /// may speak at any time (HTTP/2, websockets). Repeatable. [default: none]
    #[arg(long, value_name = "PORT|ADDR:PORT", help_heading = "Rules")]
    pub no_request_rules: Option<Vec<Given<EndpointRule>>>,

    /// Also follow requests: how many were answered, on how many connections, and how soon. Costs something on every send
    /// and receive (docs/cost.md). "coarse" costs less and tells times to a jiffy, as kernels up to 6.2 do anyway. Without
    /// a value: on. [default: off]
    #[arg(
        long,
        value_name = "HOW",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "on",
        help_heading = "Rules"
    )]
    pub requests: Option<Requests>,

    /// Keep the lock and the socket that other finwatch commands use in this directory. [default: /run/finwatch]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<Given<AbsolutePath>>,

    /// Ask the cluster's API server for the names of this node's pods, and show namespace/pod/container as workload in
    /// place of ids. In a pod, its service account is used; it must be allowed to list pods. [default: false]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Names"
    )]
    pub kubernetes: Option<bool>,

    /// With --kubernetes: the API server, such as https://10.0.0.1:6443. [default: none, that of the pod's environment]
    #[arg(long, value_name = "URL", help_heading = "Names")]
    pub kubernetes_api: Option<String>,

    /// With --kubernetes: the file with the bearer token; it is read for each request. [default: none, that of the pod's
    /// service account]
    #[arg(long, value_name = "FILE", help_heading = "Names")]
    pub kubernetes_token: Option<Given<AbsolutePath>>,

    /// With --kubernetes: the file with the certificate of the authority that the server's is checked against.
    /// [default: none, that of the pod's service account]
    #[arg(long, value_name = "FILE", help_heading = "Names")]
    pub kubernetes_ca: Option<Given<AbsolutePath>>,

    /// With --kubernetes: this node's name, as the cluster has it. [default: none, the environment's NODE_NAME]
    #[arg(long, value_name = "NAME", help_heading = "Names")]
    pub node_name: Option<String>,

    /// Ask the container engine on this socket (Docker, Podman) for the names of containers, where there is one.
    /// [default: /var/run/docker.sock]
    #[arg(long, value_name = "SOCKET", help_heading = "Names")]
    pub docker_socket: Option<Given<AbsolutePath>>,

    /// Names of addresses, which only the file gives.
    #[arg(skip)]
    pub names: NameTables,

    /// The file's word on [`LogArgs::log_level`].
    #[arg(skip)]
    pub log_level: Option<LogLevel>,

    /// The file's word on [`LogArgs::log_format`].
    #[arg(skip)]
    pub log_format: Option<LogFormat>,
}

/// Which network namespaces are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Netns {
    /// Only the one finwatch runs in
    Host,
    /// Every one, containers' included
    #[default]
    All,
}

/// How requests are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requests {
    /// Not at all
    #[default]
    Off,
    /// To the microsecond where the kernel can, else to a jiffy
    On,
    /// To a jiffy, with one hook instead of two
    Coarse,
}

/// How severe a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// What keeps finwatch from working
    Error,
    /// What keeps it from working in full
    Warn,
    /// What it does
    #[default]
    Info,
    /// What it decides
    Debug,
    /// Everything
    Trace,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For machines: one object per line
    Json,
}

impl From<LogLevel> for tracing::level_filters::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_that_takes_a_value_tells_its_default() {
        for command in Cli::command().get_subcommands() {
            let optional = command.get_arguments().filter(|argument| !argument.is_required_set());
            for flag in optional.filter(|flag| flag.get_action().takes_values()) {
                let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("[default: "), "{flag}");
            }
        }
    }
}
