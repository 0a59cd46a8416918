//! Tests of merging and of what each mistake is answered with.

use std::io::Write as _;

use clap::Parser as _;

use super::*;
use crate::cli::args::{Cli, Command};

fn from(flags: &[&str], file: Option<&str>) -> Result<Config, String> {
    let mut toml = tempfile::NamedTempFile::new().expect("a file");
    toml.write_all(file.unwrap_or_default().as_bytes()).expect("a write");
    let args = ["finwatch", "run"].iter().chain(flags);
    let cli = Cli::try_parse_from(args).map_err(|error| error.to_string())?;
    let Command::Run(run) = cli.command else { unreachable!("run was asked for") };
    let config = Config::load(cli.log, run.options, file.map(|_| toml.path()));
    config.map_err(|error| error.to_string().replace(&toml.path().display().to_string(), "FILE"))
}

fn refused(file: &str) -> String {
    let message = from(&[], Some(file)).expect_err("a mistake");
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn nothing_is_required() {
    let config = from(&[], None).expect("the defaults");
    assert_eq!(config.listen.to_string(), "127.0.0.1:9778");
    assert_eq!((config.max_pairs, config.max_connections, config.goodbye_bytes), (4096, 131_072, 80));
    assert_eq!(config.pair_ttl, Duration::from_hours(1));
    assert_eq!((config.incidents, config.incidents_per_second), (1024, 10));
    assert_eq!(config.incident_file, None);
    assert_eq!((config.netns, config.requests), (Netns::All, Requests::Off));
    assert_eq!(config.run_dir, Path::new("/run/finwatch"));
    assert_eq!((config.log_level, config.log_format), (LogLevel::Info, LogFormat::Text));
    assert!(
        config
            .proxy_ranges
            .iter()
            .any(|net| net.contains(&"192.168.1.1".parse::<std::net::IpAddr>().unwrap()))
    );
}

/// Gives every flag the default that its help tells, and expects the default configuration.
#[test]
fn the_defaults_are_those_the_help_tells() {
    use clap::CommandFactory as _;
    let command = Cli::command();
    let run = command.find_subcommand("run").expect("run");
    let mut flags = Vec::new();
    for flag in
        run.get_arguments().chain(command.get_arguments()).filter(|flag| flag.get_action().takes_values())
    {
        let help = flag.get_help().expect("a help text").to_string();
        let (_, default) = help.split_once("[default: ").expect("a default");
        let default = default.trim_end_matches(']');
        if default.starts_with("none, ")
            || ["none", "every port", "every network", "every process"].contains(&default)
        {
            continue;
        }
        for value in default.rsplit_once(": ").map_or(default, |(_, list)| list).split(", ") {
            flags.push(format!("--{}={value}", flag.get_long().expect("a long flag")));
        }
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let told = from(&flags, None).expect("valid defaults");
    assert_eq!(format!("{told:?}"), format!("{:?}", from(&[], None).expect("the defaults")));
}

#[test]
fn every_key_can_stand_in_the_file() {
    let config = from(
        &[],
        Some(
            r#"
            listen = "[::]:1234"
            netns = "host"
            max-pairs = 16
            pair-ttl = "90s"
            max-connections = 2048
            snapshot-age = "10s"
            max-port-series = 100
            incidents = 50
            incidents-per-second = 3
            incident-file = "/var/log/finwatch/incidents.jsonl"
            incident-file-size = "2MiB"
            incident-file-count = 7
            conntrack = true
            proxy-ranges = ["192.0.2.0/24"]
            include-port = [80, 443]
            exclude-port = [22]
            include-net = ["10.0.0.0/8"]
            exclude-net = ["10.1.0.0/16"]
            include-process = ["nginx"]
            exclude-process = ["curl"]
            goodbye-bytes = 0
            requests = "coarse"
            no-request-rules = [8443, "10.0.0.1:50051"]
            run-dir = "/tmp/finwatch"
            web-config = "/etc/finwatch/web.yml"
            kubernetes = true
            kubernetes-api = "https://10.0.0.1:6443"
            kubernetes-token = "/etc/finwatch/token"
            kubernetes-ca = "/etc/finwatch/ca.crt"
            node-name = "node-1"
            docker-socket = "/run/podman/podman.sock"
            log-level = "debug"
            log-format = "json"

            [names.upstreams]
            "10.0.0.5:8080" = "checkout"
            "10.0.1.0/24" = "search"
            "[fd00::1]:8080" = "six"

            [names.proxies]
            "10.2.0.0/16" = "edge"
            "#,
        ),
    )
    .expect("a valid file");
    assert_eq!(config.listen.to_string(), "[::]:1234");
    assert_eq!((config.max_pairs, config.max_connections, config.goodbye_bytes), (16, 2048, 0));
    assert_eq!(config.pair_ttl, Duration::from_secs(90));
    assert_eq!((config.snapshot_age, config.max_port_series), (Duration::from_secs(10), 100));
    assert_eq!(
        (config.netns, config.requests, config.log_level, config.log_format),
        (Netns::Host, Requests::Coarse, LogLevel::Debug, LogFormat::Json)
    );
    assert_eq!((config.include_ports, config.exclude_ports), (vec![80, 443], vec![22]));
    assert_eq!((config.incidents, config.incidents_per_second), (50, 3));
    let path = "/var/log/finwatch/incidents.jsonl".into();
    assert_eq!(config.incident_file, Some(FileOptions { path, size: 2 << 20, count: 7 }));
    assert!(config.conntrack);
    assert_eq!(config.no_request_rules.len(), 2);
    assert!(config.processes.include.contains("nginx") && config.processes.exclude.contains("curl"));
    assert_eq!(config.proxy_ranges, vec!["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(config.web_config.as_deref(), Some(Path::new("/etc/finwatch/web.yml")));
    let kubernetes = KubernetesOptions {
        api: Some("https://10.0.0.1:6443".into()),
        token: Some("/etc/finwatch/token".into()),
        authority: Some("/etc/finwatch/ca.crt".into()),
        node: Some("node-1".into()),
    };
    assert_eq!(config.kubernetes, Some(kubernetes));
    assert_eq!(config.docker_socket, Path::new("/run/podman/podman.sock"));
    let address = |text: &str| text.parse::<Ipv4Addr>().expect("an address").to_ipv6_mapped();
    assert_eq!(config.names.upstream(address("10.0.0.5"), 8080), Some("checkout"));
    assert_eq!(config.names.upstream(address("10.0.1.9"), 1), Some("search"));
    assert_eq!(config.names.upstream("fd00::1".parse().expect("an address"), 8080), Some("six"));
    assert_eq!(config.names.proxy(address("10.2.3.4")), Some("edge"));
}

#[test]
fn mistakes_in_names_are_told() {
    for (file, about) in [
        ("[names.upstreams]\n\"10.0.0.5:0\" = \"a\"", "line 2"),
        ("[names.upstreams]\n\"web:80\" = \"a\"", "such as 10.0.0.5:8080, 10.0.0.5 or 10.0.0.0/24"),
        ("[names.proxies]\n\"10.0.0.5:80\" = \"a\"", "a network or an address"),
        ("[names.proxies]\n\"10.0.0.5\" = \"\"", "a name of 1 to 64 bytes"),
        ("[names.proxies]\n\"10.0.0.5\" = \"a\\u0007\"", "without control or invisible characters"),
        ("[names.proxies]\n\"10.0.0.5\" = \"external\"", "mean something else"),
        ("[names.proxies]\n\"10.0.0.5\" = 5", "line 2"),
        ("[names.proxy]\n\"10.0.0.5\" = \"a\"", "unknown key"),
        (
            "[names.proxies]\n\"10.0.0.5\" = \"a\"\n\"10.0.0.5/32\" = \"b\"",
            "[names.proxies] names the address of \"b\" twice",
        ),
    ] {
        let told = refused(file);
        assert!(told.contains(about), "{file}: {told}");
    }
}

#[test]
fn only_names_need_no_restart() {
    let config = |file| from(&[], Some(file)).expect("a valid file");
    let (none, named) = (config(""), config("[names.proxies]\n\"10.0.0.5\" = \"a\""));
    assert!(!none.needs_restart(&named) && none != named);
    assert!(none.needs_restart(&config("max-pairs = 17")));
}

#[test]
fn the_flag_for_requests_needs_no_value() {
    assert_eq!(from(&["--requests"], None).expect("a flag").requests, Requests::On);
    let file = "requests = \"on\"";
    assert_eq!(from(&["--requests=off"], Some(file)).expect("flags win").requests, Requests::Off);
}

#[test]
fn flags_win() {
    let file = "max-pairs = 100\nexclude-port = [1, 2]\nlog-level = \"warn\"\ngoodbye-bytes = 7";
    let flags = ["--max-pairs", "200", "--exclude-port", "3", "--exclude-port=4", "--log-level", "trace"];
    let config = from(&flags, Some(file)).expect("a valid file");
    assert_eq!((config.max_pairs, config.goodbye_bytes), (200, 7));
    assert_eq!(config.exclude_ports, vec![3, 4]);
    assert_eq!(config.log_level, LogLevel::Trace);
}

#[test]
fn mistakes_in_the_file_are_told_with_key_line_and_remedy() {
    for (file, expected) in [
        ("\nmax-pair = 5", "FILE, line 2: unknown key `max-pair`, expected one of `listen`,"),
        ("max_pairs = 5", "FILE, line 1: unknown key `max_pairs`, expected one of"),
        (
            "max-pairs = \"5\"",
            "FILE, line 1: max-pairs: invalid type: string \"5\", expected a whole number from 16",
        ),
        (
            "# x\nmax-pairs = 5",
            "FILE, line 2: max-pairs: 5 is invalid, expected a whole number from 16 to 1000000;",
        ),
        ("pair-ttl = 3600", "FILE, line 1: pair-ttl: invalid type: integer `3600`, expected a time from 1s"),
        ("pair-ttl = \"soon\"", "FILE, line 1: pair-ttl: \"soon\" is invalid, expected a time from 1s"),
        (
            "exclude-net = [\n\"10.0.0.0/8\",\n\"x\"]",
            "FILE, line 3: exclude-net[1]: \"x\" is invalid, expected a network",
        ),
        ("exclude-port = 22", "FILE, line 1: exclude-port: invalid type: integer `22`, expected a sequence"),
        ("exclude-port = [0]", "FILE, line 1: exclude-port[0]: 0 is invalid, expected a port from 1"),
        ("netns = \"some\"", "FILE, line 1: netns: unknown variant `some`, expected `host` or `all`"),
        ("run-dir = \"run\"", "FILE, line 1: run-dir: \"run\" is invalid, expected an absolute path"),
        (
            "listen = \"9778\"",
            "FILE, line 1: listen: \"9778\" is invalid, expected an address with a port, such as",
        ),
        ("exclude-process = [\"a-name-too-long-for-it\"]", "of 1 to 15 bytes"),
        ("max-pairs 5", "FILE, line 1: "),
        ("max-pairs = 20\nmax-pairs = 21", "FILE, line 2: duplicate key"),
        (
            "include-port = [80]\nexclude-port = [80]",
            "80 stands in both include-port and exclude-port; leave it in one",
        ),
        (
            "include-net = [\"10.0.0.1/8\"]\nexclude-net = [\"10.0.0.0/8\"]",
            "10.0.0.0/8 stands in both include-net",
        ),
        (
            "include-process = [\"a\\u001b[2J\"]\nexclude-process = [\"a\\u001b[2J\"]",
            "a\\u{1b}[2J stands in both include-process",
        ),
    ] {
        let message = refused(file);
        assert!(message.contains(expected), "{file:?} gave {message:?}");
    }
    let long: Vec<String> = (1..=1025).map(|port| port.to_string()).collect();
    let message = refused(&format!("exclude-port = [{}]", long.join(",")));
    assert!(message.starts_with("exclude-port has 1025 entries, at most 1024"), "{message}");
}

#[test]
fn mistakes_in_flags_are_told_with_the_flag_and_what_is_expected() {
    for (flags, expected) in [
        (
            &["--max-pairs", "5"][..],
            "invalid value '5' for '--max-pairs <N>': expected a whole number from 16 to 1000000",
        ),
        (&["--listen=9778"], "for '--listen <ADDR:PORT>': expected an address with a port"),
        (&["--max-pair=20"], "unexpected argument '--max-pair' found"),
    ] {
        let message = from(flags, None).expect_err("a mistake");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let missing = Path::new("/nonexistent/finwatch.toml");
    let message =
        Config::load(LogArgs::default(), Options::default(), Some(missing)).expect_err("no file").to_string();
    assert!(message.starts_with("cannot read /nonexistent/finwatch.toml: No such file"));
    assert!(message.ends_with("name a readable file with --config FILE"));
}

#[test]
fn what_is_no_file_is_not_read() {
    let error = Config::load(LogArgs::default(), Options::default(), Some(Path::new("/dev/zero")));
    let told = error.expect_err("it has no end").to_string();
    assert!(told.contains("/dev/zero") && told.contains("not a regular file"), "{told}");
}
