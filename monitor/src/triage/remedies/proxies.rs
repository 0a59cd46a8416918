//! The proxy's idle timeout below the upstream's.

use super::{
    before,
    product::{product, runs},
    time,
};
use crate::triage::finding::{Change, End};

/// What one proxy needs.
struct Remedy {
    software: &'static str,
    what: &'static str,
    /// Holds `{upstream}` where the address belongs.
    context: &'static str,
    /// The text for a timeout in milliseconds; `None` where the product cannot.
    directives: fn(u64) -> Option<String>,
}

const SOONER: &str = "give up idle connections before they are closed or forgotten";

static REMEDIES: [Remedy; 8] = [
    Remedy {
        software: "nginx",
        what: SOONER,
        context: "the upstream {} block that lists {upstream}, in place of any keepalive_timeout there (the one in \
                  http {} or server {} is for clients)",
        directives: |ms| Some(format!("keepalive_timeout {};", time(ms))),
    },
    Remedy {
        software: "HAProxy",
        what: "give up idle connections sooner; half of them per interval, so a few stay longer: pool-max-conn 0 \
               in its place keeps none",
        context: "the server line of {upstream} in backend",
        // After so many intervals hardly any connection is left.
        directives: |ms| Some(format!("pool-purge-delay {}", time((ms / 4).max(100)))),
    },
    Remedy {
        software: "Envoy",
        what: SOONER,
        context: "the cluster of {upstream}: typed_extension_protocol_options, \
                  envoy.extensions.upstreams.http.v3.HttpProtocolOptions, beside explicit_http_config",
        directives: |ms| {
            Some(format!("common_http_protocol_options:\n  idle_timeout: {}.{:03}s", ms / 1_000, ms % 1_000))
        },
    },
    Remedy {
        software: "Apache httpd",
        what: SOONER,
        context: "the ProxyPass or BalancerMember line of {upstream}",
        directives: |ms| (ms >= 1_000).then(|| format!("ttl={}", ms / 1_000)),
    },
    Remedy {
        software: "Caddy",
        what: SOONER,
        context: "reverse_proxy {upstream}, transport http {}",
        directives: |ms| Some(format!("keepalive {}", time(ms))),
    },
    Remedy {
        software: "Traefik",
        what: SOONER,
        context: "serversTransports.<name>.forwardingTimeouts of the service",
        directives: |ms| Some(format!("idleConnTimeout: {}", time(ms))),
    },
    Remedy {
        software: "Node.js",
        what: "give up idle connections before they are closed or forgotten (fetch and undici)",
        context: "undici's setGlobalDispatcher(new Agent({}))",
        directives: |ms| Some(format!("keepAliveTimeout: {ms}, keepAliveMaxTimeout: {ms}")),
    },
    Remedy {
        software: "Go net/http",
        what: SOONER,
        context: "http.Transport{}",
        directives: |ms| Some(format!("IdleConnTimeout: {ms} * time.Millisecond,")),
    },
];

/// Makes `proxy` give up idle connections before an upstream that closes them after `earliest` seconds. Remedies for
/// every proxy known where the process does not tell which it is.
pub fn close_sooner(proxy: &str, upstream: &str, earliest: f64) -> Vec<Change> {
    let ms = before(earliest);
    let known = product(proxy);
    let apply = |remedy: &&Remedy| known.is_none_or(|known| runs(known, remedy.software));
    let change = |remedy: &Remedy| {
        Some(Change {
            software: remedy.software.into(),
            end: End::Proxy,
            what: remedy.what.into(),
            context: remedy.context.replace("{upstream}", upstream),
            directives: (remedy.directives)(ms)?,
        })
    };
    REMEDIES.iter().filter(apply).filter_map(change).collect()
}

/// Makes `proxy` send a request again that met a close: the remedy where no timeout is to blame. nginx does so by default
/// for what may be repeated.
pub fn send_again(proxy: &str, upstream: &str) -> Vec<Change> {
    let what = "send a request again that met a close; for requests that may be repeated";
    let change = |software: &str, context: String, directives: &str| Change {
        software: software.into(),
        end: End::Proxy,
        what: what.into(),
        context,
        directives: directives.into(),
    };
    let all = [
        change(
            "HAProxy",
            format!("the backend of {upstream}, with retries above 0"),
            "retry-on conn-failure empty-response",
        ),
        change(
            "Envoy",
            format!("the route to the cluster of {upstream}"),
            "retry_policy:\n  retry_on: reset,connect-failure",
        ),
    ];
    let known = product(proxy);
    all.into_iter().filter(|change| known.is_none_or(|known| runs(known, &change.software))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directives(proxy: &str, earliest: f64) -> Vec<(String, String)> {
        let changes = close_sooner(proxy, "10.0.0.7:8080", earliest).into_iter();
        changes.map(|change| (change.software, change.directives)).collect()
    }

    #[test]
    fn a_known_proxy_gets_its_own_directives_only() {
        assert_eq!(directives("nginx", 5.0), [("nginx".into(), "keepalive_timeout 4s;".into())]);
        assert_eq!(directives("openresty", 1.5), [("nginx".into(), "keepalive_timeout 700ms;".into())]);
        assert_eq!(directives("envoy", 1.5)[0].1, "common_http_protocol_options:\n  idle_timeout: 0.700s");
        assert_eq!(directives("wrk:worker_0", 5.0)[0].0, "Envoy");
        assert_eq!(directives("haproxy", 5.0)[0].1, "pool-purge-delay 1s");
        assert_eq!(directives("haproxy", 5.0).len(), 1);
    }

    #[test]
    fn an_unknown_proxy_gets_all_that_can() {
        assert_eq!(directives("my-proxy", 5.0).len(), REMEDIES.len());
        assert_eq!(directives("my-proxy", 1.5).len(), REMEDIES.len() - 1, "Apache counts in seconds");
    }
}
