//! Which key does what: one table for the footer, the help and the program.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// One up or down.
    Move(isize),
    /// The first.
    First,
    /// The last.
    Last,
    /// Sort by the next column, or the one before.
    Sort(isize),
    /// Sort the other way round.
    Reverse,
    /// Show the selected pair.
    Open,
    /// Type a filter.
    Filter,
    /// Stand still, or go on.
    Pause,
    /// Show the keys.
    Help,
    /// Back, and from the table out.
    Back,
    /// Out.
    Quit,
}

/// Keys as they are written, and what they do.
pub const KEYS: [(&str, &str); 9] = [
    ("q Ctrl-C", "quit"),
    ("Esc", "back, and quit from the table"),
    ("Up Down k j", "move; also PgUp PgDn Home End"),
    ("Left Right", "sort by another column"),
    ("r", "reverse the order"),
    ("Enter", "show the selected pair"),
    ("/", "show only pairs with this text; Enter keeps it, Esc drops it"),
    ("p Space", "pause; counting goes on"),
    ("?", "this help"),
];

/// Rows that a page moves.
const PAGE: isize = 10;

/// What a key asks for outside of the filter's line.
pub fn action(key: &KeyEvent) -> Option<Action> {
    if is_interrupt(key) {
        return Some(Action::Quit);
    }
    Some(match key.code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Esc => Action::Back,
        KeyCode::Up | KeyCode::Char('k') => Action::Move(-1),
        KeyCode::Down | KeyCode::Char('j') => Action::Move(1),
        KeyCode::PageUp => Action::Move(-PAGE),
        KeyCode::PageDown => Action::Move(PAGE),
        KeyCode::Home => Action::First,
        KeyCode::End => Action::Last,
        KeyCode::Left => Action::Sort(-1),
        KeyCode::Right => Action::Sort(1),
        KeyCode::Char('r') => Action::Reverse,
        KeyCode::Enter => Action::Open,
        KeyCode::Char('/') => Action::Filter,
        KeyCode::Char('p' | ' ') => Action::Pause,
        KeyCode::Char('?') => Action::Help,
        _ => return None,
    })
}

/// Ctrl-C, which a terminal in raw mode hands over as a key.
pub fn is_interrupt(key: &KeyEvent) -> bool {
    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}
