//! What processes call themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use finwatch::{
    export::exposition::Exporter,
    model::{
        labels::{ProcessFilter, groups},
        names::Names,
        source::NameSource,
        workload::workload,
    },
};
use finwatch_ebpf::wire::{Counter, PairKey};

use crate::{
    input::Input,
    parsed,
    printed::check_text,
    support::{Agent, Pairs, Record, levels},
};

/// Pairs that are exposed together.
const PAIRS: u8 = 8;
/// A family of which every pair has a series.
const FAMILY: &str = "finwatch_connections_opened_total";

/// Every pair is of one control group.
pub(crate) struct Group(pub(crate) Arc<str>);

impl NameSource for Group {
    fn workload(&self, _key: &PairKey, _pid: u32) -> Arc<str> {
        self.0.clone()
    }

    fn addresses(&self) -> Arc<Names> {
        Arc::default()
    }
}

/// Names of processes and control groups: an independent parser reads the labels that went in, as many series as there
/// are different ones, and nothing else.
pub fn labels(data: &[u8]) {
    let mut input = Input::new(data);
    let keys: Vec<PairKey> = input.records(PAIRS);
    let slots = u32::from(PAIRS).min(u32::try_from(keys.len()).expect("few"));
    let records = keys.into_iter().map(|key| Some(Record::new(key).count(Counter::Opened, 7)));
    let pairs = Arc::new(Pairs(records.collect()));
    let names = Arc::new(Group(workload(&input.text()).into()));
    let filter = ProcessFilter::default();
    let wanted: BTreeSet<parsed::Labels> = groups(&*pairs, &*names, &filter)
        .into_iter()
        .map(|group| {
            let labels = group.labels;
            let side = labels.side.name().to_owned();
            BTreeMap::from([
                ("side".to_owned(), side),
                ("proxy".to_owned(), labels.proxy),
                ("upstream".to_owned(), labels.upstream),
                ("workload".to_owned(), labels.workload),
            ])
        })
        .collect();
    let exporter = Exporter::new(pairs, names, Arc::new(Agent), filter);
    let text = parsed::text(&exporter.with_levels(Arc::new(levels(slots)), 10));
    check_text(&text);
    let families = parsed::parse(&text);
    let opened = families.iter().find(|family| family.name == FAMILY);
    let samples = opened.map_or(&[][..], |family| &family.samples);
    let have: BTreeSet<_> = samples.iter().map(|sample| sample.labels.clone()).collect();
    assert_eq!(have, wanted);
    assert_eq!(have.len(), samples.len());
    assert!(
        families
            .iter()
            .all(|family| family.name.starts_with("finwatch_") || family.name.starts_with("process_"))
    );
}
