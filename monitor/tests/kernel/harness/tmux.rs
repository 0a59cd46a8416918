//! A real terminal: one window of a tmux server of our own.

use std::{fs, path::Path, process::Command, thread};

use super::until;

/// The window; dropping it ends its server.
pub(crate) struct Tmux {
    directory: tempfile::TempDir,
}

impl Tmux {
    /// A window of this size in which a shell waits.
    pub(crate) fn start(columns: u16, rows: u16) -> Self {
        let tmux = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        tmux.ask(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, "sh"]);
        tmux
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = self.client(arguments).output().expect("tmux starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.env_remove("TMUX").arg("-S").arg(self.directory.path().join("tmux")).arg("-u").args(arguments);
        tmux
    }

    /// Types text.
    pub(crate) fn text(&self, text: &str) {
        self.ask(&["send-keys", "-l", text]);
    }

    /// Presses a key, as tmux names it.
    pub(crate) fn key(&self, key: &str) {
        self.ask(&["send-keys", key]);
    }

    /// Types a command.
    pub(crate) fn command(&self, command: &str) {
        self.text(command);
        self.key("Enter");
    }

    /// What the window shows.
    pub(crate) fn screen(&self) -> String {
        self.ask(&["capture-pane", "-p"])
    }

    /// The same, with the escape sequences that paint it.
    pub(crate) fn painted(&self) -> String {
        self.ask(&["capture-pane", "-p", "-e"])
    }

    /// What programs in it have called it.
    pub(crate) fn title(&self) -> String {
        self.ask(&["display-message", "-p", "#{pane_title}"])
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        self.ask(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// Waits until the screen is so.
    pub(crate) fn shows(&self, what: &str, so: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, || {
                last = self.screen();
                so(&last).then(|| last.clone())
            })
        }));
        waited.unwrap_or_else(|_| panic!("the screen never shows {what}:\n{last}"))
    }

    /// The terminal's settings (`stty -g`), and whether the alternate screen and the cursor are shown. A shell waits.
    pub(crate) fn state(&self, name: &str) -> (String, String) {
        let file = self.directory.path().join(name);
        self.command(&format!("stty -g > {0}.new && mv {0}.new {0}", file.display()));
        let settings = until("stty has written", || read(&file));
        (settings, self.ask(&["display-message", "-p", "alternate #{alternate_on} cursor #{cursor_flag}"]))
    }
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // A panic while there is one already would end all other tests, too.
        if thread::panicking() {
            drop(self.client(&["kill-server"]).output());
        } else {
            self.ask(&["kill-server"]);
        }
    }
}
