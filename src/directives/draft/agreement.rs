//! The draft and the root agree, whatever is decided: what the draft shows is what is found once the
//! changes are carried out.

use proptest::prelude::*;

use super::*;

/// What a root may hold, and what may be decided about it.
#[derive(Clone, Debug)]
enum Step {
    Write(String, u8, bool),
    Replace(String, u8, bool),
    Link(String, String),
    Directory(String),
    Remove(String),
    Copy(String, String),
}

/// Few names, so that most steps meet what other steps have left.
fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![4 => Just("a"), 4 => Just("b"), 4 => Just("c"), 1 => Just(".."), 1 => Just(".")];
    prop::collection::vec(name, 1..=3).prop_map(|names| format!("/{}", names.join("/")))
}

fn target() -> impl Strategy<Value = String> {
    let odd =
        prop::sample::select(vec!["a", "../b", "..", ".", "/", "b/c", "../../c/a", "nowhere"]);
    prop_oneof![path(), odd.prop_map(str::to_owned)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (path(), any::<u8>(), any::<bool>()).prop_map(|(p, n, x)| Step::Write(p, n, x)),
        3 => (path(), any::<u8>(), any::<bool>()).prop_map(|(p, n, x)| Step::Replace(p, n, x)),
        3 => (path(), target()).prop_map(|(p, t)| Step::Link(p, t)),
        3 => path().prop_map(Step::Directory),
        2 => path().prop_map(Step::Remove),
        1 => (path(), prop_oneof![Just("/".to_owned()), path()]).prop_map(|(f, t)| Step::Copy(f, t)),
    ]
}

fn mode(executable: bool) -> u32 {
    if executable { 0o755 } else { 0o644 }
}

fn decide(draft: &mut Draft<'_>, step: &Step) {
    match step {
        Step::Write(path, n, executable) => draft.write(path, [*n], mode(*executable)),
        Step::Replace(path, n, executable) => draft.replace(path, [*n], mode(*executable)),
        Step::Link(path, target) => draft.link(path, target),
        Step::Directory(path) => draft.directory(path, 0o755, None),
        Step::Remove(path) => drop(draft.remove(path)),
        Step::Copy(from, to) => draft.copy_tree(from, to),
    }
}

/// A root made by `steps`, as far as they can be taken.
fn root(steps: &[Step]) -> (tempfile::TempDir, Tree) {
    let folder = tempfile::tempdir().unwrap();
    let tree = Tree::open(folder.path()).unwrap();
    for step in steps {
        let _ = match step {
            Step::Write(path, n, executable) => tree.write(path, [*n], mode(*executable)),
            Step::Replace(path, n, executable) => tree.replace(path, [*n], mode(*executable), None),
            Step::Link(path, target) => tree.link(path, target),
            Step::Directory(path) => tree.make_directory(path, 0o755, None),
            Step::Remove(_) | Step::Copy(..) => Ok(()),
        };
    }
    (folder, tree)
}

/// Every path that can be, and some that lead out and back.
fn probes() -> Vec<String> {
    let mut paths = vec!["/".to_owned(), "/a/../b".to_owned(), "/b/./c/..".to_owned()];
    let mut level = vec![String::new()];
    for _ in 0..3 {
        level = level
            .iter()
            .flat_map(|path| ["a", "b", "c", "nowhere"].map(|name| format!("{path}/{name}")))
            .collect();
        paths.extend(level.iter().cloned());
    }
    paths
}

/// Everything that can be asked about a path; of errors, that there is one.
fn seen(view: &dyn View, path: &str) -> impl PartialEq + std::fmt::Debug {
    let names = view.names(path).map(|mut names| {
        names.sort();
        names
    });
    let asked = (view.kind(path).ok(), view.read(path).ok(), names.ok());
    (asked, view.exists(path), view.is_executable(path))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_the_draft_shows_is_what_is_found_afterwards(
        image in prop::collection::vec(step(), 0..16),
        steps in prop::collection::vec(step(), 1..16),
    ) {
        let (_image, image_tree) = root(&image);
        let (_root, tree) = root(&image);
        let mut draft = Draft::over(&image_tree);
        for step in &steps {
            decide(&mut draft, step);
        }
        let foreseen = draft.take_errors();
        let met = carry_out(draft.changes(), &tree);
        for path in probes() {
            prop_assert_eq!(
                format!("{:?}", seen(&draft, &path)),
                format!("{:?}", seen(&tree, &path)),
                "{} after {:?}", path, draft.changes()
            );
        }
        // A copy of a folder fails once, however much of it fails.
        prop_assert_eq!(foreseen.is_empty(), met.is_empty(), "{:?} and {:?}", foreseen, met);
    }
}

/// The families' own cases of it.
#[test]
fn one_file_has_many_names() {
    let (_folder, tree) = root(&[
        Step::Link("/lib".into(), "usr/lib".into()),
        Step::Write("/usr/lib/systemd/system/x.service".into(), 1, false),
        Step::Write("/usr/share/real".into(), 2, true),
        Step::Link("/etc/link".into(), "../usr/share/real".into()),
    ]);
    let mut draft = Draft::over(&tree);
    draft.write("/lib/systemd/system/new.service", "new", 0o644);
    assert_eq!(draft.read_text("/usr/lib/systemd/system/new.service").unwrap().unwrap(), "new");
    let mut names = draft.names("/lib/systemd/system").unwrap();
    names.sort();
    assert_eq!(names, ["new.service", "x.service"]);

    assert!(draft.remove("/usr/lib/systemd/system/x.service").unwrap());
    assert!(!draft.exists("/lib/systemd/system/x.service"));
    assert!(!draft.remove("/lib/systemd/system/x.service").unwrap());

    // Through the link, whose target keeps its mode.
    draft.write("/etc/link", "changed", 0o644);
    assert_eq!(draft.read_text("/usr/share/real").unwrap().unwrap(), "changed");
    assert!(draft.is_executable("/etc/link"));
    assert!(matches!(draft.kind("/etc/link").unwrap(), Some(Kind::Link(_))));
}

/// A plan shows each file once, as it will be.
#[test]
fn two_words_about_one_file_become_one() {
    let (_folder, tree) = root(&[]);
    let mut draft = Draft::over(&tree);
    draft.write("/etc/fstab", "1", 0o600);
    draft.write("/etc/hosts", "1", 0o644);
    draft.write("/etc/fstab", "2", 0o644);
    let shown: Vec<_> = draft.changes().iter().map(|change| change.path.as_str()).collect();
    assert_eq!(shown, ["/etc/fstab", "/etc/hosts"]);
    let What::File { contents, mode, .. } = &draft.changes()[0].what else { panic!() };
    assert_eq!((contents.as_slice(), *mode), (b"2".as_slice(), Mode::New(0o600)));
    // Not across a copy, which may have copied the first word.
    draft.copy_tree("/etc", "/srv");
    draft.write("/etc/fstab", "3", 0o644);
    assert_eq!(draft.changes().len(), 4);
    assert_eq!(draft.read_text("/srv/fstab").unwrap().as_deref(), Some("2"));
}
