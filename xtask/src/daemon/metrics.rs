//! A scrape: the Prometheus text format, as far as counters and histograms need it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};

/// How long a scrape may take.
const LIMIT: Duration = Duration::from_secs(10);

/// One line of a scrape.
#[derive(Debug, PartialEq)]
pub(crate) struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: String,
}

impl Sample {
    /// A label's value, empty when it is absent: what Prometheus makes of it.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// A counter's value.
    pub(crate) fn count(&self) -> Result<u64> {
        self.value.parse().with_context(|| format!("{} is no whole number: {}", self.name, self.value))
    }

    /// Any value.
    pub(crate) fn number(&self) -> Result<f64> {
        self.value.parse().with_context(|| format!("{} is no number: {}", self.name, self.value))
    }

    fn is(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.name == name && labels.iter().all(|(label, value)| self.label(label) == *value)
    }
}

/// All lines of a scrape.
#[derive(Debug)]
pub(crate) struct Samples(Vec<Sample>);

impl Samples {
    /// Scrapes `url`.
    pub(crate) fn scrape(url: &str) -> Result<Self> {
        Self::parse(&get(url)?)
    }

    /// Reads the text format.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| sample(line).with_context(|| format!("no sample: {line}")))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Those of that name that have these labels.
    pub(crate) fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| sample.is(name, labels))
    }

    /// The sum of the counters of that name that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        self.matching(name, labels).map(Sample::count).sum()
    }
}

/// The body of a successful answer.
pub(crate) fn get(url: &str) -> Result<String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(LIMIT)).build();
    let mut answer =
        ureq::Agent::new_with_config(config).get(url).call().with_context(|| format!("GET {url}"))?;
    let body = answer.body_mut().with_config().limit(256 << 20);
    body.read_to_string().with_context(|| format!("reading {url}"))
}

/// `name{label="value",...} value [timestamp]`.
fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inner) => labels(inner)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next().context("no value")?;
    Ok(Sample { name: name.to_owned(), labels, value: value.to_owned() })
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"").context("a label without a value")?;
        let (value, after) = quoted_value(quoted)?;
        ensure!(labels.insert(name.to_owned(), value).is_none(), "label {name} twice");
        rest = after;
    }
}

/// A label's value up to its closing quote, and what follows it.
fn quoted_value(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next().context("a lone backslash")?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    anyhow::bail!("a label's value without an end")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
# HELP a_total Things.
# TYPE a_total counter
a_total{side="proxy",proxy="odd \"name\"\n\\}",upstream="127.0.0.1:1"} 3
a_total{side="proxy",upstream="127.0.0.1:2"} 4 1700000000
plain 5
ratio 0.5
"#;

    #[test]
    fn counters_are_summed_by_label() {
        let samples = Samples::parse(TEXT).expect("TEXT is well-formed");
        assert_eq!(samples.sum("a_total", &[("side", "proxy")]).expect("whole numbers"), 7);
        assert_eq!(samples.sum("a_total", &[("upstream", "127.0.0.1:2")]).expect("whole numbers"), 4);
        assert_eq!(samples.sum("plain", &[]).expect("whole numbers"), 5);
        assert_eq!(samples.sum("absent", &[]).expect("nothing to add"), 0);
        assert!(samples.sum("ratio", &[]).is_err());
    }

    #[test]
    fn escapes_are_undone() {
        let samples = Samples::parse(TEXT).expect("TEXT is well-formed");
        let odd = samples.matching("a_total", &[("upstream", "127.0.0.1:1")]).next().expect("it is in TEXT");
        assert_eq!(odd.label("proxy"), "odd \"name\"\n\\}");
        assert_eq!(odd.label("workload"), "");
    }

    #[test]
    fn what_is_no_sample_is_refused() {
        for bad in ["name", "name{a=\"b\" 1", "name{a=\"b\",a=\"c\"} 1", "name{a} 1"] {
            assert!(Samples::parse(bad).is_err(), "{bad}");
        }
    }
}
