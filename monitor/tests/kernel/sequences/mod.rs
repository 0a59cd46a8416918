//! Every sequence, by what it is about.

pub(crate) mod after_close;
pub(crate) mod close;
pub(crate) mod connect;
pub(crate) mod real;
pub(crate) mod resets;
pub(crate) mod stale;
pub(crate) mod timeouts;

use crate::sequence::Sequence;

/// All tables, in the order of the document.
pub(crate) fn all() -> impl Iterator<Item = &'static Sequence> {
    let tables = [
        connect::TABLE,
        close::TABLE,
        stale::TABLE,
        resets::TABLE,
        after_close::TABLE,
        timeouts::TABLE,
        real::TABLE,
    ];
    tables.into_iter().flatten()
}
