//! One row for each thing that is reported: the file, and where what is said with which word.

use super::*;

const SEED: &str = include_str!("../../../tests/fixtures/seed-lts.conf");

/// `E line:column: message`, or `W …`.
fn said(report: &Report) -> Vec<String> {
    let list = report.findings.iter().map(|finding| {
        let severity = if finding.severity == Severity::Error { 'E' } else { 'W' };
        let column = report.source.column(finding.span);
        format!("{severity} {}:{column}: {}", finding.span.line, finding.text)
    });
    list.collect()
}

fn on(text: &str) -> Report {
    check("lts.conf", text.as_bytes().to_vec(), false)
}

#[test]
#[rustfmt::skip]
fn every_mistake_is_reported_at_its_place() {
    // ` / ` separates lines. What is expected begins with severity and place, and has the word.
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("[default] / SERVER=10.0.0.1",                                 &[]),
        // The language.
        ("[default] / junk / A=1",                                      &[("E 2:1", "neither a [section]")]),
        ("A=1 / [default]",                                             &[("E 1:1", "before the first [section]")]),
        ("[default] / A = b=c",                                         &[("E 2:6", "double quotes")]),
        ("[default] / A=\"1\" B=\"2\"",                                 &[("E 2:7", "B is not set")]),
        ("[default] / A=\"x",                                           &[("E 2:3", "not closed")]),
        ("[default] / FSTAB-1=\"/dev/a /b ext4 ro\"",                   &[("E 2:1", "cannot be the name")]),
        // Names.
        ("[default] / PREINT_01=\"a\"",                                 &[("W 2:1", "PREINT_01 is no setting")]),
        ("[default] / RCFILE1=\"a\"",                                   &[("W 2:1", "RCFILE1 is no setting")]),
        ("[default] / HOSTNAM=a / [x] / HOSTNAM=b",                     &[("W 2:1", "(and 1 more of it)")]),
        ("[default] / MY_OWN=a",                                        &[]),
        ("[default] / SCREEN_07=ldm / [x] / SCREEN_07=rdesktop",        &[("W 2:1", "SCREEN_07 has no effect (and 1 more")]),
        ("[default] / A=1 / B=2 / a=3",                                 &[("W 2:1", "A is set again on line 4")]),
        // Values.
        ("[default] / CONFIGURE_FSTAB=1",                               &[("W 2:17", "reads this as false")]),
        ("[default] / DNS_SERVER = \"10.0.0.1 10.0.0.256\"",            &[("E 2:24", "no IP address")]),
        ("[default] / DNS_SERVER = \"10.0.0.1   10.0.0.256\"",          &[("E 2:26", "no IP address")]),
        ("[default] / DNS_SERVER = \"$IPV4DNS0\"",                     &[]), // only a machine knows
        ("[default] / DNS_SERVER = \"$IPV4DNS0 10.0.0.1$X x\" / X=7",       &[("E 2:36", "no IP address")]),
        ("[default] / FSTAB_1=\"$A\" / A=\"a b c d\"",                      &[]),
        ("[default] / DNS_SERVER=NONE",                                 &[]),
        ("[default] / DNS_SERVER='NONE'",                               &[("W 2:12", "double quotes only"), ("E 2:13", "no IP address")]),
        ("[default] / A=\"$B $C $B\"",                                  &[("W 2:4", "$B is set nowhere"), ("W 2:7", "$C is")]),
        ("[default] / TIMEZONE=Europe/Praha",                           &[("W 2:10", "no time zone")]),
        ("[default] / FSTAB_1=\"/dev/a  /b ext4 ro 0 x\"",              &[("E 2:31", "two numbers")]),
        ("[default] / FSTAB_1=\"a /b ext4 ro\" / FSTAB_2=\"c /b/ ext4 ro\"", &[("W 3:12", "FSTAB_1 on line 2 has /b as well")]),
        ("[default] / FSTAB_1=\"a /b ext4 ro\" / [n] / FSTAB_2=\"c /b ext4 ro\"", &[("W 4:12", "FSTAB_1 on line 2")]),
        ("[default] / FSTAB_1=\"a /b ext4 ro\" / [n] / FSTAB_1=\"c /b ext4 ro\"", &[]),
        ("[m] / FSTAB_1=\"a /b ext4 ro\" / [n] / FSTAB_2=\"c /b ext4 ro\"", &[]),
        ("[node*] / HOSTNAME=a / [b] / HOSTNAME=b",                     &[("W 2:10", "every node of [node*]")]),
        // The network: the words of the command line, each at its place.
        ("[default] / NET_IP=\"eth0:dhcp  eth1:auto6\" / NET_HANDOVER=static", &[]),
        ("[default] / NET_IP=\"eth0:dhcp  eth1:dhpc\"",                 &[("E 2:20", "may be dhcp")]),
        ("[default] / NET_IP = \"10.0.0.5:::33::eth0:none\"",           &[("E 2:11", "field 4")]),
        ("[default] / NET_IP = \"10.0.0.5:::33::$DEVICE:none\"",        &[]), // only a machine knows
        ("[default] / NET_BOND=\"bond0:eth0,eth1:mode=802.3ad,miimom=100\"", &[("E 2:11", "miimom")]),
        ("[default] / NET_VLAN=\"bond0.5:bond0 storage:bond0\"",        &[("E 2:25", "number of the VLAN")]),
        ("[default] / NET_VLAN=\"v5:eth0 w5:eth0\"",                    &[("E 2:11", "VLAN 5 over eth0 already")]),
        ("[default] / NET_BRIDGE=\"br0:\" / NET_IFNAME=data:52:54:00:aa:bb", &[("E 3:12", "hardware address")]),
        ("[default] / NET_ROUTE=10.1.0.0/16:10.0.0.256",                &[("E 2:11", "gateway")]),
        ("[default] / NET_NAMESERVER=\"10.0.0.53 ns1\"",                &[("E 2:27", "name server")]),
        ("[default] / NET_HANDOVER=frozen",                             &[("E 2:14", "dhcp, static or unmanaged")]),
        ("[default] / NET_BOMD=bond0",                                    &[("W 2:1", "NET_BOMD is no setting")]),
        // Expansion.
        ("[default] / A=\"x $(date) y\"",                               &[("E 2:6", "would run a command")]),
        ("[default] / A=\"x `date` y\"",                                &[("E 2:6", "would run a command")]),
        ("[default] / A=\"\\$(date) \\`date\\`\"",                      &[]),
        ("[default] / RCFILE_1=\"for i in a; do b $i; done\"",          &[("W 2:28", "$i is set nowhere")]),
        ("[default] / X=1 / A=\"$X ${X} $IPV4ADDR $filename\"",         &[]),
        ("[default] / RCFILE_1=\"awk '{print $1}'\"",                   &[("W 2:23", "own parameter")]),
        // Sections.
        ("[default] / A=1 / [DEFAULT] / B=2",                           &[("E 3:1", "already on line 1")]),
        ("[n] / A=1 / [N] / B=2",                                       &[("E 3:1", "already on line 1")]),
        ("[52-54-00-aa-bb-cc] / A=1",                                   &[("W 1:2", "with colons")]),
        ("[52:54:00:aa:bb:cc] / A=1 / [10.0.0.5] / A=1 / [n-1.a.org] / A=1", &[]),
        ("[10.0.0.300] / A=1",                                          &[("E 1:2", "no IPv4 address")]),
        ("[10.0.0.0/24] / A=1",                                         &[("E 1:2", "no network masks")]),
        ("[52:54:00:aa:bb] / A=1",                                      &[("E 1:2", "no MAC address")]),
        ("[node_1] / A=1",                                              &[("W 1:2", "no host name")]),
        ("[disk_less] / A=1 / [n] / LIKE=disk_less",                    &[]),
        ("[no*] / A=1 / [node*] / A=2",                                 &[("W 3:2", "[no*] on line 1")]),
        ("[node*] / A=1 / [no*] / A=2",                                 &[]),
        // LIKE.
        ("[n] / LIKE=nope",                                             &[("E 2:6", "no section [nope]")]),
        ("[n] / LIKE=worker / [workers] / A=1",                          &[("E 2:6", "no section [worker]")]),
        ("[x] / A=1 / [y] / A=1 / [n] / LIKE=\"y x\"",                  &[("E 6:7", "no section [y x]")]),
        ("[default] / LIKE=x / [x] / A=1",                              &[("W 2:1", "nothing in [default]")]),
        ("[n] / LIKE=n",                                                &[("W 2:6", "back to [n]")]),
        ("[a] / LIKE=b / [b] / LIKE=c / [c] / LIKE=b",                  &[("W 6:6", "back to [b]")]),
        // Keys for nobody.
        ("[default] / SSH_HOST_KEYS=generate / SSH_AUTHORIZED_KEYS_1=$K / K=1", &[("W 2:1", "(and 1 more of its kind)")]),
        ("[default] / SSH_HOST_KEYS=generate / KEEP_SYSTEM_SERVICES=\"a ssh\"", &[]),
        ("[default] / SSH_HOST_KEYS=generate / [n] / ENABLE_SYSTEM_SERVICES=ssh.service", &[]),
        ("[default] / A=1 / [n] / SSH_HOST_KEYS=generate / [m] / KEEP_SYSTEM_SERVICES=ssh", &[("W 4:1", "ssh is removed")]),
        ("[n] / SSH_HOST_KEYS=generate / LIKE=m / [m] / KEEP_SYSTEM_SERVICES=sshd", &[]),
        ("[10.0.0.1] / HOSTNAME=m / SSH_HOST_KEYS=generate / [m] / KEEP_SYSTEM_SERVICES=sshd", &[]),
        ("[n] / SSH_HOST_KEYS=generate / [m*] / KEEP_SYSTEM_SERVICES=sshd", &[]),
        ("[default] / KEEP_SYSTEM_SERVICES=none / SSH_HOST_KEYS=generate", &[("W 3:1", "ssh is removed")]),
        // Secrets.
        ("[default] / A=\"kubeadm  join --token 2a4576.504356e45fa3d365 x\"", &[("W 2:26", "bootstrap token")]),
        ("[default] / DB_PASSWORD=hunter2",                             &[("W 2:13", "secret")]),
        // Scripts.
        ("[default] / PREINIT_1=\"if a; then\" / PREINIT_2=b / PREINIT_3=fi", &[]),
        ("[default] / PREINIT_1=\"if a; then\" / PREINIT_2=b",          &[("E 2:12", "`if` without `fi`")]),
        ("[default] / PREINIT_1=\"a   b\" / PREINIT_2=\"a;   )\"",      &[("E 3:17", "`)` without a `(`")]),
        ("[default] / PREINIT_1=\"a \\$b )\"",                          &[("E 2:18", "`)` without a `(`")]),
        ("[default] / RCFILE_1=\"echo it's\"",                          &[("E 2:18", "is not closed")]),
        ("[default] / RCFILE_1=\"[[ a ]]\"",                            &[("W 2:11", "dash has no [[")]),
        ("[default] / RCFILE_2=fi / RCFILE_10=\"a\" / RCFILE_1=\"if a; then b\"", &[]),
        // Aliases are lines of the same script.
        ("[default] / POST_INIT_1=\"if a; then\" / PREINIT_2=b / POST_INIT_3=fi", &[]),
        ("[default] / RCFILE_1=\"if a; then\" / PREINIT_2=b / RCFILE_3=\"c; fi\"", &[]),
        // A section's own line breaks the script of [default], on that machine only.
        ("[default] / RCFILE_1=\"if a; then\" / RCFILE_2=\"b; fi\" / [n] / RCFILE_2=\"c\"", &[("E 2:11", "(in the script of [n])")]),
        ("[default] / RCFILE_1=a / [n] / RCFILE_2=\"c; done\"",         &[("E 4:14", "`done` without a loop")]),
        ("[x] / RCFILE_2=\"(\" / [n] / LIKE=x",                          &[("E 2:11", "(in the script of [n])")]),
        ("[default] / RCFILE_1=\"(\" / [n] / LIKE=default",              &[("E 2:11", "`(` has no end")]),
        // What is only there for others need not be complete by itself.
        ("[default] / RCFILE_1=\"a\" / [x] / RCFILE_2=\"(\" / [n] / LIKE=x / RCFILE_3=\"b )\"", &[]),
    ];
    let mut wrong = Vec::new();
    for (row, expected) in cases {
        let text = row.replace(" / ", "\n");
        let said = said(&on(&text));
        let agrees = |(line, (place, word)): (&String, &(&str, &str))| {
            line.starts_with(&format!("{place}: ")) && line.contains(word)
        };
        if said.len() != expected.len() || !said.iter().zip(*expected).all(agrees) {
            wrong.push(format!("{row}: {said:#?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_seed_deserves_one_warning() {
    let report = on(SEED);
    let expected = "W 19:56: a bootstrap token that every client can read";
    assert_eq!(said(&report), [expected]);
}

#[test]
fn what_the_parser_takes_silently_is_said_once_a_file() {
    let cases: &[(&[u8], &[&str])] = &[
        (b"\xef\xbb\xbf[default]\nA=1\n", &["W 1:1: the file begins with a byte order mark"]),
        (b"[default]\r\nA=1\r\nB=2\n", &["W 1:10: 2 lines end with CR LF, from this one on"]),
        (
            b"[default]\nA=\"na\xefve\"\nSERVER=a,b\n",
            &[
                "W 2:6: this is not UTF-8; such bytes are lost",
                "E 3:8: this is neither a host name nor an address",
            ],
        ),
        // Places are right behind a mark that does not count.
        (
            b"\xef\xbb\xbf[10.0.0.300]\nA=1\n",
            &[
                "W 1:1: the file begins with a byte order mark",
                "E 1:2: [10.0.0.300] is for nobody: it is no IPv4 address",
            ],
        ),
    ];
    for (bytes, expected) in cases {
        let report = check("lts.conf", bytes.to_vec(), false);
        assert_eq!(said(&report), *expected, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn a_value_that_no_command_can_get_is_an_error() {
    let at_most = format!("[default]\nA={}\n", "x".repeat(128 * 1024 - 3));
    let longer = format!("[default]\nA={}\n", "x".repeat(128 * 1024 - 2));
    assert_eq!(said(&on(&at_most)), Vec::<String>::new());
    assert!(said(&on(&longer))[0].starts_with("E 2:1: the value is longer than 128 KiB"));
    // Two halves of a script that is one argument of the shell.
    let half = "x".repeat(70_000);
    let script = format!(
        "[default]\nPREINIT_1={half}\nPREINIT_2={half}\nRCFILE_1={half}\nRCFILE_2={half}\n"
    );
    let said = said(&on(&script));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("E 3:11: the PREINIT_"), "{said:?}");
}

#[test]
fn commands_in_values_are_right_where_nodes_run_them() {
    let text = b"[default]\nA=\"$(date)\"\nPREINIT_1=\"a $(b) )\"\n".to_vec();
    let report = check("lts.conf", text, true);
    assert_eq!(said(&report), ["E 3:19: shell syntax: `)` without a `(`"]);
}

#[test]
fn text_is_that_of_a_compiler() {
    let text = "[default]\nDNS_SERVER\t= \"10.0.0.1,10.0.0.2\"\nDB_PASSWORD=hunter2\n";
    let report = on(text);
    let expected = "\
error: this is no IP address
 --> lts.conf:2:15
  |
2 | DNS_SERVER = \"10.0.0.1,10.0.0.2\"
  |               ^^^^^^^^^^^^^^^^^
  = help: several are separated by blanks

warning: by its name a secret that every client can read
 --> lts.conf:3:13
  |
3 | DB_PASSWORD=*******
  |             ^^^^^^^
  = help: use a key or a short-lived token instead; who knows it can use it for as long as it is valid

lts.conf: 1 error, 1 warning
";
    assert_eq!(render::text(&[report], false), expected);
    assert_eq!(render::text(&[on("[default]\nA=1\n")], false), "lts.conf: no problems\n");
    assert!(render::text(&[on("junk\n")], true).starts_with("\x1b[1;31merror\x1b[0m"));
}

#[test]
fn a_long_line_is_shown_around_the_place() {
    let text = format!("[default]\nRCFILE_1=\"{} é ) {}\"\n", "a".repeat(300), "b".repeat(300));
    let text = render::text(&[on(&text)], false);
    let lines: Vec<_> = text.lines().collect();
    let caret = lines[4].chars().position(|c| c == '^').unwrap();
    assert_eq!(lines[3].chars().nth(caret), Some(')'), "{text}");
    assert!(lines[3].chars().count() < 120 && lines[3].contains('…'), "{text}");
}

#[test]
fn json_has_a_row_for_each_problem() {
    let mut reports = vec![on("[default]\nA=\"é\" x\n")];
    reports.push(check_file("/nowhere/lts.conf", false));
    let value: serde_json::Value = serde_json::from_str(&render::json(&reports)).unwrap();
    let expected = serde_json::json!({ "problems": [
        {
            "file": "lts.conf", "line": 2, "column": 7, "severity": "error",
            "message": "A: what stands after the closing quote is ignored",
        },
        {
            "file": "/nowhere/lts.conf", "line": 0, "column": 0, "severity": "error",
            "message": "reading /nowhere/lts.conf: No such file or directory",
        },
    ] });
    assert_eq!(value, expected);
}

#[test]
fn the_exit_status_is_for_scripts() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let clean = file("clean", "[default]\nA=1\n");
    let warned = file("warned", "[default]\nA=1\nA=2\n");
    let wrong = file("wrong", "junk\n");
    let cases: &[(&[&str], u8)] = &[
        (&[&clean], 0),
        (&[&warned], 0),
        (&[&warned, "--strict"], 1),
        (&[&clean, "--strict"], 0),
        (&[&wrong], 2),
        (&[&warned, &wrong, "--strict"], 2),
        (&["/nowhere/at-all"], 2),
    ];
    for (arguments, status) in cases {
        let mut parser = lexopt::Parser::from_args(*arguments);
        let output = run(&mut parser).unwrap();
        assert_eq!(output.status, ExitCode::from(*status), "{arguments:?}: {}", output.text);
    }
    for arguments in [&[][..], &["--format", "xml", "x"], &["--nonsense", "x"]] {
        assert!(run(&mut lexopt::Parser::from_args(arguments)).is_err(), "{arguments:?}");
    }
}

proptest::proptest! {
    /// Places are in the file, whatever it holds.
    #[test]
    fn no_file_is_too_strange(pieces in proptest::collection::vec(proptest::prop_oneof![
        "[\\[\\]=\"'#\\\\$({`} \n\r\té]",
        "(A|FSTAB_1|LIKE|default|node1|RCFILE_1|PREINIT_2|SYSCTL_1|FILE_1|HOSTS_1|NONE|\\*|\n\\[default\\]\n|=\"|\"\n)",
    ], 0..80)) {
        let text = pieces.concat();
        let report = on(&text);
        for finding in report.findings.iter() {
            let line = report.source.line(finding.span.file, finding.span.line);
            proptest::prop_assert!(finding.span.line >= 1, "{finding:?} in {text:?}");
            proptest::prop_assert!(finding.span.line <= text.matches('\n').count() + 1, "{finding:?} in {text:?}");
            proptest::prop_assert!(line.is_char_boundary(finding.span.at.min(line.len())), "{finding:?} in {text:?}");
        }
        render::text(&[report], true);
    }
}

/// Two megabytes for five thousand nodes, with a script that goes over several lines.
#[test]
#[ignore = "measures; worth something with --release only"]
fn a_file_of_five_thousand_sections_is_quick() {
    let mut text = String::from(
        "[default]\nPREINIT_1=\"if [ -e /dev/sda ]; then\"\nPREINIT_2=\"echo yes\"\nPREINIT_5=fi\n",
    );
    for class in 0..10 {
        text +=
            &format!("[class{class}]\nFSTAB_9{class}=\"/dev/c /srv/{class} ext4 nofail 0 0\"\n");
    }
    for rack in 0..200 {
        text += &format!("[rack{rack}-*]\nRACK={rack}\n");
    }
    for node in 0..4790 {
        let (high, low) = (node / 256, node % 256);
        text += &format!(
            "[52:54:00:00:{high:02x}:{low:02x}]\nLIKE = class{}\nHOSTNAME = rack{}-node{node}\n\
             DNS_SERVER = \"10.0.{high}.{low} 10.0.0.1\"\n\
             FSTAB_01 = \"/dev/data/ssh{node} /etc/ssh ext4 nofail,noatime,nodiratime 0 0\"\n\
             FSTAB_02 = \"/dev/data/docker{node} /var/lib/docker ext4 nofail,noatime 0 0\"\n\
             PREINIT_3 = \"mkdir -p /srv/{node} && chown root:root /srv/{node}\"\n\
             RCFILE_99 = \"for i in a b c; do echo \\$i {node} | tee -a /var/log/{node}.log; done\"\n\
             SYSCTL_1 = \"net.ipv4.ip_forward=1 kernel.panic={}\"\n",
            node % 10,
            node % 200,
            node % 60
        );
    }
    let began = std::time::Instant::now();
    let report = on(&text);
    println!("{} bytes in {:?}", text.len(), began.elapsed());
    assert_eq!(said(&report), Vec::<String>::new());
}
