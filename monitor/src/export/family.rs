//! Writes metric families a few samples at a time.

use std::io::{self, Write};

use prometheus::{
    Encoder as _, TextEncoder,
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

/// Samples that are in memory at once.
pub(super) const BATCH: usize = 32;

/// One family on its way out. The samples come in any number of batches; HELP and TYPE go before the first, so that
/// a family without samples leaves no trace.
pub(super) struct FamilyWriter<'w, W> {
    out: &'w mut W,
    family: MetricFamily,
    begun: bool,
    text: Vec<u8>,
}

impl<'w, W: Write> FamilyWriter<'w, W> {
    pub(super) fn new(out: &'w mut W, name: String, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name);
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self { out, family, begun: false, text: Vec::new() }
    }

    /// Writes the samples and leaves them with the caller.
    pub(super) fn write(&mut self, batch: &mut Vec<Metric>) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.family.set_metric(std::mem::take(batch));
        self.text.clear();
        let encoded = TextEncoder.encode(std::slice::from_ref(&self.family), &mut self.text);
        *batch = self.family.take_metric();
        encoded.map_err(io::Error::other)?;
        let repeated = if self.begun { first_line(&self.text) } else { 0 };
        if !self.begun {
            self.begun = true;
            // From here on the encoder begins with exactly one line: TYPE, which is out already.
            self.family.set_help(String::new());
        }
        self.out.write_all(&self.text[repeated..])
    }
}

fn first_line(text: &[u8]) -> usize {
    text.iter().position(|&byte| byte == b'\n').map_or(text.len(), |end| end + 1)
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

    fn samples(from: u8, to: u8) -> Vec<Metric> {
        (from..to)
            .map(|n| {
                let mut metric = Metric::from_label(vec![label("n", &n.to_string())]);
                set_counter(&mut metric, f64::from(n));
                metric
            })
            .collect()
    }

    #[test]
    fn batches_read_like_one() {
        let mut out = Vec::new();
        let mut family =
            FamilyWriter::new(&mut out, "f_total".into(), "a \\ help\ntext", MetricType::COUNTER);
        family.write(&mut Vec::new()).expect("a write");
        family.write(&mut samples(0, 2)).expect("a write");
        family.write(&mut samples(2, 3)).expect("a write");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "# HELP f_total a \\\\ help\\ntext\n# TYPE f_total counter\n\
             f_total{n=\"0\"} 0\nf_total{n=\"1\"} 1\nf_total{n=\"2\"} 2\n"
        );
    }

    #[test]
    fn a_family_without_samples_is_absent() {
        let mut out = Vec::new();
        let mut family = FamilyWriter::new(&mut out, "f".into(), "help", MetricType::GAUGE);
        family.write(&mut Vec::new()).expect("a write");
        assert!(out.is_empty());
    }
}
