//! The screen at three sizes, as text.

use crossterm::event::KeyCode;
use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::top::state::tests::{press, screen};

fn drawn(state: &State, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal of memory");
    terminal.draw(|frame| draw(frame, state, false)).expect("it draws");
    terminal.backend().to_string()
}

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (40, 10)];

#[test]
fn the_table() {
    for size in SIZES {
        insta::assert_snapshot!(format!("table_{}x{}", size.0, size.1), drawn(&screen(), size));
    }
}

#[test]
fn a_pair() {
    let mut state = screen();
    press(&mut state, &[KeyCode::Enter]);
    for size in SIZES {
        insta::assert_snapshot!(format!("pair_{}x{}", size.0, size.1), drawn(&state, size));
    }
}

#[test]
fn the_help_names_every_key() {
    let mut state = screen();
    press(&mut state, &[KeyCode::Char('?')]);
    let text = drawn(&state, (80, 24));
    for (key, does) in KEYS {
        assert!(text.contains(key) && text.contains(does), "{key}: {text}");
    }
}

#[test]
fn what_is_unusual_stands_in_the_first_line() {
    let mut state = screen();
    state.fail("daemon gone, retrying".into(), true);
    press(&mut state, &[KeyCode::Char('p')]);
    let text = drawn(&state, (80, 24));
    let first = text.lines().next().expect("lines");
    assert!(first.contains("daemon gone, retrying") && first.contains("PAUSED"), "{text}");
}

#[test]
fn no_size_is_too_small() {
    let mut state = screen();
    for keys in [&[][..], &[KeyCode::Enter], &[KeyCode::Esc, KeyCode::Char('?')]] {
        press(&mut state, keys);
        for size in [(1, 1), (2, 30), (200, 2), (10, 5)] {
            assert_eq!(drawn(&state, size).lines().count(), usize::from(size.1));
        }
    }
}

#[test]
fn the_highest_bar_is_full_and_the_smallest_shows() {
    assert_eq!(graph(&[9.0, 0.0, 0.01, 4.0, 8.0], 4), ".▁▄█");
    assert_eq!(graph(&[], 4), "");
}
