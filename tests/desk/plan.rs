//! `landfall plan`, on everything that a question can name: folders and squashfs images, leases,
//! lists of nodes, names that only a DNS server could know.

use std::path::Path;
use std::process::Stdio;

use super::{AGENT, trace};

/// An operator runs it on the server that a thousand nodes boot from.
#[test]
fn a_plan_changes_nothing_and_speaks_to_nobody() {
    let seed = "tests/fixtures/seed-lts.conf";
    let at = |name: &str| format!("tests/fixtures/plan/{name}");
    let (folder, squashfs, lease) = (at("image"), at("image.squashfs"), at("lease.json"));
    let (old, new, nodes, mistakes) =
        (at("old.conf"), at("new.conf"), at("nodes"), at("mistakes.conf"));
    let mac = "52:54:00:aa:bb:cc";
    let names = "ip=10.0.0.5:boot.example.org::24:::off root=nbd:nbd.example.org:x";
    // Arguments, and what shows that the run got as far as that.
    let cases: &[(&[&str], &str)] = &[
        (&["plan", names], "write(1, \"network: 10.0.0.5"),
        (&["plan", "--config", seed, "--mac", mac], seed),
        (&["plan", "--config", seed, "--lease", &lease, "--image", &folder], "\"/etc/fstab\""),
        (
            &[
                "plan", "--config", seed, "--lease", &lease, "--image", &squashfs, "--format",
                "json",
            ],
            &squashfs,
        ),
        (&["plan", "--config", seed, "--mac", mac, "--cmdline", names], "write(1, \"Plan for"),
        (&["plan", "--config", &mistakes, "--mac", mac], "write(1, \"Plan for"),
        (
            &["plan", "--diff", &old, &new, "--nodes", &nodes, "--image", &folder],
            "write(1, \"From ",
        ),
        (&["plan", "--config", "/nowhere", "--mac", mac], "write(2, \"landfall: "),
        (&["help", "plan"], "write(1, \"landfall plan"),
    ];
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (arguments, seen) in cases {
        let program = [&[AGENT], *arguments].concat();
        let (objections, has_seen) = trace(here, &program, Stdio::null(), seen);
        assert!(objections.is_empty(), "{arguments:?}:\n{}", objections.join("\n"));
        assert!(has_seen, "{arguments:?}: {seen} is not in the trace");
    }
}
