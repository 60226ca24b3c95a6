//! Where tests may set up networks of their own: without rights, and without disturbing anybody.

use std::process::Command;

/// Set for the run inside.
const INSIDE: &str = "LANDFALL_TEST_IN_NAMESPACE";

/// Runs `test`, which is the test of this name and ignored by default, in new namespaces: by another
/// run of the program, since one thread of many cannot enter them.
pub fn in_namespaces(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "--test-threads=1", name])
        .env(INSIDE, "1")
        .status()
        .expect("unshare is part of util-linux");
    assert!(status.success(), "{name} inside its namespaces");
}
