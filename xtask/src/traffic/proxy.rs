//! What nginx is told of one upstream: the directives of its `upstream` and of its `location` block.

use std::fmt::Write as _;

use anyhow::{Result, bail};

/// The directives toward one upstream.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    /// The directive and the scheme.
    pass: &'static str,
    address: String,
    upstream: Vec<String>,
    location: Vec<String>,
    /// Whether an nginx that keeps connections by default is left to it.
    as_it_comes: bool,
}

impl Proxy {
    /// nginx's own defaults toward that address, `ip:port`.
    pub(crate) fn to(address: impl Into<String>) -> Self {
        Self {
            pass: "proxy_pass http",
            address: address.into(),
            upstream: Vec::new(),
            location: Vec::new(),
            as_it_comes: false,
        }
    }

    /// The same by TLS.
    pub(crate) fn tls(address: impl Into<String>) -> Self {
        Self { pass: "proxy_pass https", ..Self::to(address) }
    }

    /// The same by HTTP/2.
    pub(crate) fn grpc(address: impl Into<String>) -> Self {
        Self { pass: "grpc_pass grpc", ..Self::to(address) }
    }

    /// Leaves nginx its own defaults, whichever it has.
    pub(crate) fn as_it_comes(&mut self) {
        self.as_it_comes = true;
    }

    /// Puts directives into the `upstream` block, each in place of one of that name.
    pub(crate) fn upstream(&mut self, text: &str) {
        put(&mut self.upstream, text);
    }

    /// Puts directives into the `location` block, each in place of one of that name.
    pub(crate) fn location(&mut self, text: &str) {
        put(&mut self.location, text);
    }

    /// Puts directives where a context printed by `finwatch triage` says.
    pub(crate) fn apply(&mut self, context: &str, text: &str) -> Result<()> {
        if context.starts_with(&format!("the upstream {{}} block that lists {}", self.address)) {
            self.upstream(text);
        } else if context.starts_with("the location {} with proxy_pass to that upstream {} block") {
            self.location(text);
        } else {
            bail!("triage names a place that this configuration does not have: {context}");
        }
        Ok(())
    }

    /// The same with the defaults of before 1.29.7 written out.
    fn with_older_defaults(&self) -> Self {
        let mut proxy = Self::to("");
        proxy.upstream("keepalive 0;");
        if self.pass.starts_with("proxy_pass") {
            proxy.location("proxy_http_version 1.0; proxy_set_header Connection close;");
        }
        self.upstream.iter().for_each(|directive| proxy.upstream(directive));
        self.location.iter().for_each(|directive| proxy.location(directive));
        Self { upstream: proxy.upstream, location: proxy.location, ..self.clone() }
    }

    /// What `http {}` holds for one server with these. An nginx that keeps connections by default is told what others do
    /// where nothing is said: the mistake that is played is one of theirs.
    pub(crate) fn http(proxies: &[Self], listen: &str, kept_by_default: bool) -> String {
        let mut text = String::from(
            "log_format outcome '$status $request_method $upstream_status'; access_log access.log outcome;",
        );
        let mut locations = String::new();
        for (number, proxy) in proxies.iter().enumerate() {
            let proxy =
                if kept_by_default && !proxy.as_it_comes { &proxy.with_older_defaults() } else { proxy };
            let Self { pass, address, upstream, location, .. } = proxy;
            let (upstream, location) = (upstream.join(" "), location.join(" "));
            let path = if proxies.len() == 1 { "/".into() } else { format!("/{number}/") };
            write!(text, "upstream up{number} {{ server {address} max_fails=0; {upstream} }}")
                .expect("a string");
            write!(locations, "location {path} {{ {pass}://up{number}; {location} }}").expect("a string");
        }
        text + &format!("server {{ listen {listen}; {locations} }}")
    }
}

/// The directive's name, with the header's where there are several.
fn name(directive: &str) -> Vec<&str> {
    let words = directive.split([' ', ';']);
    words.take(if directive.starts_with("proxy_set_header") { 2 } else { 1 }).collect()
}

/// One directive per semicolon; those of `proxy_set_header` are told apart by the header.
fn put(block: &mut Vec<String>, text: &str) {
    for directive in text.split_terminator(';').map(str::trim) {
        block.retain(|other| name(other) != name(directive));
        block.push(format!("{directive};"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_defaults_give_way_to_what_is_said() {
        let mut proxy = Proxy::to("127.0.0.1:9");
        proxy.location("proxy_http_version 1.1;");
        let older = proxy.with_older_defaults();
        assert_eq!(older.upstream, ["keepalive 0;"]);
        assert_eq!(older.location, ["proxy_set_header Connection close;", "proxy_http_version 1.1;"]);
        proxy.upstream("keepalive 4;");
        assert_eq!(proxy.with_older_defaults().upstream, ["keepalive 4;"]);
        assert!(Proxy::http(&[proxy], "127.0.0.1:80", false).contains("max_fails=0; keepalive 4; }"));
        let mut proxy = Proxy::to("127.0.0.1:9");
        proxy.as_it_comes();
        assert!(!Proxy::http(&[proxy], "127.0.0.1:80", true).contains("keepalive"));
    }

    #[test]
    fn a_directive_takes_the_place_of_its_like() {
        let mut proxy = Proxy::to("127.0.0.1:9");
        proxy.upstream("keepalive 2; keepalive_timeout 60s;");
        proxy.location("proxy_set_header Host a; proxy_set_header Connection close;");
        proxy
            .apply(
                "the upstream {} block that lists 127.0.0.1:9, in place of any there",
                "keepalive_timeout 1s;",
            )
            .expect("it has that block");
        proxy
            .apply(
                "the location {} with proxy_pass to that upstream {} block",
                "proxy_http_version 1.1;\nproxy_set_header Connection \"\";",
            )
            .expect("it has that block");
        assert!(proxy.apply("the upstream {} block that lists 127.0.0.2:9", "keepalive 1;").is_err());
        assert_eq!(proxy.upstream, ["keepalive 2;", "keepalive_timeout 1s;"]);
        assert_eq!(
            proxy.location,
            ["proxy_set_header Host a;", "proxy_http_version 1.1;", "proxy_set_header Connection \"\";"]
        );
    }
}
