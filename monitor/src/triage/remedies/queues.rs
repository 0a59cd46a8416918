//! Room for connections that wait for accept().

use super::product::{product, runs};
use crate::triage::finding::{Change, End};

/// What the kernel allows by default since 5.4.
const BACKLOG: u64 = 4096;

/// Makes room for at least twice as many as there is now; `somaxconn` bounds what an application may ask for.
pub fn longer_queue(listener: Option<&str>, limit: u64, somaxconn: Option<u32>) -> Vec<Change> {
    let backlog = limit.saturating_mul(2).max(BACKLOG);
    let upstream = |software: &str, context: &str, directives: String| Change {
        software: software.into(),
        end: End::Upstream,
        what: "let more connections wait; first find out why they are accepted so slowly".into(),
        context: context.into(),
        directives,
    };
    let all = [
        upstream("nginx", "the listen line in server {}", format!("backlog={backlog}")),
        upstream("Node.js", "the options of server.listen({})", format!("backlog: {backlog}")),
        upstream("gunicorn", "gunicorn's command line", format!("--backlog {backlog}")),
        upstream("uvicorn", "uvicorn's command line", format!("--backlog {backlog}")),
        upstream("HAProxy", "the frontend", format!("backlog {backlog}")),
        upstream("Apache httpd", "the server's configuration", format!("ListenBackLog {backlog}")),
        upstream("Tomcat", "<Connector> in server.xml", format!("acceptCount=\"{backlog}\"")),
        upstream("Puma", "the bind line in config/puma.rb", format!("?backlog={backlog}")),
    ];
    let known = listener.and_then(product);
    let mut changes: Vec<Change> = Vec::new();
    if somaxconn.is_some_and(|somaxconn| u64::from(somaxconn) < backlog) {
        changes.push(Change {
            software: "Linux".into(),
            end: End::Host,
            what: "allow such a queue (applications are cut off at this); restart the listener afterwards"
                .into(),
            context:
                "/etc/sysctl.d/99-finwatch.conf in the listener's network namespace; then sysctl --system"
                    .into(),
            directives: format!("net.core.somaxconn = {backlog}"),
        });
    }
    let apply = |change: &Change| known.is_none_or(|known| runs(known, &change.software));
    changes.extend(all.into_iter().filter(apply));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_named_only_where_it_bounds() {
        let changes = longer_queue(Some("node"), 511, Some(4096));
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].directives, "backlog: 4096");
        let changes = longer_queue(Some("node"), 4096, Some(4096));
        assert_eq!(changes[0].directives, "net.core.somaxconn = 8192");
        assert_eq!(changes[1].directives, "backlog: 8192");
    }
}
