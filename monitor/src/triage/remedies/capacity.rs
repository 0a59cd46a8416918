//! Room for more requests at a time.

use super::product::{product, runs};
use crate::triage::finding::{Change, End};

/// Lets the upstream answer at least `busy` requests at a time, and the proxy hold back what is more.
pub fn more_at_a_time(proxy: &str, listener: Option<&str>, upstream: &str, busy: u32) -> Vec<Change> {
    let room = busy.checked_next_power_of_two().unwrap_or(busy);
    let change = |software: &str, end: End, context: String, directives: String| Change {
        software: software.into(),
        end,
        what: match end {
            End::Proxy => "hold requests back beyond this many, so that the upstream is not drowned".into(),
            _ => "answer more requests at a time; first find out what they wait for".into(),
        },
        context,
        directives,
    };
    let answering = |software: &str, context: &str, directives: String| {
        change(software, End::Upstream, context.into(), directives)
    };
    let upstreams = [
        answering(
            "gunicorn",
            "gunicorn's command line, beside --workers",
            format!("--worker-class gthread --threads {room}"),
        ),
        answering("PHP-FPM", "the pool's configuration", format!("pm.max_children = {room}")),
        answering("Apache httpd", "the MPM's configuration", format!("MaxRequestWorkers {room}")),
        answering("Tomcat", "<Connector> in server.xml", format!("maxThreads=\"{room}\"")),
        answering("Spring Boot", "application.properties", format!("server.tomcat.threads.max={room}")),
        answering("Puma", "config/puma.rb", format!("threads 5, {room}")),
    ];
    let proxies = [change(
        "HAProxy",
        End::Proxy,
        format!("the server line of {upstream} in backend"),
        format!("maxconn {busy}"),
    )];
    // Of an event loop (Node.js, uvicorn) there is nothing to set: a known listener without a remedy gets none.
    let known = |process: Option<&str>, change: &Change| {
        process.and_then(product).is_none_or(|known| runs(known, &change.software))
    };
    let upstreams = upstreams.into_iter().filter(|change| known(listener, change));
    upstreams.chain(proxies.into_iter().filter(|change| known(Some(proxy), change))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn software(proxy: &str, listener: Option<&str>) -> Vec<String> {
        let changes = more_at_a_time(proxy, listener, "10.0.0.7:80", 40);
        changes.into_iter().map(|change| change.software).collect()
    }

    #[test]
    fn what_is_known_to_run_gets_its_own() {
        assert_eq!(software("haproxy", Some("gunicorn")), ["gunicorn", "HAProxy"]);
        assert_eq!(software("nginx", Some("php-fpm8.2")), ["PHP-FPM"]);
        assert!(software("nginx", Some("node")).is_empty(), "an event loop has no such limit");
        assert_eq!(software("nginx", None).len(), 6);
        let changes = more_at_a_time("nginx", Some("puma"), "10.0.0.7:80", 40);
        assert_eq!(changes[0].directives, "threads 5, 64");
    }
}
