//! An exposition as a strict parser reads it, with what Prometheus demands beyond the grammar.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use finwatch::export::exposition::Exporter;
use nom_openmetrics::{MetricDescriptor, MetricType, parser};

pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Debug)]
pub(crate) struct Sample {
    /// With `_bucket`, `_sum` or `_count`.
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) value: f64,
}

pub(crate) fn text(exporter: &Exporter) -> String {
    let mut out = Vec::new();
    exporter.write(&mut out).expect("a scrape");
    String::from_utf8(out).expect("UTF-8")
}

/// Parses, and panics at anything that would fail a scrape.
pub(crate) fn parse(text: &str) -> Vec<Family> {
    let (rest, families) = parser::prometheus(text).expect("the text format");
    assert_eq!(rest, "");
    let families: Vec<Family> = families.iter().map(family).collect();
    let names: HashSet<_> = families.iter().map(|family| &family.name).collect();
    assert_eq!(names.len(), families.len(), "a family stands in two places");
    let mut series = BTreeSet::new();
    for sample in families.iter().flat_map(|family| &family.samples) {
        assert!(series.insert((&sample.name, &sample.labels)), "twice: {sample:?}");
    }
    families
}

fn family(parsed: &nom_openmetrics::Family<'_>) -> Family {
    let [MetricDescriptor::Help { metric: name, help }, MetricDescriptor::Type { metric, r#type }] =
        &parsed.descriptors[..]
    else {
        panic!("not one HELP and one TYPE: {:?}", parsed.descriptors);
    };
    assert_eq!(name, metric);
    assert!(!help.is_empty(), "{name}");
    let samples: Vec<Sample> = parsed.samples.iter().map(sample).collect();
    let allowed: &[&str] = match r#type {
        MetricType::Counter => {
            assert!(name.ends_with("_total"), "{name}");
            &[""]
        }
        MetricType::Gauge => &[""],
        MetricType::Unknown("histogram") => {
            check_histograms(&samples);
            &["_bucket", "_sum", "_count"]
        }
        other => panic!("{name} is a {other:?}"),
    };
    for sample in &samples {
        let suffix = sample.name.strip_prefix(*name).unwrap_or_else(|| panic!("{sample:?} below {name}"));
        assert!(allowed.contains(&suffix), "{sample:?} below {name}");
    }
    Family { name: (*name).to_owned(), samples }
}

fn sample(parsed: &nom_openmetrics::Sample<'_>) -> Sample {
    let pairs = parsed.labels().iter().map(|label| (label.name.to_owned(), label.value.clone()));
    let labels: Labels = pairs.collect();
    assert_eq!(labels.len(), parsed.labels().len(), "a label twice: {parsed:?}");
    Sample { name: parsed.name().to_owned(), labels, value: parsed.number() }
}

/// Buckets rise to `+Inf`, which equals the count.
fn check_histograms(samples: &[Sample]) {
    let mut last: Option<(f64, f64)> = None;
    for sample in samples {
        if sample.name.ends_with("_bucket") {
            let bound = sample.labels["le"].parse().expect("a bound");
            if let Some((bound_before, count_before)) = last {
                assert!(bound > bound_before && sample.value >= count_before, "{sample:?}");
            }
            last = Some((bound, sample.value));
        } else if sample.name.ends_with("_count") {
            assert_eq!(last.take(), Some((f64::INFINITY, sample.value)), "{sample:?}");
        }
    }
}

/// The values of one family's samples, by what tells them apart.
pub(crate) fn values(families: &[Family], name: &str) -> BTreeMap<String, f64> {
    let Some(family) = families.iter().find(|family| family.name == name) else { return BTreeMap::new() };
    family
        .samples
        .iter()
        .map(|sample| {
            let labels: Vec<&str> = sample.labels.values().map(String::as_str).collect();
            (labels.join("|"), sample.value)
        })
        .collect()
}
