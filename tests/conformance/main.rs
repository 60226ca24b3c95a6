//! The conformance list: what LTSP 5 did, and where Landfall does better. One fixture for each row,
//! in `tests/fixtures/conformance`, and one test that runs them all.
//!
//! A row is proved in one of three ways, or in several: by cases, which go through the library as
//! a boot does; by tests elsewhere, which a fixture names and which must exist; or not yet, and
//! then the fixture says which issue it waits for.

mod fixture;
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use fixture::Fixture;
use landfall_tests::workshop::workspace;

/// C1 to C106, and those with a letter.
fn rows() -> Vec<String> {
    let lettered = ["C1a", "C1b", "C1c", "C1d", "C1e", "C1f", "C81a"].map(str::to_owned);
    (1..=106).map(|number| format!("C{number}")).chain(lettered).collect()
}

/// Rows that no release holds yet. One that comes to hold leaves this list, and none joins it
/// without somebody who reads this change.
const WAITING: [&str; 5] = ["C98", "C100", "C102", "C103", "C106"];

fn folder() -> PathBuf {
    workspace().join("tests/fixtures/conformance")
}

/// A node must become what LTSP made of it, or something better, and never something else: racks
/// depend on every one of these.
#[test]
fn every_row_holds() {
    let mut found = BTreeMap::new();
    let mut waiting = BTreeSet::new();
    let mut faults = Vec::new();
    for entry in fs::read_dir(folder()).expect("the fixtures") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let fixture = Fixture::read(&path);
        assert_eq!(number_in(&name), fixture.row, "{name} is named after another row");
        let before = found.insert(fixture.row.clone(), name.clone());
        assert_eq!(before, None, "{name}: there is a fixture of {} already", fixture.row);
        if fixture.waits_for.is_some() {
            waiting.insert(fixture.row.clone());
        }
        for fault in faults_of(&fixture) {
            faults.push(format!("{name} (class {:?}), {fault}", fixture.class));
        }
    }
    let mut wanted = rows();
    wanted.sort();
    let found: Vec<_> = found.into_keys().collect();
    assert_eq!(found, wanted, "each row has one fixture");
    assert_eq!(waiting, WAITING.map(str::to_owned).into(), "rows that wait for an issue");
    assert!(faults.is_empty(), "{} rows or cases fail:\n{}", faults.len(), faults.join("\n"));
}

/// `C003-…` is row C3, `C001a-…` is row C1a.
fn number_in(name: &str) -> String {
    let number = name.split('-').next().unwrap_or_default();
    format!("C{}", number.trim_start_matches('C').trim_start_matches('0'))
}

fn faults_of(fixture: &Fixture) -> Vec<String> {
    let mut faults = Vec::new();
    if fixture.why.is_empty() || fixture.differs.as_ref().is_some_and(String::is_empty) {
        faults.push("no reason is given".to_owned());
    }
    if fixture.cases.is_empty() && fixture.proved_by.is_empty() && fixture.waits_for.is_none() {
        faults.push("nothing proves it".to_owned());
    }
    for (number, case) in fixture.cases.iter().enumerate() {
        let name = if case.name.is_empty() { (number + 1).to_string() } else { case.name.clone() };
        for fault in node::faults(case).0 {
            faults.push(format!("case {name}: {fault}"));
        }
    }
    for test in &fixture.proved_by {
        if let Err(why) = exists(test) {
            faults.push(format!("{test}: {why}"));
        }
    }
    if let Some(wait) = &fixture.waits_for
        && !is_issue(wait)
    {
        faults.push(format!("it waits for {wait:?}, which is no issue"));
    }
    faults
}

/// `issue 6: …`, with what holds until then.
fn is_issue(wait: &str) -> bool {
    wait.strip_prefix("issue ").and_then(|rest| rest.split_once(": ")).is_some_and(
        |(number, what)| number.parse::<u32>().is_ok_and(|number| number > 0) && !what.is_empty(),
    )
}

/// Complaints about other programs are held by tests that are named, and a name that nobody can find
/// is a promise that nobody keeps.
#[test]
fn every_complaint_is_held_by_tests_that_there_are() {
    let readme = fs::read_to_string(workspace().join("tests/README.md")).expect("the list");
    let (_, section) = readme.split_once("\n# What operators complained of").expect("the section");
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "{rows:?}");
    let mut faults = Vec::new();
    for row in rows {
        let quoted = row.split('`').skip(1).step_by(2);
        let tests: Vec<_> = quoted
            .filter(|word| word.starts_with("boot::") || word.starts_with("unit::"))
            .collect();
        if tests.is_empty() {
            faults.push(format!("no test: {row}"));
        }
        for test in tests {
            if let Err(why) = exists(test) {
                faults.push(format!("{test}: {why}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whether a test of this name is in the sources: `boot::ram::NAME` in `tests/boot/ram.rs`,
/// `unit::net::mac::NAME` at the end of `src/net/mac.rs`; or a row `NAME: …` of a macro that makes
/// tests of its rows.
fn exists(test: &str) -> Result<(), String> {
    let (file, name) = test.rsplit_once("::").ok_or("no name of a test")?;
    let file = match file.split_once("::") {
        Some(("boot", file)) => {
            let main = fs::read_to_string(workspace().join("tests/boot/main.rs"));
            let main = main.map_err(|error| error.to_string())?;
            let module = format!("mod {};", file.split("::").next().unwrap_or_default());
            if !main.lines().any(|line| line == module) {
                return Err(format!("tests/boot/main.rs has no \"{module}\": nobody runs it"));
            }
            Path::new("tests/boot").join(file.replace("::", "/"))
        }
        Some(("unit", file)) => Path::new("src").join(file.replace("::", "/")),
        _ => return Err("neither a boot test nor a unit test".into()),
    };
    let places = [file.with_extension("rs"), file.join("mod.rs")];
    let text = places.iter().find_map(|path| fs::read_to_string(workspace().join(path)).ok());
    let text = text.ok_or_else(|| format!("there is no {}", places[0].display()))?;
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let is_row = |line: &&str| line.starts_with(&format!("{name}:")) && line.ends_with(';');
    if text.contains("macro_rules!") && lines.iter().any(is_row) {
        return Ok(());
    }
    let at = lines.iter().position(|line| line.starts_with(&format!("fn {name}(")));
    let at = at.ok_or("there is no such function")?;
    let attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
    match attributes.clone().any(|line| *line == "#[test]") {
        true => Ok(()),
        false => Err("it is a function, and no test".into()),
    }
}
