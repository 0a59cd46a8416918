//! Rules with shorter times: those of deploy/ look at ten minutes, a test has one.

/// Every time span of the rules is divided by this: windows, offsets, and how long an alert is pending. Thresholds and
/// all else stay as they are.
pub(super) const BY: u32 = 20;

/// The text of a rules file with every span divided: in brackets, after `offset`, after `for:`.
pub(super) fn scaled(rules: &str) -> String {
    let lines = rules.lines().map(|line| ["[", "offset ", "for: "].iter().fold(line.to_owned(), divide));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Divides the spans that follow `before`.
fn divide(line: String, before: &&str) -> String {
    let mut parts = line.split(before);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(before);
        let digits = part.len() - part.trim_start_matches(|char: char| char.is_ascii_digit()).len();
        let (number, rest) = part.split_at(digits);
        let unit = rest.chars().next().and_then(seconds);
        match (number.parse::<u32>(), unit) {
            (Ok(number), Some(unit)) => {
                text.push_str(&format!("{}ms{}", number * unit * 1_000 / BY, &rest[1..]))
            }
            _ => text.push_str(part),
        }
    }
    text
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
        assert_eq!(scaled("le=~\"1|1[.]0\" [1w]"), "le=~\"1|1[.]0\" [30240000ms]\n");
    }
}
