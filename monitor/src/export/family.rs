//! Writes a family of a few samples.

use std::io::{self, Write};

use prometheus::{
    Encoder as _, TextEncoder,
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

/// Writes the family; one without samples leaves no trace.
pub(super) fn write(
    out: &mut impl Write,
    name: String,
    help: &str,
    kind: MetricType,
    samples: Vec<Metric>,
) -> io::Result<()> {
    if samples.is_empty() {
        return Ok(());
    }
    let mut family = MetricFamily::default();
    family.set_name(name);
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(samples);
    let mut text = Vec::new();
    TextEncoder.encode(&[family], &mut text).map_err(io::Error::other)?;
    out.write_all(&text)
}

pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

pub(super) fn set_counter(metric: &mut Metric, value: f64) {
    let mut counter = Counter::default();
    counter.set_value(value);
    metric.set_counter(counter);
}

pub(super) fn set_gauge(metric: &mut Metric, value: f64) {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_without_samples_is_absent() {
        let mut out = Vec::new();
        write(&mut out, "f".into(), "help", MetricType::GAUGE, Vec::new()).expect("a write");
        assert!(out.is_empty());
    }
}
