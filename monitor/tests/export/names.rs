//! Configured names: what prints alike is one series, and the most specific name is the one that prints.

use std::sync::Arc;

use finwatch::{
    export::exposition::Exporter,
    model::{
        labels::ProcessFilter,
        names::{NamedEnd, Names},
        source::NameSource,
    },
};
use finwatch_ebpf::wire::{Counter, KEY_EXTERNAL, PairKey};

use crate::{
    parsed::{parse, text},
    support::{Agent, Pairs, Record, levels, proxy_key, upstream_key},
};

struct Named(Arc<Names>);

impl NameSource for Named {
    fn workload(&self, _key: &PairKey, _pid: u32) -> Arc<str> {
        "".into()
    }

    fn addresses(&self) -> Arc<Names> {
        self.0.clone()
    }
}

fn exposed(records: Vec<Record>, upstreams: &[(NamedEnd, &str)], proxies: &[(&str, &str)]) -> String {
    let upstreams = upstreams.iter().map(|(end, name)| (*end, (*name).to_owned()));
    let proxies = proxies.iter().map(|(net, name)| (net.parse().expect("a network"), (*name).to_owned()));
    let names = Named(Arc::new(Names::new(upstreams, proxies)));
    let pairs = Pairs(records.into_iter().map(Some).collect());
    let exporter = Exporter::new(Arc::new(pairs), Arc::new(names), Arc::new(Agent), ProcessFilter::default());
    let text = text(&exporter.with_levels(Arc::new(levels(2)), 10));
    // A series that stands there twice fails here.
    parse(&text);
    text
}

fn opened(key: PairKey, count: u64) -> Record {
    Record::new(key).count(Counter::Opened, count)
}

fn net(text: &str) -> NamedEnd {
    NamedEnd::Net(text.parse().expect("a network"))
}

fn endpoint(text: &str) -> NamedEnd {
    NamedEnd::Endpoint(text.parse().expect("an endpoint"))
}

fn assert_opened(text: &str, labels: &str, count: u64) {
    let line = format!("finwatch_connections_opened_total{{{labels},workload=\"\"}} {count}\n");
    assert!(text.contains(&line), "{line}{text}");
}

#[test]
fn pairs_that_print_alike_are_added_up() {
    let records = vec![
        opened(proxy_key(b"nginx", "10.0.0.1", 443), 5),
        opened(proxy_key(b"nginx", "10.0.0.2", 443), 7),
        opened(proxy_key(b"nginx", "10.0.0.2", 8443), 11),
        opened(proxy_key(b"nginx", "192.0.2.1", 443), 13),
        opened(proxy_key(b"envoy", "10.0.0.1", 443), 17),
    ];
    let upstreams = [(net("10.0.0.0/24"), "checkout"), (endpoint("10.0.0.2:8443"), "admin")];
    let text = exposed(records, &upstreams, &[]);
    assert_opened(&text, r#"side="proxy",proxy="nginx",upstream="checkout""#, 12);
    assert_opened(&text, r#"side="proxy",proxy="nginx",upstream="admin""#, 11);
    assert_opened(&text, r#"side="proxy",proxy="nginx",upstream="192.0.2.1:443""#, 13);
    assert_opened(&text, r#"side="proxy",proxy="envoy",upstream="checkout""#, 17);
    assert_eq!(text.matches("\nfinwatch_connections_opened_total{").count(), 4);
}

#[test]
fn proxies_are_named_where_connections_are_accepted() {
    let mut external = upstream_key("::", "10.0.0.1", 443);
    external.flags = KEY_EXTERNAL;
    let records = vec![
        opened(upstream_key("10.1.0.1", "10.0.0.1", 443), 2),
        opened(upstream_key("10.1.0.2", "10.0.0.1", 443), 3),
        opened(upstream_key("10.2.0.1", "10.0.0.1", 443), 5),
        opened(external, 7),
        opened(proxy_key(b"nginx", "10.1.0.1", 443), 11),
    ];
    let text = exposed(records, &[], &[("10.1.0.0/16", "edge"), ("0.0.0.0/0", "inside"), ("::/0", "six")]);
    assert_opened(&text, r#"side="upstream",proxy="edge",upstream="10.0.0.1:443""#, 5);
    assert_opened(&text, r#"side="upstream",proxy="inside",upstream="10.0.0.1:443""#, 5);
    assert_opened(&text, r#"side="upstream",proxy="external",upstream="10.0.0.1:443""#, 7);
    assert_opened(&text, r#"side="proxy",proxy="nginx",upstream="10.1.0.1:443""#, 11);
}

/// Ports are held toward addresses, queues belong to whatever listens under the name.
#[test]
fn queues_have_names_and_ports_have_addresses() {
    let text = exposed(Vec::new(), &[(net("::/0"), "here"), (net("0.0.0.0/0"), "there")], &[]);
    assert!(
        text.contains("\nfinwatch_accept_queue_limit{netns=\"host\",upstream=\"here\",workload=\"\"} 256\n"),
        "{text}"
    );
    assert!(
        text.contains(
            "finwatch_ephemeral_ports_used{netns=\"host\",src=\"10.0.0.9\",upstream=\"10.0.0.1:443\"} 5\n"
        ),
        "{text}"
    );
}
