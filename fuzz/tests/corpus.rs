//! The committed corpus, replayed without libFuzzer.

use std::{collections::BTreeSet, fs, path::Path};

use finwatch_fuzz::TARGETS;

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))
}

#[test]
fn every_input_is_stood() {
    for (name, target) in TARGETS {
        let directory = corpus().join(name);
        let inputs: Vec<_> = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
            .map(|entry| entry.expect("a file").path())
            .collect();
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            println!("{}", input.display());
            target(&fs::read(&input).expect("our own file"));
        }
    }
}

/// The API serves 64 at once. A follower that sent more than its question is missed only when something is written.
#[test]
fn followers_that_are_gone_make_room() {
    for _ in 0..70 {
        finwatch_fuzz::api(b"GET /incidents/follow HTTP/1.1\r\nHost: x\r\n\r\nmore");
    }
}

#[test]
fn every_corpus_and_every_binary_has_a_target() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let in_directory = |directory: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        let stem =
            |path: std::path::PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
        entries.map(|entry| stem(entry.expect("an entry").path())).collect()
    };
    assert_eq!(in_directory(corpus()), names);
    assert_eq!(in_directory(&corpus().with_file_name("targets")), names);
}
