//! Writes a family of pairs line by line. A pair's labels come escaped, so that hundreds of thousands of lines are little more
//! than copied.

use std::{
    fmt::{Display, Write as _},
    io::{self, Write},
};

use crate::model::families::PREFIX;

/// Bytes that are handed on at once.
const ENOUGH: usize = 16 * 1024;

/// One family on its way out. HELP and TYPE go before the first sample, so that a family without samples leaves no trace.
pub(super) struct Lines<'w, W> {
    out: &'w mut W,
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    begun: bool,
    text: String,
}

impl<'w, W: Write> Lines<'w, W> {
    /// A family by its name without prefix.
    pub(super) fn new(out: &'w mut W, name: &'static str, help: &'static str, kind: &'static str) -> Self {
        Self { out, name, help, kind, begun: false, text: String::new() }
    }

    /// Writes a sample with those of the labels that there are.
    pub(super) fn sample(
        &mut self,
        suffix: &str,
        labels: &[Option<&str>],
        value: impl Display,
    ) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            let (name, kind, help) = (self.name, self.kind, escaped(self.help));
            let begun = format!("# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n");
            self.text.push_str(&begun);
        }
        self.text.push_str(PREFIX);
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut before = '{';
        for label in labels.iter().flatten() {
            self.text.push(before);
            self.text.push_str(label);
            before = ',';
        }
        self.text.push_str("} ");
        // A string takes everything.
        let _ = writeln!(self.text, "{value}");
        if self.text.len() < ENOUGH { Ok(()) } else { self.hand_on() }
    }

    /// Hands on what is left.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.hand_on()
    }

    fn hand_on(&mut self) -> io::Result<()> {
        let written = self.out.write_all(self.text.as_bytes());
        self.text.clear();
        written
    }
}

/// A label as it is written.
pub(super) fn label_text(name: &str, value: &str) -> String {
    let value = escaped(value).replace('"', "\\\"");
    format!("{name}=\"{value}\"")
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_follow_one_head() {
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out, "f_total", "a \\ help\ntext", "counter");
        let labels = label_text("a", "x\\y\"z\n");
        lines.sample("", &[Some(&labels), None], 1).expect("a write");
        lines.sample("_sum", &[Some(&labels), Some("le=\"0.5\"")], 2.5).expect("a write");
        lines.end().expect("a write");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "# HELP finwatch_f_total a \\\\ help\\ntext\n# TYPE finwatch_f_total counter\n\
             finwatch_f_total{a=\"x\\\\y\\\"z\\n\"} 1\n\
             finwatch_f_total_sum{a=\"x\\\\y\\\"z\\n\",le=\"0.5\"} 2.5\n"
        );
    }

    #[test]
    fn a_family_without_samples_is_absent() {
        let mut out = Vec::new();
        Lines::new(&mut out, "f", "help", "gauge").end().expect("a write");
        assert!(out.is_empty());
    }

    #[test]
    fn much_is_handed_on_meanwhile() {
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out, "f", "help", "gauge");
        for value in 0..10_000 {
            lines.sample("", &[Some("a=\"b\"")], value).expect("a write");
            assert!(lines.text.len() < ENOUGH);
        }
        lines.end().expect("a write");
        assert_eq!(String::from_utf8(out).expect("text").lines().count(), 10_002);
    }
}
