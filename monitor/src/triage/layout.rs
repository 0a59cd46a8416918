//! Text within a width: wrapped, shortened in the middle, free of what terminals obey.

use textwrap::{Options, WordSplitter};
use unicode_width::UnicodeWidthStr;

use crate::model::labels::harmless;

/// Takes the place of what is left out.
const ELLIPSIS: char = '…';

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text in at most so many columns, its middle left out where it is longer. No number is cut: what is left of one
/// would be another.
pub(super) fn shorten(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(1);
    let chars: Vec<char> = text.chars().collect();
    let fits = |part: &[char], columns: usize| width(&part.iter().collect::<String>()) <= columns;
    let mut head = (0..chars.len()).rev().find(|&end| fits(&chars[..end], room.div_ceil(2))).unwrap_or(0);
    while head > 0 && cuts_number(&chars, head) {
        head -= 1;
    }
    let left = room - width(&chars[..head].iter().collect::<String>());
    let mut tail = (head..=chars.len()).find(|&start| fits(&chars[start..], left)).unwrap_or(chars.len());
    while tail < chars.len() && cuts_number(&chars, tail) {
        tail += 1;
    }
    let middle = (columns > 0).then_some(ELLIPSIS);
    chars[..head].iter().copied().chain(middle).chain(chars[tail..].iter().copied()).collect()
}

/// Whether a cut at `at` would divide a run of letters and digits that holds a digit.
fn cuts_number(chars: &[char], at: usize) -> bool {
    let inside = |c: &&char| c.is_alphanumeric();
    let before = chars[..at].iter().rev().take_while(inside);
    let after = chars[at..].iter().take_while(inside);
    let divides = before.clone().next().is_some() && after.clone().next().is_some();
    divides && before.chain(after).any(char::is_ascii_digit)
}

/// The text in lines of at most `columns`, the first after `first`, the others after `rest`.
pub(super) fn wrapped(text: &str, columns: usize, first: &str, rest: &str) -> Vec<String> {
    let room = columns.saturating_sub(width(first).max(width(rest))).max(1);
    let words: Vec<String> = harmless(text).split(' ').map(|word| shorten(word, room)).collect();
    let options = Options::new(columns)
        .initial_indent(first)
        .subsequent_indent(rest)
        .word_splitter(WordSplitter::NoHyphenation)
        .break_words(false);
    textwrap::wrap(&words.join(" "), options).into_iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_middle_goes_and_numbers_stay_whole() {
        for (text, columns, short) in [
            ("nginx", 5, "nginx"),
            ("a-very-long-process-name", 11, "a-ver…-name"),
            ("payment-gateway -> 10.20.30.40:8443", 22, "payment-gat…30.40:8443"),
            ("[2001:db8:85a3::8a2e:370:7334]:8080", 20, "[2001:db8:…]:8080"),
            ("12345678901234567890", 10, "…"),
        ] {
            let shortened = shorten(text, columns);
            assert!(width(&shortened) <= columns, "{shortened}");
            assert_eq!(shortened, short);
        }
    }

    proptest! {
        #[test]
        fn lines_keep_to_the_width(text in "\\PC{0,200}|[a-z0-9:. \u{1b}\u{200d}é漢]{0,200}", columns in 20..100_usize) {
            for line in wrapped(&text, columns, "  - ", "    ") {
                prop_assert!(width(&line) <= columns, "{:?}", line);
            }
            prop_assert!(width(&shorten(&text, columns)) <= columns);
        }
    }
}
