//! Completions and manual pages, judged by the programs that read them.

use std::{fs, process::Command};

use crate::{finwatch, has};

fn printed(arguments: &[&str]) -> String {
    let output = finwatch(arguments).output().expect("finwatch starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn bash_completes_subcommands_and_flags() {
    if !has("bash_completes_subcommands_and_flags", "bash") {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let script = directory.path().join("finwatch.bash");
    fs::write(&script, printed(&["completions", "bash"])).expect("a temporary file");
    for (typed, completed) in
        [(&["finwatch", "tri"][..], "triage"), (&["finwatch", "top", "--inter"], "--interval")]
    {
        // What readline does: it sets the words and calls the function that `complete -F` named.
        let asking = r#"set -eu; . "$1"; shift
            complete -p finwatch >/dev/null
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _finwatch finwatch "${@: -1}" "${@: -2:1}"; printf '%s\n' "${COMPREPLY[@]}""#;
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", asking, "bash"]).arg(&script).args(typed);
        let output = bash.output().expect("bash starts");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{typed:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), completed, "{typed:?}");
    }
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for word in ["triage", "top", "interval", "run-dir"] {
            assert!(script.contains(word), "{shell} knows {word}");
        }
    }
}

#[test]
fn every_subcommand_has_a_page_without_warnings() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    printed(&["man", "--dir", directory.path().to_str().expect("text")]);
    let mut pages: Vec<_> = fs::read_dir(directory.path())
        .expect("it is there")
        .map(|page| page.expect("a file").path())
        .collect();
    pages.sort();
    let help = printed(&["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<_> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.contains(&"triage"), "{commands:?}");
    assert_eq!(pages.len(), commands.len() + 1, "{pages:?} {commands:?}");
    for command in &commands {
        assert!(pages.contains(&directory.path().join(format!("finwatch-{command}.1"))), "{command}");
    }
    assert_eq!(fs::read_to_string(directory.path().join("finwatch.1")).expect("a page"), printed(&["man"]));
    if !has("every_subcommand_has_a_page_without_warnings", "groff") {
        return;
    }
    for page in &pages {
        // Every warning there is, and no output.
        let read = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(page).output();
        let read = read.expect("groff starts");
        assert_eq!(String::from_utf8_lossy(&read.stderr), "", "{}", page.display());
        assert!(read.status.success(), "{}: {}", page.display(), read.status);
    }
}
