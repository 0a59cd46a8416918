//! What everything that is printed must be.

use std::error::Error;

use finwatch::model::labels::is_harmful;

/// Lines of text that no terminal obeys.
pub(crate) fn check_text(text: &str) {
    for line in text.lines() {
        assert!(!line.contains(is_harmful), "{line:?}");
    }
}

/// One line that says something.
pub(crate) fn check_error(error: &dyn Error) {
    let sentence = error.to_string();
    assert!(!sentence.trim().is_empty(), "{error:?}");
    assert!(!sentence.contains('\n'), "{sentence:?}");
    check_text(&sentence);
}
