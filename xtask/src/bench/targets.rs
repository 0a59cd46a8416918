//! What finwatch may cost, and whether it does. Pure: figures in, a table out.

use serde::Serialize;

use super::figure::table;

/// Which side of its bound a figure is to be on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// A bound and what was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) bound: Bound,
    pub(crate) unit: &'static str,
    pub(crate) digits: usize,
    /// `None` where it could not be: the peer is not installed.
    pub(crate) measured: Option<f64>,
}

impl Target {
    fn verdict(&self) -> &'static str {
        let Some(measured) = self.measured else { return "not measured" };
        let met = match self.bound {
            Bound::AtMost(bound) => measured <= bound,
            Bound::AtLeast(bound) => measured >= bound,
        };
        if met { "met" } else { "**missed**" }
    }

    fn row(&self) -> Vec<String> {
        let Self { unit, digits, .. } = self;
        let number = |number: f64| format!("{number:.digits$}{unit}");
        let bound = match self.bound {
            Bound::AtMost(bound) => format!("at most {}", number(bound)),
            Bound::AtLeast(bound) => format!("at least {}", number(bound)),
        };
        let measured = self.measured.map_or_else(|| "-".to_owned(), number);
        vec![self.what.clone(), bound, measured, self.verdict().to_owned()]
    }
}

/// A Markdown table.
pub(crate) fn judged(targets: &[Target]) -> String {
    table(&["", "target", "measured", ""], targets.iter().map(Target::row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(bound: Bound, measured: Option<f64>) -> Target {
        Target { what: "what".to_owned(), bound, unit: " ms", digits: 1, measured }
    }

    #[test]
    fn bounds_hold_both_ways() {
        assert_eq!(target(Bound::AtMost(2.0), Some(2.0)).verdict(), "met");
        assert_eq!(target(Bound::AtMost(2.0), Some(2.1)).verdict(), "**missed**");
        assert_eq!(target(Bound::AtLeast(2.0), Some(2.0)).verdict(), "met");
        assert_eq!(target(Bound::AtLeast(2.0), Some(1.9)).verdict(), "**missed**");
        assert_eq!(target(Bound::AtLeast(2.0), None).verdict(), "not measured");
    }

    #[test]
    fn a_row_tells_bound_and_figure() {
        let text = judged(&[target(Bound::AtMost(2.0), Some(2.25))]);
        assert!(text.contains("| what | at most 2.0 ms | 2.2 ms | **missed** |"), "{text}");
    }
}
