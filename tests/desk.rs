//! The promise of the desk tools, kept by the built program: nothing is written, nothing is changed
//! on the machine they run on, and nobody on a network is spoken to.
//!
//! Every system call of a run is looked at. Only those of a list of harmless ones are allowed, so a
//! way of doing harm that nobody has thought of is found, too.

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// They tell, and change nothing but the caller's own memory and descriptors.
    const HARMLESS: &[&str] = &[
        "access",
        "arch_prctl",
        "brk",
        "clock_gettime",
        "clock_nanosleep",
        "clone3",
        "close",
        "dup",
        "execve",
        "exit",
        "exit_group",
        "faccessat2",
        "fcntl",
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
        "restart_syscall",
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
        "statfs",
        "fstatfs",
        "statx",
        "sysinfo",
        "tgkill",
        "uname",
    ];

    /// The calls of a run that may do harm, out of what strace has written.
    fn harm(trace: &str) -> Vec<String> {
        let is_harm = |line: &&str| {
            let (call, arguments) = line.split_once('(').unwrap_or((line, ""));
            match call {
                // What is opened to be read is not changed.
                "open" | "openat" | "openat2" => {
                    let writes =
                        ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "O_TMPFILE"];
                    !arguments.contains("O_RDONLY") && !arguments.contains("O_PATH")
                        || writes.iter().any(|flag| arguments.contains(flag))
                }
                // To whoever has asked; the descriptor is followed by what it is.
                "write" | "writev" => !arguments.starts_with("1<") && !arguments.starts_with("2<"),
                "mmap" => arguments.contains("MAP_SHARED") && arguments.contains("PROT_WRITE"),
                // What terminal is it?
                "ioctl" => !arguments.contains("TCGETS"),
                call => !HARMLESS.contains(&call),
            }
        };
        trace
            .lines()
            // "1234  openat(…": the number is that of the process.
            .map(|line| line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start())
            .filter(|line| !line.starts_with("---") && !line.starts_with("+++"))
            // The beginning of such a call was on another line.
            .filter(|line| !line.starts_with("<... "))
            .filter(is_harm)
            .map(str::to_owned)
            .collect()
    }

    /// Runs a command under strace; gives its exit status, its output and the trace.
    fn traced(program: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("trace");
        let ran = Command::new("strace")
            .args(["-f", "-y", "-qq", "-s", "200", "-o"])
            .arg(&trace)
            .arg(program)
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("strace is there");
        let output = [ran.stdout, ran.stderr].concat();
        (
            ran.status.code(),
            String::from_utf8_lossy(&output).into_owned(),
            std::fs::read_to_string(trace).unwrap(),
        )
    }

    /// A detector that finds nothing must be one that would have found something.
    #[test]
    fn the_detector_finds_what_does_harm() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let cases = [
            (format!("> {at}/file"), "O_WRONLY"),
            (format!(">> {at}/file"), "O_WRONLY"),
            (format!("mkdir {at}/folder"), "mkdir"),
            (format!("ln -s x {at}/link"), "symlink"),
            (format!("mv {at}/file {at}/other"), "rename"),
            (format!("chmod 600 {at}/other"), "fchmod"),
            (format!("touch -d yesterday {at}/other"), "utime"),
            (format!("rm {at}/other"), "unlink"),
            (format!("rmdir {at}/folder"), "rmdir"),
            ("getent hosts no.such.name.invalid || true".to_owned(), "socket"),
        ];
        for (command, expected) in cases {
            let (status, output, trace) = traced("/bin/sh", &["-c", &command]);
            assert_eq!(status, Some(0), "{command}: {output}");
            let harm = harm(&trace);
            assert!(harm.iter().any(|line| line.contains(expected)), "{command}: {harm:#?}");
        }
    }

    /// What is to be run, its exit status, and what must be in the trace for the run to count.
    type Case<'a> = (&'a [&'a str], i32, &'a str);

    fn only_looks(cases: &[Case<'_>]) {
        for (arguments, expected, seen) in cases {
            let (status, output, trace) = traced(env!("CARGO_BIN_EXE_landfall"), arguments);
            assert_eq!(status, Some(*expected), "{arguments:?}: {output}");
            assert!(!output.is_empty(), "{arguments:?}");
            assert!(trace.contains(seen), "{arguments:?}: {seen} is not in the trace:\n{trace}");
            assert_eq!(harm(&trace), Vec::<String>::new(), "{arguments:?}");
        }
    }

    const SEED: &str = "tests/fixtures/seed-lts.conf";

    /// An operator runs it on the server that a thousand nodes boot from.
    #[test]
    fn plan_changes_nothing_and_speaks_to_nobody() {
        let fixtures = "tests/fixtures/plan";
        let mac = "52:54:00:aa:bb:cc";
        let (folder, squashfs) =
            (format!("{fixtures}/image"), format!("{fixtures}/image.squashfs"));
        let (lease, nodes) = (format!("{fixtures}/lease.json"), format!("{fixtures}/nodes"));
        let (old, new) = (format!("{fixtures}/old.conf"), format!("{fixtures}/new.conf"));
        let static_address =
            "ip=10.0.0.5:boot.example.org::24:::off root=nbd:nowhere.example.org:x";
        let json = ["--format", "json"];
        only_looks(&[
            (&["plan", "ip=dhcp root=dhcp"], 0, "/sys"),
            (&["plan", "--config", SEED, "--mac", mac], 0, SEED),
            (&["plan", "--config", SEED, "--lease", &lease, "--image", &folder], 0, &lease),
            (
                &[&["plan", "--config", SEED, "--lease", &lease, "--image", &squashfs], &json[..]]
                    .concat(),
                0,
                &squashfs,
            ),
            (&["plan", "--config", SEED, "--mac", mac, "--cmdline", static_address], 0, SEED),
            (&["plan", "--diff", &old, &new, "--nodes", &nodes, "--image", &folder], 1, &nodes),
            (&["plan", "--config", "/nowhere", "--mac", mac], 2, "/nowhere"),
        ]);
    }

    #[test]
    fn check_and_settings_change_nothing_and_speak_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken.conf");
        let text =
            "include more.conf\n[default]\njunk\nPREINIT_1=\"touch x; )\"\nA=\"$(touch y)\"\n";
        std::fs::write(&broken, text).unwrap();
        std::fs::write(folder.path().join("more.conf"), "[x]\nA=1\n").unwrap();
        let broken = broken.to_str().unwrap();
        only_looks(&[
            (&["check", SEED], 0, SEED),
            (&["check", "--strict", "--format", "json", SEED, broken], 2, "more.conf"),
            (&["check", "--substitution", broken, "/nowhere"], 2, "/nowhere"),
            (&["settings"], 0, "write(1<"),
            (&["settings", "--man"], 0, "LTS.CONF"),
        ]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
