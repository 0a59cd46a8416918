//! The terminal: taken over while a [`Screen`] lives, and given back as it was, also on panic.

use std::{io, thread};

use ratatui::{DefaultTerminal, Frame};

/// The terminal in raw mode, on its alternate screen.
#[derive(Debug)]
pub struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal over. A panic gives it back before it is reported.
    ///
    /// # Errors
    /// When there is no terminal.
    pub fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }

    /// Draws a whole frame.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to give back.
        drop(self.0.show_cursor());
        // A panic has given it back already: once more, and the cursor would stand where it was before the report, which whatever
        // comes next would write over.
        if !thread::panicking() {
            drop(ratatui::try_restore());
        }
    }
}
