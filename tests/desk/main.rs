//! The promise of the desk tools: they change nothing on the machine they run on.
//!
//! strace writes down every system call of the built binary, and each must be one of those that
//! only look. What is not in the list fails the test, so a new way of writing cannot slip through.
#![cfg(test)]

mod plan;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const AGENT: &str = env!("CARGO_BIN_EXE_landfall");

/// Without an effect on anything but the process itself, whatever their arguments are.
const HARMLESS: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "close",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fstat",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getrandom",
    "gettid",
    "getuid",
    "lseek",
    "lstat",
    "madvise",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "poll",
    "ppoll",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "readv",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "stat",
    "statx",
    "uname",
];

/// Why a line of the trace is no harmless one. `first` is the execve of the program itself.
fn objection(line: &str, first: bool) -> Option<String> {
    // With -f each line begins with the number of its process.
    let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
    if call.starts_with("+++ exited") {
        return None;
    }
    let (name, arguments) = call.split_once('(').unwrap_or((call, ""));
    let on = |descriptors: &[&str]| {
        descriptors.iter().any(|fd| arguments.starts_with(&format!("{fd},")))
    };
    let allowed = match name {
        name if HARMLESS.contains(&name) => true,
        "execve" => first,
        "open" | "openat" | "openat2" => {
            ["O_RDONLY", "O_PATH"].iter().any(|flag| arguments.contains(flag))
                && !["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "O_TMPFILE"]
                    .iter()
                    .any(|flag| arguments.contains(flag))
        }
        "write" | "writev" => on(&["1", "2"]),
        "mmap" => !(arguments.contains("MAP_SHARED") && arguments.contains("PROT_WRITE")),
        "ioctl" => ["TCGETS", "TIOCGWINSZ"].iter().any(|request| arguments.contains(request)),
        "fcntl" => ["F_GETFD", "F_GETFL"].iter().any(|request| arguments.contains(request)),
        _ => false,
    };
    (!allowed).then(|| line.to_owned())
}

/// Runs a program under strace; gives the lines of the trace that are objected to, and whether the
/// trace has `seen`.
fn trace(folder: &Path, program: &[&str], stdin: Stdio, seen: &str) -> (Vec<String>, bool) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let status = Command::new("strace")
        .args(["-f", "-qq", "-s", "200", "-o"])
        .arg(log.path())
        .args(program)
        .current_dir(folder)
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("strace, of the package of that name: {error}"));
    assert!(status.code().is_some_and(|code| code <= 2), "{program:?}: {status}");
    let log = fs::read_to_string(log.path()).unwrap();
    let objections = log.lines().enumerate().filter_map(|(at, line)| objection(line, at == 0));
    (objections.collect(), log.contains(seen))
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

/// Who checks a file on the boot server itself must not fear for it.
#[test]
fn the_desk_tools_only_look() {
    let folder = tempfile::tempdir().unwrap();
    let seed = include_str!("../fixtures/seed-lts.conf");
    let broken = "include more.conf\n[default]\njunk\nPREINIT_1=\"touch x; )\"\nA=\"$(touch y)\"\n";
    for (name, text) in [("lts.conf", seed), ("broken.conf", broken), ("more.conf", "[x]\nA=1\n")] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let before = contents(folder.path());
    let cases: &[(&[&str], &str)] = &[
        (&["check", "lts.conf"], "\"lts.conf\""),
        (&["check", "--strict", "--format", "json", "lts.conf", "broken.conf"], "more.conf\""),
        (&["check", "--substitution", "broken.conf", "missing.conf"], "missing.conf\""),
        (&["check", "-"], "read(0, \"[default]"),
        (&["settings"], "write(1, \"Sections"),
        (&["settings", "--man"], "LTS.CONF"),
    ];
    for (arguments, seen) in cases {
        let stdin = fs::File::open(folder.path().join("lts.conf")).unwrap();
        let program = [&[AGENT], *arguments].concat();
        let (objections, has_seen) = trace(folder.path(), &program, stdin.into(), seen);
        assert!(objections.is_empty(), "{arguments:?}:\n{}", objections.join("\n"));
        assert!(has_seen, "{arguments:?}: {seen} is not in the trace");
    }
    assert_eq!(contents(folder.path()), before);
}

/// A trace that is not understood would have nothing to object to.
#[test]
fn programs_that_write_are_objected_to() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["cp", "a", "b"], "O_CREAT"),
        (&["rm", "b"], "unlink"),
        (&["mkdir", "c"], "mkdir"),
        (&["chmod", "600", "a"], "chmod"),
        (&["touch", "a"], "O_CREAT"),
        (&["ln", "-s", "x", "link"], "symlink"),
        (&["mv", "a", "d"], "rename"),
        (&["rmdir", "c"], "rmdir"),
        (&["getent", "hosts", "no.such.name.invalid"], "socket"),
        (&["sh", "-c", "cat a; :"], "fork"),
    ];
    for (program, call) in cases {
        let (objections, _) = trace(folder.path(), program, Stdio::null(), "");
        let named = objections.iter().any(|line| line.contains(call));
        assert!(named || *call == "fork" && !objections.is_empty(), "{program:?}: {objections:?}");
    }
    assert!(objection("7 socket(AF_INET, SOCK_STREAM, 0) = 3", false).is_some());
    assert!(objection("7 openat(AT_FDCWD, \"x\", O_RDWR|O_CLOEXEC) = 3", false).is_some());
    assert!(objection("7 write(3, \"x\", 1) = 1", false).is_some());
}
