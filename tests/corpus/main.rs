//! Every input that a fuzzer has found worth keeping, and every one that once broke something.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;

use landfall_tests::workshop::workspace;

/// What was mended stays mended, without anybody running a fuzzer.
#[test]
fn the_committed_corpus_breaks_no_promise() {
    for (name, target) in targets::TARGETS {
        let folder = workspace().join("tests/fuzz/corpus").join(name);
        let mut count = 0;
        for entry in fs::read_dir(&folder).expect("a corpus") {
            let path = entry.expect("an entry").path();
            // The name of the input is what a failure lacks.
            println!("{}", path.display());
            target(&fs::read(&path).expect("an input"));
            count += 1;
        }
        assert!(count >= 10, "{name} has only {count} inputs");
    }
}
