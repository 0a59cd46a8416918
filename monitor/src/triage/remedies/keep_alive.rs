//! Keep-alive toward the upstream, and room for it.

use super::product::{product, runs};
use crate::triage::finding::{Change, End};

/// Room for idle connections that nginx 1.29.7 gives by default, and the least to name.
const POOL: u32 = 32;

fn change(software: &str, what: &str, context: String, directives: String) -> Change {
    Change { software: software.into(), end: End::Proxy, what: what.into(), context, directives }
}

fn for_proxy(proxy: &str, changes: Vec<Change>) -> Vec<Change> {
    match product(proxy) {
        Some(known) if changes.iter().any(|change| runs(known, &change.software)) => {
            changes.into_iter().filter(|change| runs(known, &change.software)).collect()
        }
        _ => changes,
    }
}

/// Turns keep-alive on in `proxy` toward `upstream`, of which `busy` connections are used at a time.
pub fn turn_on(proxy: &str, upstream: &str, busy: u32) -> Vec<Change> {
    let pool = pool(busy);
    let all = vec![
        change(
            "nginx",
            "keep idle connections (from 1.29.7 on by default; before that all three lines are needed)",
            format!("the upstream {{}} block that lists {upstream}, after any load-balancing method"),
            format!("keepalive {pool};"),
        ),
        change(
            "nginx",
            "speak HTTP/1.1 to the upstream, without Connection: close",
            "the location {} with proxy_pass to that upstream {} block".into(),
            "proxy_http_version 1.1;\nproxy_set_header Connection \"\";".into(),
        ),
        change(
            "HAProxy",
            "share idle connections between clients; remove option httpclose and http-server-close",
            format!("the backend of {upstream}"),
            "option http-keep-alive\nhttp-reuse safe".into(),
        ),
        change(
            "Apache httpd",
            "keep idle connections; remove SetEnv proxy-nokeepalive",
            format!("the ProxyPass line of {upstream}"),
            "enablereuse=on".into(),
        ),
        change(
            "Node.js",
            "keep idle connections (from 19 on by default)",
            "the options of http.request()".into(),
            "agent: new http.Agent({ keepAlive: true })".into(),
        ),
        change(
            "Go net/http",
            "keep more than 2 idle connections per host, and read each body to its end",
            "http.Transport{}, one for all requests".into(),
            format!("MaxIdleConnsPerHost: {pool},"),
        ),
        change(
            "Python",
            "keep idle connections",
            "the program: one session for all requests".into(),
            "session = requests.Session()".into(),
        ),
    ];
    for_proxy(proxy, all)
}

/// Makes room in the pool of `proxy` for as many connections as are used at a time.
pub fn larger_pool(proxy: &str, upstream: &str, busy: u32) -> Vec<Change> {
    let pool = pool(busy);
    let more = "keep as many idle connections as are busy at a time";
    let all = vec![
        change(
            "nginx",
            "keep as many idle connections, per worker process, as are busy at a time",
            format!("the upstream {{}} block that lists {upstream}, in place of the keepalive there"),
            format!("keepalive {pool};"),
        ),
        change(
            "HAProxy",
            more,
            format!("the server line of {upstream} in backend"),
            format!("pool-max-conn {pool}"),
        ),
        change(
            "Apache httpd",
            more,
            format!("the ProxyPass line of {upstream}"),
            format!("max={pool} smax={pool}"),
        ),
        change(
            "Go net/http",
            "keep more than 2 idle connections per host",
            "http.Transport{}".into(),
            format!("MaxIdleConnsPerHost: {pool},"),
        ),
        change(
            "Node.js",
            more,
            "new http.Agent({})".into(),
            format!("keepAlive: true, maxFreeSockets: {pool}"),
        ),
        change(
            "Python",
            more,
            "session.mount(\"http://\", ...)".into(),
            format!("requests.adapters.HTTPAdapter(pool_maxsize={pool})"),
        ),
    ];
    for_proxy(proxy, all)
}

fn pool(busy: u32) -> u32 {
    busy.max(POOL).checked_next_power_of_two().unwrap_or(busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_needs_three_lines_in_two_places() {
        let changes = turn_on("nginx", "10.0.0.7:8080", 3);
        let lines: Vec<&str> = changes.iter().flat_map(|change| change.directives.lines()).collect();
        assert_eq!(lines, ["keepalive 32;", "proxy_http_version 1.1;", "proxy_set_header Connection \"\";"]);
        assert_eq!(larger_pool("nginx", "10.0.0.7:8080", 100)[0].directives, "keepalive 128;");
    }

    #[test]
    fn a_proxy_without_remedy_of_its_own_gets_all() {
        assert_eq!(turn_on("envoy", "10.0.0.7:8080", 3).len(), turn_on("what", "10.0.0.7:8080", 3).len());
        assert!(larger_pool("what", "10.0.0.7:8080", u32::MAX).len() > 1);
    }
}
