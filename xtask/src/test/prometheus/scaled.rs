//! Rules with shorter times: those of deploy/ look at ten minutes, a test has one.

/// Every time span of the rules is divided by this: windows, offsets, and how long an alert is pending. Thresholds and
/// all else stay as they are.
pub(super) const BY: u32 = 20;

/// The text of a rules file with every span divided: in brackets, after `offset`, after `for:`.
pub(super) fn scaled(rules: &str) -> String {
    ["[", "offset ", "for: "].iter().fold(rules.to_owned(), |text, before| divide(&text, before))
}

/// Divides the spans that follow `before`.
fn divide(text: &str, before: &str) -> String {
    let mut parts = text.split(before);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + before + &divided(part).unwrap_or_else(|| part.to_owned()))
}

/// The same with the span that it begins with divided, if it does.
fn divided(part: &str) -> Option<String> {
    let digits = part.find(|char: char| !char.is_ascii_digit())?;
    let (number, rest) = part.split_at(digits);
    let unit = seconds(rest.chars().next()?)?;
    let span = number.parse::<u32>().ok()? * unit * 1_000 / BY;
    Some(format!("{span}ms{}", &rest[1..]))
}

fn seconds(unit: char) -> Option<u32> {
    Some(match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_divided_and_nothing_else() {
        let rules =
            "expr: rate(a:increase10m{x=\"5m\"}[10m] offset 5m) > 600\nfor: 1m\nsummary: in 10 minutes, 5m\n";
        let scaled = scaled(rules);
        assert_eq!(
            scaled,
            "expr: rate(a:increase10m{x=\"5m\"}[30000ms] offset 15000ms) > 600\nfor: 3000ms\n\
             summary: in 10 minutes, 5m\n"
        );
    }

    #[test]
    fn what_is_no_span_stays() {
        assert_eq!(scaled("le=~\"1|1[.]0\" [1w]"), "le=~\"1|1[.]0\" [30240000ms]");
    }
}
