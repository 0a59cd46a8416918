//! The upstream's idle timeout above the proxy's.

use super::{
    MARGIN,
    product::{product, runs},
};
use crate::triage::{
    finding::{Candidate, Change, End},
    idle::IdleTime,
};

/// Above the timeout of a proxy, in seconds.
const ABOVE: u64 = 5;
/// A second more for the time a request's headers may take: Node.js before 20 counted it from the last answer.
const HEADERS_MS: u64 = 1_000;
/// The pool's idle timeout by default where the proxy is not known: the commonest (nginx, AWS ALB).
const COMMON_DEFAULT: u64 = 60;
/// Pools by default.
const DEFAULTS: [(&str, u64); 5] =
    [("nginx", 60), ("Caddy", 120), ("Traefik", 90), ("Envoy", 3600), ("Go net/http", 90)];

/// What one server needs.
struct Remedy {
    software: &'static str,
    context: &'static str,
    /// The text for a timeout in seconds.
    directives: fn(u64) -> String,
}

static REMEDIES: [Remedy; 12] = [
    Remedy {
        software: "Node.js",
        context: "the program, after http.createServer() or app.listen() has returned server",
        directives: |seconds| {
            let ms = seconds * 1_000;
            format!(
                "server.keepAliveTimeout = {};\nserver.headersTimeout = {};",
                grouped(ms),
                grouped(ms + HEADERS_MS)
            )
        },
    },
    Remedy {
        software: "gunicorn",
        context: "gunicorn's command line, with a worker class other than sync",
        directives: |seconds| format!("--keep-alive {seconds}"),
    },
    Remedy {
        software: "uvicorn",
        context: "uvicorn's command line",
        directives: |seconds| format!("--timeout-keep-alive {seconds}"),
    },
    Remedy {
        software: "Apache httpd",
        context: "the server's configuration or <VirtualHost>",
        directives: |seconds| format!("KeepAliveTimeout {seconds}"),
    },
    Remedy {
        software: "nginx",
        context: "http {} or server {} of the nginx that is the upstream",
        directives: |seconds| format!("keepalive_timeout {seconds}s;"),
    },
    Remedy {
        software: "HAProxy",
        context: "the frontend, or defaults, of the HAProxy that is the upstream",
        directives: |seconds| format!("timeout http-keep-alive {seconds}s"),
    },
    Remedy {
        software: "Tomcat",
        context: "<Connector> in server.xml, beside connectionTimeout",
        directives: |seconds| format!("keepAliveTimeout=\"{}\"", seconds * 1_000),
    },
    Remedy {
        software: "Spring Boot",
        context: "application.properties, with Tomcat inside",
        directives: |seconds| format!("server.tomcat.keep-alive-timeout={seconds}s"),
    },
    Remedy {
        software: "Jetty",
        context: "start.d/http.ini",
        directives: |seconds| format!("jetty.http.idleTimeout={}", seconds * 1_000),
    },
    Remedy {
        software: "Puma",
        context: "config/puma.rb",
        directives: |seconds| format!("persistent_timeout {seconds}"),
    },
    Remedy {
        software: "Kestrel",
        context: "ConfigureKestrel(options => {})",
        directives: |seconds| {
            format!("options.Limits.KeepAliveTimeout =\n    TimeSpan.FromSeconds({seconds});")
        },
    },
    Remedy {
        software: "Go net/http",
        context: "http.Server{}",
        directives: |seconds| format!("IdleTimeout: {seconds} * time.Second,"),
    },
];

/// Makes the upstream, which closes after `time`, keep idle connections for longer than the proxy. `listener` is the
/// process where it is known; else what the time points to, else every server known.
pub fn close_later(
    proxy: &str,
    listener: Option<&str>,
    candidates: &[Candidate],
    time: Option<&IdleTime>,
) -> Vec<Change> {
    let seconds = above(proxy, time);
    let change = |remedy: &Remedy| Change {
        software: remedy.software.into(),
        end: End::Upstream,
        what: format!("keep idle connections for {seconds} s, longer than the proxy does"),
        context: remedy.context.into(),
        directives: (remedy.directives)(seconds),
    };
    let local = listener.and_then(product);
    let of_product = |remedy: &&Remedy| local.is_some_and(|local| runs(local, remedy.software));
    let of_candidate =
        |remedy: &&Remedy| local.is_none() && candidates.iter().any(|one| names(one, remedy.software));
    let chosen: Vec<Change> =
        REMEDIES.iter().filter(|remedy| of_product(remedy) || of_candidate(remedy)).map(change).collect();
    if chosen.is_empty() { REMEDIES.iter().map(change).collect() } else { chosen }
}

/// Whether a process may be the server that a fingerprint names: not where its name tells another one.
pub fn may_be(process: &str, fingerprint: &str) -> bool {
    product(process).is_none_or(|known| {
        let software = REMEDIES.iter().map(|remedy| remedy.software).filter(|software| runs(known, software));
        software.chain([known]).any(|software| fingerprint.starts_with(software))
    })
}

/// Seconds that lie above the proxy's timeout, as far as that is known.
fn above(proxy: &str, time: Option<&IdleTime>) -> u64 {
    let default = product(proxy).and_then(|proxy| DEFAULTS.iter().find(|(name, _)| *name == proxy));
    let proxy = default.map_or(COMMON_DEFAULT, |(_, seconds)| *seconds);
    let Some(time) = time else { return proxy + ABOVE };
    let measured = if time.latest().is_finite() { time.latest() } else { time.low };
    // The proxy reuses connections older than that, so its timeout is not its default if that lies below.
    if measured > proxy as f64 + MARGIN {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and whole")]
        let doubled = (measured * 2.0).ceil() as u64;
        return doubled;
    }
    proxy + ABOVE
}

fn names(candidate: &Candidate, software: &str) -> bool {
    match candidate {
        Candidate::Listening(_) => false,
        Candidate::IdleTime { product, .. } => product.starts_with(software),
    }
}

/// A number as JavaScript groups it.
fn grouped(ms: u64) -> String {
    format!("{}_{:03}", ms / 1_000, ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::triage::fingerprints::{Role, closers};

    fn mean(seconds: f64) -> IdleTime {
        IdleTime { low: 0.0, high: None, mean: Some(seconds), count: 9, of: 9 }
    }

    fn of(proxy: &str, listener: Option<&str>, seconds: f64) -> Vec<(String, String)> {
        let time = mean(seconds);
        let changes = close_later(proxy, listener, &closers(&time, Role::Server), Some(&time)).into_iter();
        changes.map(|change| (change.software, change.directives)).collect()
    }

    #[test]
    fn a_known_listener_gets_its_own_directives_only() {
        let node = "server.keepAliveTimeout = 65_000;\nserver.headersTimeout = 66_000;";
        assert_eq!(of("nginx", Some("node"), 5.0), [("Node.js".into(), node.into())]);
        assert_eq!(of("nginx", Some("node"), 2.0), [("Node.js".into(), node.into())]);
        assert_eq!(of("nginx", Some("gunicorn"), 2.0), [("gunicorn".into(), "--keep-alive 65".into())]);
        let haproxy = of("nginx", Some("haproxy"), 2.0);
        assert_eq!(haproxy, [("HAProxy".into(), "timeout http-keep-alive 65s".into())]);
        let python: Vec<_> = of("nginx", Some("python3"), 2.0).into_iter().map(|(name, _)| name).collect();
        assert_eq!(python, ["gunicorn", "uvicorn"]);
    }

    #[test]
    fn an_unknown_listener_gets_what_the_time_points_to() {
        let five: Vec<_> = of("nginx", None, 5.0).into_iter().map(|(name, _)| name).collect();
        assert_eq!(five, ["Node.js", "uvicorn", "Apache httpd"]);
        assert_eq!(of("nginx", None, 11.0).len(), REMEDIES.len());
    }

    #[test]
    fn a_process_is_no_server_of_another_name() {
        assert!(!may_be("node", "gunicorn, keepalive 2"));
        assert!(may_be("node", "Node.js of older lines, keepAliveTimeout 5 s"));
        assert!(may_be("python3", "gunicorn, keepalive 2"));
        assert!(may_be("java", "Tomcat as shipped, connectionTimeout 20000"));
        assert!(may_be("envoy", "Envoy, idle_timeout 1 h"));
        assert!(may_be("docker-proxy", "gunicorn, keepalive 2"), "who knows what is behind it");
    }

    #[test]
    fn the_upstream_lies_above_the_proxy() {
        for (proxy, time, seconds) in [
            ("nginx", Some(5.0), 65),
            ("nginx", Some(60.0), 65),
            ("nginx", Some(75.0), 150),
            ("traefik", Some(60.0), 95),
            ("unknown", Some(20.0), 65),
            ("unknown", None, 65),
        ] {
            assert_eq!(above(proxy, time.map(mean).as_ref()), seconds, "{proxy} {time:?}");
        }
    }
}
