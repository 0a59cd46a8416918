//! The documents' measured sections: between two comments each, the rest is written by hand.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::host;

/// Replaces one section of a document in docs/.
pub(crate) fn write(document: &str, section: &str, text: &str) -> Result<()> {
    let path = host::root().join("docs").join(document);
    let before = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let after = replaced(&before, section, text)
        .with_context(|| format!("{} has no section \"{section}\"", path.display()))?;
    fs::write(&path, after).with_context(|| format!("writing {}", path.display()))?;
    println!("{}: {section}", path.display());
    Ok(())
}

fn replaced(document: &str, section: &str, text: &str) -> Option<String> {
    let begin = format!("<!-- {section}: written by cargo xtask bench --write-docs -->\n");
    let end = format!("<!-- {section}: end -->\n");
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some([before, &begin, text.trim_end(), "\n", &end, after].concat())
}

/// Processor, kernel and versions.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let models = info.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let models: Vec<&str> = models.map(|(_, model)| model.trim()).collect();
    let release = read("/proc/sys/kernel/osrelease");
    // What follows the version names a build, which nobody else has.
    let kernel = release.trim().split('-').next().unwrap_or_default();
    format!(
        "{} x {}, Linux {}, {}, {}",
        models.len(),
        models.first().unwrap_or(&"unknown processor"),
        kernel,
        version("nginx", "-v"),
        version("bpftrace", "--version"),
    )
}

/// The first line a program prints about itself.
pub(crate) fn version(program: &str, flag: &str) -> String {
    let output = Command::new(program).arg(flag).stdin(Stdio::null()).output();
    let Ok(output) = output else { return format!("no {program}") };
    let printed = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&printed).lines().next().unwrap_or(program).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_nothing_else() {
        let document = "a\n<!-- x: written by cargo xtask bench --write-docs -->\nold\n<!-- x: end -->\nb\n";
        let after = "a\n<!-- x: written by cargo xtask bench --write-docs -->\nnew\n<!-- x: end -->\nb\n";
        assert_eq!(replaced(document, "x", "new\n\n").as_deref(), Some(after));
        assert_eq!(replaced(document, "y", "new"), None);
    }
}
