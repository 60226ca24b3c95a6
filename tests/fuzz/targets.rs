//! What holds for any input, one function a target. Each panics where a promise is broken.

mod answers;
mod answers6;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::sync::OnceLock;
use std::time::Duration;

use landfall::cmdline::{self, Request};
use landfall::config::{
    self, Evaluation, Identity, Location, Origin, Place, Placeholders, Reading, Settings,
    Substitution, Text,
};
use landfall::desk;
use landfall::directives::{self, Facts, Tree};
use landfall::error::Error;
use landfall::fetch::Url;
use landfall::machine;
use landfall::net::{self, Lease, Lease6, Leases, Mac, ra};
use landfall::plan::{Plan, RootOffer};

pub use answers::{dhcp4, dns};
pub use answers6::dhcp6;

/// As it is run by name.
pub type Target = fn(&[u8]);

pub const TARGETS: &[(&str, Target)] = &[
    ("lts_conf", lts_conf),
    ("import", import),
    ("cmdline", cmdline),
    ("families", families),
    ("check", check),
    ("dhcp4", dhcp4),
    ("dns", dns),
    ("dhcp6", dhcp6),
    ("ra", ra),
];

/// A whole file, with files that it includes: whatever it is, every complaint has a place in one
/// of the files, and of the first evaluation nothing is left in the second.
pub fn lts_conf(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // What an include gives is a part of the input: what stands behind the first form feed.
    let (main, included) = text.split_once('\u{c}').unwrap_or((&text, ""));
    let main = Text { name: "lts.conf".to_owned(), text: main.to_owned() };
    let reading = Reading::of(main, &mut |_, path| match path {
        "missing" => Err(Error::refused("including a file", "it is missing")),
        path => Ok(Text { name: path.to_owned(), text: included.to_owned() }),
    });
    for problem in &reading.problems {
        is_inside(&problem.place, &reading);
    }
    let refused = evaluate(&reading, Substitution::Refuse);
    let again = evaluate(&reading, Substitution::Refuse);
    assert_eq!(refused, again, "the same file means something else the second time");
    let deferred = evaluate(&reading, Substitution::Defer);
    let mut commands = 0;
    let run = evaluate(
        &reading,
        Substitution::Run(&mut |_, variables| {
            commands += 1;
            Ok(variables.iter().map(|(name, _)| name.len()).sum::<usize>().to_string())
        }),
    );
    // A name that a command gave chooses sections of its own.
    if run.settings.get("HOSTNAME") == deferred.settings.get("HOSTNAME") {
        assert!(
            run.settings.len() >= deferred.settings.len(),
            "a command that succeeds takes a setting away"
        );
    }
}

fn evaluate(reading: &Reading, substitution: Substitution<'_>) -> Evaluation {
    let base = [
        ("IPV4ADDR".to_owned(), "10.0.0.5".to_owned(), Origin::Dhcp),
        ("filename".to_owned(), "/ltsp/amd64/core.0".to_owned(), Origin::Dhcp),
        ("A".to_owned(), "typed".to_owned(), Origin::CommandLine),
    ];
    let evaluation = reading.evaluate(&base, &node(), substitution);
    for problem in &evaluation.problems {
        is_inside(&problem.place, reading);
    }
    for (name, setting) in evaluation.settings.iter() {
        assert!(!name.is_empty() && !name.contains(['=', '\0', '\n']), "a setting called {name:?}");
        assert!(!setting.value.contains('\0'), "{name} has a value that no program can be given");
        if let Origin::File(place) = &setting.origin {
            is_inside(place, reading);
        }
    }
    // Every member once, whatever it is called.
    let families: BTreeMap<_, _> = evaluation.settings.family("A").into_iter().collect();
    let members = evaluation.settings.iter().filter(|(name, _)| name.starts_with('A')).count();
    assert_eq!(families.len(), members);
    evaluation
}

/// Who is told of a place looks there: it must exist. The end of a line, and the line behind the
/// last one, are places too.
fn is_inside(place: &Place, reading: &Reading) {
    let file = reading.files.get(place.file);
    let file = file.unwrap_or_else(|| panic!("{place:?}: there are {} files", reading.files.len()));
    let mut lines = file.text.split('\n');
    let line = place.line.checked_sub(1).and_then(|before| lines.nth(before));
    let line = line.unwrap_or_else(|| panic!("{place:?} of {:?}", file.text));
    let columns = line.chars().count() + 1;
    assert!((1..=columns).contains(&place.column), "{place:?} of the line {line:?}");
}

/// One value. What comes of it has no more of a backslash or a variable than was put in, and a
/// value without any is itself.
pub fn import(data: &[u8]) {
    let value = String::from_utf8_lossy(data).replace(['\n', '\r', '\0'], " ");
    let text = format!("[default]\nX = one\nY = \"two words\"\nV = \"{value}\"\nLAST = 1\n");
    let reading = Reading::of_text(&text);
    let evaluation = evaluate(&reading, Substitution::Refuse);
    assert_eq!(evaluation.settings.get("X"), Some("one"));
    assert_eq!(evaluation.settings.get("LAST"), Some("1"), "a value must not eat its neighbour");
    for name in evaluation.settings.iter().map(|(name, _)| name) {
        let known = ["A", "IPV4ADDR", "filename", "X", "Y", "V", "LAST"].contains(&name);
        assert!(known, "{name} was set by the value {value:?}");
    }
    let plain = !value.contains(['\\', '$', '`', '"']);
    if plain && !value.trim().eq_ignore_ascii_case("none") {
        let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect();
        let got: Option<Vec<_>> = evaluation.settings.get("V").map(words);
        assert_eq!(got, Some(words(&value)), "{value:?}");
    }
}

/// A kernel command line, and in the lines behind it what DHCP may say: nothing of it stops a
/// boot, and what is not understood has a place.
pub fn cmdline(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let line = lines.next().unwrap_or_default();
    for word in cmdline::words(line) {
        assert!(line.is_char_boundary(word.at), "{word:?} of {line:?}");
        assert!(line.contains(word.key) && word.value.is_none_or(|value| line.contains(value)));
    }
    let request = Request::read(line);
    for problem in &request.problems {
        assert!(line.is_char_boundary(problem.at), "{problem:?} of {line:?}");
        assert!(!problem.why.is_empty());
    }
    // Nothing that contradicts itself reaches the kernel.
    let left = request.network.contradictions();
    assert!(left.is_empty(), "{left:?} of {line:?}");
    for bond in &request.network.bonds {
        let _ =
            (bond.options.attributes(), bond.options.networkd(), bond.options.network_manager());
    }
    let plan = Plan::decide(request, &machine::Identity::default());
    assert!(!plan.to_string().is_empty());

    let [root_path, boot_server, filename] = [(); 3].map(|()| lines.next());
    let lease = Lease {
        root_path: root_path.map(str::to_owned),
        tftp_server: boot_server.map(str::to_owned),
        filename: filename.map(str::to_owned),
        ..Lease::of_address([10, 0, 0, 5].into(), 24)
    };
    let origin = plan.network.description.origin();
    let leases = Leases::of_ipv4(lease);
    let variables = net::variables("eth0", "2", MAC, origin, &plan.network, &leases);
    let base = config::base(&plan, variables, boot_server.map(str::to_owned));
    let mut settings = Settings::default();
    for (name, value, origin) in base {
        settings.insert(name, value, origin);
    }
    // A root, or the reason why there is none.
    let _ = plan.root(RootOffer { root_path, boot_server, mac: None }, &settings);
    let location = Location {
        server: boot_server,
        boot_image: plan.boot_image.as_deref(),
        filename,
        ltsconf: settings.get("LTSCONF"),
        arch: "x86_64",
    };
    let placeholders = Placeholders {
        mac: Some(MAC),
        hostname: filename.map(str::to_owned),
        arch: "x86_64".to_owned(),
        ..Placeholders::default()
    };
    let template = plan.config.as_deref().unwrap_or(line);
    let filled = placeholders.fill(template).unwrap_or_default();
    for url in location.candidates().into_iter().chain(filled) {
        let shown = url.to_string();
        assert!(shown.parse::<Url>().is_ok(), "{shown:?} is no address");
    }
    for value in [line, root_path.unwrap_or_default()] {
        let _ = (cmdline::nbdroot(value), cmdline::address_request(value));
        let _ = Mac::from_bootif(value);
    }
}

/// A whole file on a desk: every finding is at a place in the file, for people and for programs, and
/// what a boot complains about is never passed over.
pub fn check(data: &[u8]) {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    // In memory, where there is one; a file for each thread.
    let folder = FOLDER.get_or_init(|| {
        let shared = tempfile::tempdir_in("/dev/shm");
        shared.or_else(|_| tempfile::tempdir()).expect("a folder")
    });
    let path = folder.path().join(format!("{:?}", std::thread::current().id()));
    std::fs::write(&path, data).expect("a file");
    let run = |arguments: &[&str]| {
        let words = arguments.iter().map(OsString::from).chain([path.clone().into_os_string()]);
        desk::check::run(&mut lexopt::Parser::from_args(words)).expect("arguments that are known")
    };
    let shown = run(&[]).text;
    let output = run(&["--format", "json"]);
    let findings: serde_json::Value = serde_json::from_str(&output.text).expect("JSON");
    let findings = findings["problems"].as_array().expect("a list");
    assert!(!findings.is_empty() || shown.ends_with(": no problems\n"), "{shown}");

    let text = String::from_utf8_lossy(data);
    let lines: Vec<_> = text.split('\n').collect();
    for finding in findings {
        let number = |name: &str| finding[name].as_u64().map(|number| number as usize);
        let (line, column) = (number("line"), number("column"));
        // What is about a file as a whole has no place in it.
        if line == Some(0) {
            continue;
        }
        let at = line.and_then(|line| lines.get(line.checked_sub(1)?));
        let at = at.unwrap_or_else(|| panic!("{finding}: there are {} lines", lines.len()));
        let columns = at.chars().count() + 1;
        assert!(column.is_some_and(|column| (1..=columns).contains(&column)), "{finding}: {at:?}");
        assert!(finding["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    let reading = Reading::of_text(&text);
    assert!(reading.problems.is_empty() || !findings.is_empty(), "{:?}", reading.problems);
}

/// What somebody on the link says as a router, several times: the first two bytes of each say how
/// long it is, the third how many seconds later the next one comes, the fourth who it is.
pub fn ra(mut data: &[u8]) {
    let mut routers = ra::Routers::default();
    let mut now = Duration::ZERO;
    while let Some((&[high, low, pause, router], rest)) = data.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (message, rest) = rest.split_at(length);
        data = rest;
        if let Ok(said) = ra::parse(message) {
            let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, router.into());
            routers.hear(router, &said, now);
        }
        is_bounded(&routers.lease(now));
        now += Duration::from_secs(pause.into());
        routers.expire(now);
        assert!(routers.next_end().is_none_or(|end| end > now), "something has ended and is there");
    }
}

pub(crate) fn is_bounded(lease: &Lease6) {
    let counts = [
        lease.addresses.len(),
        lease.routers.len(),
        lease.routes.len(),
        lease.prefixes.len(),
        lease.dns.len(),
        lease.search.len(),
        lease.ntp.len(),
        lease.ntp_names.len(),
        lease.boot_params.len(),
    ];
    assert!(counts.iter().all(|count| *count <= 32), "{counts:?}");
    assert!(lease.mtu.is_none_or(|mtu| mtu >= 1280));
    let texts = lease.search.iter().chain(&lease.ntp_names).chain(&lease.boot_params);
    let texts = texts.chain(&lease.hostname).chain(&lease.boot_url);
    for text in texts {
        assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
    }
    let (_, _) = (lease.boot_server(), lease.address());
    let json = serde_json::to_string(lease).expect("JSON");
    assert_eq!(&serde_json::from_str::<Lease6>(&json).expect("the same"), lease);
}

/// Settings that mean anything, with any value, on the image of a small Debian: no family takes
/// another one, or the machine, with it.
pub fn families(data: &[u8]) {
    let text = format!("[default]\n{}", String::from_utf8_lossy(data));
    let evaluation = evaluate(&Reading::of_text(&text), Substitution::Refuse);
    let facts = Facts {
        server: Some("10.0.0.1".to_owned()),
        device: Some("eth0".to_owned()),
        leases: Leases::of_ipv4(Lease::of_address([10, 0, 0, 5].into(), 24)),
        mac: Some(MAC),
        memory_kib: 64 << 20,
        configured: true,
        ..Facts::default()
    };
    let foreseen = directives::foresee(&evaluation.settings, &facts, image());
    let (network, problems) = config::network::description(&evaluation.settings);
    assert!(network.contradictions().is_empty(), "{network:?}");
    assert!(problems.iter().all(|problem| !problem.text.is_empty()));
    for change in &foreseen.changes {
        let path = &change.path;
        assert!(path.starts_with('/') && !path.contains('\0'), "a change of {path:?}");
        assert!(!path.split('/').any(|part| part == ".."), "a change of {path:?}");
    }
}

const MAC: Mac = Mac([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc]);

fn node() -> Identity {
    Identity { hostname: Some("node1".into()), ip: Some([10, 0, 0, 5].into()), mac: Some(MAC) }
}

/// What the families look at; nothing is ever written to it after it is made.
fn image() -> &'static Tree {
    static IMAGE: OnceLock<(tempfile::TempDir, Tree)> = OnceLock::new();
    let (_, tree) = IMAGE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = Tree::open(folder.path()).expect("a folder");
        for (path, text) in [
            (
                "/etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh\n",
            ),
            ("/etc/group", "root:x:0:\nanna:x:1000:\n"),
            ("/etc/fstab", "UUID=1 / ext4 defaults 0 1\n"),
            ("/etc/hosts.ltsp", "10.0.0.8 of-the-site\n"),
            ("/etc/default/keyboard", "XKBMODEL=\"pc105\"\nXKBLAYOUT=\"us\"\n"),
            ("/etc/ssh/sshd_config", "PermitRootLogin no\n"),
            ("/etc/rsyslog.conf", "module(load=\"imuxsock\")\n"),
            ("/etc/rsyslog.d/20-x.conf", "\n"),
            ("/etc/cron.d/e2scrub", "\n"),
            ("/etc/chrony/chrony.conf", "pool 2.debian.pool.ntp.org iburst\n"),
            ("/usr/share/zoneinfo/Europe/Prague", "TZif"),
            ("/usr/lib/systemd/systemd-timesyncd", ""),
            ("/usr/lib/systemd/system/ssh.service", "[Install]\nWantedBy=multi-user.target\n"),
            ("/etc/systemd/system/kubelet.service", "[Install]\nAlias=k.service\n"),
            ("/var/lib/containerd/from-the-image", "x"),
        ] {
            tree.write(path, text, 0o644).expect("a file");
        }
        for path in [
            "/etc/rc.local",
            "/usr/lib/systemd/systemd",
            "/usr/bin/containerd",
            "/usr/sbin/cryptsetup",
            "/usr/bin/ssh-keygen",
        ] {
            tree.write(path, "#!/bin/sh -e\nexit 0\n", 0o755).expect("a program");
        }
        for (path, target) in [
            ("/bin", "usr/bin"),
            ("/sbin", "usr/sbin"),
            ("/lib", "usr/lib"),
            ("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
            ("/etc/localtime", "/usr/share/zoneinfo/Etc/UTC"),
            ("/etc/systemd/system/multi-user.target.wants/kubelet.service", "../kubelet.service"),
        ] {
            tree.link(path, target).expect("a link");
        }
        (folder, tree)
    });
    tree
}
