//! Text in, text out: each folder of `tests/fixtures/plan` with `arguments` in it is a question, one
//! argument a line, with the answers `expected.txt` and `expected.json`. `UPDATE=1 cargo test` writes
//! the answers anew; review is reading their difference.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::{self, network};

const FIXTURES: &str = "tests/fixtures/plan";

fn cases() -> Vec<(String, Vec<String>)> {
    let mut cases: Vec<_> = fs::read_dir(FIXTURES)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|folder| {
            let text = fs::read_to_string(folder.join("arguments")).ok()?;
            let name = folder.file_name()?.to_str()?.to_owned();
            Some((name, text.lines().map(str::to_owned).collect()))
        })
        .collect();
    cases.sort();
    assert!(cases.len() >= 8, "fixtures are missing: {cases:?}");
    cases
}

/// What is printed, and the exit status.
fn answer(arguments: &[String], format: &str) -> (String, u8) {
    let format = ["--format", format].map(str::to_owned);
    let mut parser = lexopt::Parser::from_args(arguments.iter().cloned().chain(format));
    let Output { text, status } =
        run(&mut parser).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    let status =
        (0..=2).find(|code| format!("{:?}", ExitCode::from(*code)) == format!("{status:?}"));
    (text, status.unwrap())
}

fn compare_with(path: &Path, text: &str) {
    if std::env::var_os("UPDATE").is_some() {
        return fs::write(path, text).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    let diff = super::diff::unified_diff(&expected, text);
    assert!(expected == text, "{} (UPDATE=1 writes it anew)\n{diff}", path.display());
}

/// The release does not matter to what is promised.
fn without_version(text: &str) -> String {
    text.replace(&format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION")), "\"version\": \"any\"")
}

/// Addresses of the boot server have the architecture in them.
#[cfg(target_arch = "x86_64")]
#[test]
fn answers_are_the_committed_ones() {
    for (name, arguments) in cases() {
        let folder = Path::new(FIXTURES).join(&name);
        let (text, status) = answer(&arguments, "text");
        compare_with(&folder.join("expected.txt"), &format!("{text}(exit status {status})\n"));
        let (json, same) = answer(&arguments, "json");
        assert_eq!(same, status, "{name}: the format decides nothing");
        compare_with(&folder.join("expected.json"), &without_version(&json));
    }
}

#[test]
fn the_same_question_has_the_same_answer() {
    for (name, arguments) in cases() {
        assert_eq!(answer(&arguments, "text"), answer(&arguments, "text"), "{name}");
    }
}

/// Who reads the plan with a program relies on the schema, and the schema on the types.
#[test]
fn the_schemas_are_those_of_the_types_and_of_what_is_printed() {
    let text = |schema: schemars::Schema| serde_json::to_string_pretty(&schema).unwrap() + "\n";
    let plan = text(schemars::schema_for!(Document));
    let diff = text(schemars::schema_for!(diff::Difference));
    compare_with(Path::new("src/desk/plan.schema.json"), &plan);
    compare_with(Path::new("src/desk/plan-diff.schema.json"), &diff);
    let validator = |text: &str| {
        let schema: serde_json::Value = serde_json::from_str(text).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    };
    let (plan, diff) = (validator(&plan), validator(&diff));
    for (name, arguments) in cases() {
        let (json, _) = answer(&arguments, "json");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let (ours, other) = match arguments.iter().any(|argument| argument == "--diff") {
            true => (&diff, &plan),
            false => (&plan, &diff),
        };
        let errors: Vec<_> = ours.iter_errors(&json).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
        assert!(!other.is_valid(&json), "{name}: a schema that takes everything proves nothing");
    }
}

/// The names that the issue promises.
#[test]
fn the_json_has_the_promised_shape() {
    let (_, arguments) = cases().into_iter().find(|(name, _)| name == "mistakes").unwrap();
    let json: serde_json::Value = serde_json::from_str(&answer(&arguments, "json").0).unwrap();
    let setting = &json["settings"]["TIMEZONE"];
    assert_eq!(setting["value"], "Europe/Pragu");
    assert_eq!(setting["file"], "tests/fixtures/plan/mistakes.conf");
    assert_eq!(setting["line"], 2);
    assert_eq!(json["settings"]["DEVICE"]["file"], serde_json::Value::Null);
    for problem in json["problems"].as_array().unwrap() {
        for field in ["file", "line", "column", "severity", "message"] {
            assert!(problem.get(field).is_some(), "{field}: {problem}");
        }
    }
}

/// The folder and the squashfs that was made of it are one image.
#[test]
fn a_plan_does_not_depend_on_how_the_image_is_given() {
    let with = |image: &str| {
        let line = format!(
            "--config tests/fixtures/seed-lts.conf --lease {FIXTURES}/lease.json --image {FIXTURES}/{image}"
        );
        let arguments: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let json: serde_json::Value = serde_json::from_str(&answer(&arguments, "json").0).unwrap();
        (json["files"].clone(), json["handover"].clone(), json["services_removed"].clone())
    };
    assert_eq!(with("image"), with("image.squashfs"));
}

#[test]
fn a_file_that_cannot_be_used_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("empty"), "# no node\n").unwrap();
    fs::write(at("wrong"), "10.0.0.300\nnode1\nnode1 node2\n").unwrap();
    fs::write(at("lease"), "{}").unwrap();
    fs::write(at("long"), vec![b'\n'; 5 << 20]).unwrap();
    let conf = PathBuf::from("tests/fixtures/seed-lts.conf");
    let at = |name: &str| at(name).display().to_string();
    let conf = conf.display();
    let mac = "--mac 52:54:00:aa:bb:cc";
    let cases = [
        (format!("--config {} {mac}", at("none")), "No such file or directory"),
        (format!("--config {} {mac}", at("long")), "longer than 4 MiB"),
        (format!("--config {conf} {mac} --image {}", at("none")), "No such file or directory"),
        (format!("--config {conf} {mac} --image {}", at("lease")), "not a squashfs"),
        (format!("--config {conf} --lease {}", at("lease")), "/run/landfall/lease.json of a node"),
        (format!("--diff {conf} {conf} --nodes {}", at("empty")), "there is no node in it"),
        (
            format!("--diff {conf} {conf} --nodes {}", at("wrong")),
            "line 1: \"10.0.0.300\" is neither",
        ),
        (
            format!("--diff {conf} {conf} --nodes {}", at("wrong")),
            "; line 3: \"node2\" is a second",
        ),
        (
            format!("--config {conf} {mac} --ip 10.0.0.6 --cmdline ip=10.0.0.5:::24:::off"),
            "--ip is 10.0.0.6",
        ),
    ];
    for (line, expected) in cases {
        let error =
            run(&mut lexopt::Parser::from_args(line.split(' '))).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{line}: {error}");
    }
}

/// An include is read from beside the file, and a place in it is named by its own name.
#[test]
fn what_a_file_includes_is_part_of_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("lts.conf");
    fs::write(&main, "include common.conf\n[default]\nA=1\n").unwrap();
    fs::write(folder.path().join("common.conf"), "[node1]\nB=2\n").unwrap();
    let line = format!("--config {} --mac 52:54:00:aa:bb:cc --hostname node1", main.display());
    let arguments: Vec<_> = line.split(' ').map(str::to_owned).collect();
    let json: serde_json::Value = serde_json::from_str(&answer(&arguments, "json").0).unwrap();
    let file = json["settings"]["B"]["file"].as_str().unwrap();
    assert!(file.ends_with("/common.conf"), "{file}");
    assert_eq!(json["settings"]["B"]["line"], 2);
    assert_eq!(json["configuration"]["files"].as_array().unwrap().len(), 2);
}

/// Who reads the README shall see what they will see.
#[test]
fn the_readme_shows_real_output() {
    let readme = fs::read_to_string("README.md").unwrap();
    let mut shown = 0;
    for block in readme.split("```\n$ landfall plan ").skip(1) {
        let (command, rest) = block.split_once('\n').unwrap();
        let (output, _) = rest.split_once("```").unwrap();
        // One argument of them is quoted.
        let arguments: Vec<String> = command
            .split('\'')
            .zip([false, true].into_iter().cycle())
            .flat_map(|(part, quoted)| match quoted {
                true => vec![part.to_owned()],
                false => part.split_whitespace().map(str::to_owned).collect(),
            })
            .collect();
        let text = match arguments.as_slice() {
            [line] => of_command_line(line).text,
            arguments => answer(arguments, "text").0,
        };
        let mut at = 0;
        for piece in output.split("…\n") {
            let found = text[at..].find(piece);
            at += found
                .unwrap_or_else(|| panic!("{command}: not in the output:\n{piece}\nbut:\n{text}"));
        }
        shown += 1;
    }
    assert_eq!(shown, 3);
}

/// Whoever copies a line from there has done nothing wrong.
#[test]
fn the_readmes_networks_are_understood() {
    let readme = fs::read_to_string("README.md").unwrap();
    let (_, section) = readme.split_once("\n## Networks\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let mut lines = 0;
    for (_, examples) in rows.skip(1) {
        for example in examples.split('`').skip(1).step_by(2) {
            let request = Request::read(example);
            assert_eq!(request.problems, vec![], "{example}");
            assert_ne!(request.network, Request::read("").network, "{example} says nothing");
            lines += 1;
        }
    }
    assert_eq!(lines, 15);
    let configurations = section.split("```\n[").skip(1).map(|block| format!("[{block}"));
    let mut settings = 0;
    for block in configurations {
        let (text, _) = block.split_once("```").unwrap();
        let main = Text::of_bytes("README.md", text.as_bytes().to_vec());
        let reading = Reading::of_all(main, &mut include_from_disk);
        let node = config::Identity::default();
        let evaluation = reading.evaluate(&[], &node, config::Substitution::Refuse);
        assert_eq!((&reading.problems, &evaluation.problems), (&vec![], &vec![]), "{text}");
        let booted = Request::read("BOOTIF=01-52-54-00-aa-bb-cc").network;
        let (wanted, wrong) = network::wanted(&booted, &evaluation.settings);
        assert_eq!(wrong, vec![], "{text}");
        assert_eq!(wanted.tops(), ["bond0.20"], "{text}");
        settings += evaluation.settings.iter().count();
    }
    assert_eq!(settings, 3);
}
