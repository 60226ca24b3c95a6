//! What is called an error here is what the node leaves out, and nothing else is.

use std::fs;

use super::values;
use crate::config::{Known, Origin, Settings, Severity};
use crate::directives::{Facts, Tree, foresee};
use crate::error::Cause;

/// Whether a desk would be told of an error.
fn is_error(name: &str, value: &str) -> bool {
    let mut remarks = Vec::new();
    values::check(Known::find(name).unwrap().value, value, &mut remarks);
    remarks.iter().any(|remark| remark.severity == Severity::Error)
}

/// Whether a node with this image would say that the value makes no sense; what the image lacks is
/// another matter.
fn is_refused(name: &str, value: &str, image: &Tree) -> bool {
    let mut settings = Settings::default();
    // The name is made of what a node knows for sure.
    settings.insert("HOSTNAME_EXTRA", "mac", Origin::Agent);
    settings.insert(name, value, Origin::Agent);
    let facts = Facts {
        mac: "52:54:00:aa:bb:cc".parse().ok(),
        server: Some("10.0.0.1".to_owned()),
        configured: true,
        ..Facts::default()
    };
    let errors = foresee(&settings, &facts, image).errors;
    errors.iter().any(|(_, error)| matches!(error.cause(), Cause::Invalid(_)))
}

#[test]
#[rustfmt::skip]
fn an_error_is_what_the_node_would_leave_out() {
    let long = "a".repeat(65);
    let cases: &[(&str, &[&str])] = &[
        ("HOSTNAME",         &["a", "a_b", "-a", "a b", "x.y", "a/b", "a,b b", "é", &long, &long[..64]]),
        ("HOSTNAME_BASE",    &["node-", "my_node", "-", "a b", "a/b", "a:b", &long]),
        ("HOSTNAME_EXTRA",   &["mac", "a", "a b", "a/b", "MAC"]),
        ("HOSTNAME_ADDRESS", &["off", "OFF", "10.0.0.1", "fd00::1", "10.0.0", "10.0.0.256", "no", "10.0.0.1 b"]),
        ("DNS_SERVER",       &["10.0.0.1", "fd00::1 10.0.0.1", "10.0.0.256", "10.0.0.1,10.0.0.2", "a"]),
        ("SEARCH_DOMAIN",    &["a.org b.org.", "a..b", "a_b", ".", "a.org,b.org", "a/b"]),
        ("SYSLOG_HOST",      &["log", "log:514", "log:0", "log:65536", "log:", "fd00::1", "[fd00::1]:514", "[fd00::1]", "[fd00::1]x", "[a]:1", "@log", "my_log:1", "a b:1", "a,b"]),
        ("HWCLOCK",          &["utc", "UTC", "Local", "localtime", "gmt", "1"]),
        ("TIMEZONE",         &["Europe/Prague", "Europe/Praha", "/Europe/Prague", "a b", "../x", "Etc/GMT+1", "a//b"]),
        ("SHUTDOWN_TIME",    &["7:5", "07:05", "23:59:59", "24:00", "19:00:60", "0730", "+1:00", "noon", "1:2:3:4", "", "007:00"]),
        ("MASK_SYSTEM_SERVICES",   &["ssh", "ssh.service foo.timer", "getty@tty1", "foo/bar", "a,b", "\\x2d"]),
        ("ENABLE_SYSTEM_SERVICES", &["foo/../bar", "a;b"]),
        ("FSTAB_1",          &["/dev/a /b ext4 ro", "/dev/a /b ext4 ro 0 0", "/dev/a", "/dev/a /b", "/dev/a b ext4 ro", "/dev/a none swap sw 0 0", "/dev/a x swap sw", "/dev/a none ext4 ro", "/dev/a /b/../c ext4 ro 0 0", "/dev/a /b/./c ext4 ro 0 0", "/dev/a /b ext4 ro 0 x", "/dev/a /b ext4 ro 0 0 0", "/dev/a /b ext4 ro 300 0", "/dev/a /b ext4 ro 0 # x", "/dev/a /b ext4 ro,,x", "# x", "/dev/a /b\\040c ext4 ro 0 0"]),
        ("NFS_HOME",         &["/home", "srv:/home", "[fd00::1]:/home", "srv:home", "home", "srv:/a b"]),
        ("CONTAINER_DIRS",   &["auto", "OFF", "auto /b", "/a", "/", "/a/../b", "/b=tmpfs:0", "/b=tmpfs:2G", "/b=tmpfs:2GB", "/b=tmpfs:150%", "/b=/dev/", "/b=/dev/x:ro", "/b=sda", "/b /b/", "b"]),
        ("ZRAM_SWAP",        &["2G", "50%", "Off", "0", "2GB", "a", "2G 3G"]),
        ("OVERLAY_DIR",      &["/nope", "/a b", "overlay", "/", "//", "/etc/../x", "/a/./b", "/a/"]),
        ("IMAGE_FILES_1",    &["/nope /etc/*", "etc/*", "/etc/../x", "/etc/./x", "/a b"]),
        ("SYSCTL_1",         &["a.b=1", "a.b = 1", "a.b=1 c.d=2", "a.b=1 2 3", "a.b", "a.b 1", "a.b=", "a.b=1 c.d=", "panic=1", "-a/b=1", "sysctl -w a.b=1", "a.b=1 =2", "a..b=1", "a.b=1 c.d 2"]),
        ("SSH_HOST_KEYS",    &["generate", " generate ", "Generate", "true", "generate x"]),
        ("SSH_AUTHORIZED_KEYS_1", &["ssh-ed25519", "x", "ssh-ed25519 AAAA", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"]),
        ("FILE_1",           &["/a content=x", "/a", "a content=x", "/a/../b content=x", "/a/ content=x", "/a//b content=x", "/a mode=5 content=x", "/a mode=00644 content=x", "/a mode=+644 content=x", "/a base64=aGVsbG8", "/a base64=", "/a content=C:\\windows", "/proc/x content=x", "/a mod=1 content=x"]),
        ("XKBLAYOUT",        &["cz,us", "cz us", "cz'", "", "grp:alt_shift_toggle", "é"]),
        ("XKBMODEL",         &["pc105", "pc 105", "$(a)"]),
    ];
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path.trim_start_matches('/'));
    for path in ["/etc/rsyslog.d", "/etc/cron.d", "/etc/ssh", "/root", "/usr/lib/systemd/system", "/run"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    fs::write(at("/etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(at("/etc/group"), "root:x:0:\n").unwrap();
    let image = Tree::open(folder.path()).unwrap();
    let (mut wrong, mut refused) = (Vec::new(), 0);
    for (name, values) in cases {
        for value in *values {
            let (here, there) = (is_error(name, value), is_refused(name, value, &image));
            refused += usize::from(there);
            if here != there {
                let is = |error| if error { "wrong" } else { "right" };
                wrong.push(format!("{name}={value:?} is {} here and {} on the node", is(here), is(there)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused > 80, "only {refused} are refused at all");
}
