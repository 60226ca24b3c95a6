//! Configurations that are missing, strange or wrong, and the ways to fetch them.

use anyhow::Result;
use landfall_tests::{
    Dnsmasq, Initramfs, Kernel, Lab, Machine, Nbd, NbdKind, ProbeRoot, SERVER, nginx, tftpd,
};

use crate::{ROOT, usual_root, usual_vm};

/// Where LTSP's rule looks for it when DHCP names the boot file that [`Dnsmasq::tftp`] names.
const PLACE: &str = "ltsp/amd64/lts.conf";

/// Leaves a mark that only the right configuration leaves.
const MARK: &str = "PREINIT_99_MARK = \"echo fetched > /etc/mark\"\n";

/// Boots with `text` as the served configuration (`None`: there is none), and a configuration in
/// the image that leaves another mark; gives the mark left, and the machine.
fn boot_with<R>(
    test: &str,
    text: Option<&str>,
    then: impl FnOnce(&str, &Machine) -> Result<R>,
) -> Result<R> {
    let lab = Lab::new(test)?;
    let files: Vec<_> = text.iter().map(|text| (PLACE, *text)).collect();
    let tftp = lab.served("tftp", &files)?;
    let _dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let _nbd = usual_root(&lab)?;
    let initramfs = Initramfs::new(Kernel::V6_12)
        .config("[default]\nPREINIT_99_MARK = \"echo built-in > /etc/mark\"\n")
        .build()?;

    let machine = lab.vm(Kernel::V6_12).initramfs(initramfs).cmdline(ROOT).boot()?;
    let mark = machine.node()?.file("/etc/mark")?;
    then(mark.trim(), &machine)
}

/// A site whose TFTP server lost the file still boots, and the console says with what.
#[test]
#[ignore = "boots a virtual machine"]
fn without_a_served_configuration_the_images_own_is_used() -> Result<()> {
    boot_with("config-none", None, |mark, machine| {
        assert_eq!(mark, "built-in");
        machine.line("config: warning: asking 10.77.0.1:69 by TFTP for /ltsp/amd64/lts.conf: ")?;
        machine.line("using the image's own /etc/lts.conf").map(drop)
    })
}

/// What a server leaves behind whose disk is full.
#[test]
#[ignore = "boots a virtual machine"]
fn an_empty_configuration_is_as_good_as_none() -> Result<()> {
    boot_with("config-empty", Some(""), |mark, machine| {
        assert_eq!(mark, "built-in");
        machine.line("config: warning: tftp://10.77.0.1/ltsp/amd64/lts.conf: empty")?;
        machine.line("using the image's own /etc/lts.conf").map(drop)
    })
}

/// LTSP's images had a file of their own, which is all that a site without a boot server has.
#[test]
#[ignore = "boots a virtual machine"]
fn the_root_images_own_configuration_is_the_last_resort() -> Result<()> {
    let lab = Lab::new("config-of-root")?;
    let tftp = lab.served("tftp", &[])?;
    let _dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let text = "[default]\nPREINIT_99_MARK = \"echo root-image > /etc/mark\"\n";
    let image = ProbeRoot::new(&lab)?.file("etc/lts.conf", text)?.pack()?;
    let _nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).start()?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    assert_eq!(machine.node()?.file("/etc/mark")?.trim(), "root-image");
    Ok(())
}

/// Longer than any one buffer, and than 64 Ki of the smallest TFTP blocks would allow to guess.
#[test]
#[ignore = "boots a virtual machine"]
fn a_configuration_of_200_kib_is_read_to_its_end() -> Result<()> {
    let mut text = String::from("[default]\n");
    while text.len() < 200 * 1024 {
        text.push_str("# Somebody documents every setting of every machine that ever was.\n");
    }
    text.push_str(MARK);
    boot_with("config-long", Some(&text), |mark, _| {
        assert_eq!(mark, "fetched");
        Ok(())
    })
}

/// Administrators on Windows exist.
#[test]
#[ignore = "boots a virtual machine"]
fn a_configuration_with_dos_line_ends_is_read() -> Result<()> {
    let text = format!("[default]\n{MARK}").replace('\n', "\r\n");
    boot_with("config-crlf", Some(&text), |mark, _| {
        assert_eq!(mark, "fetched");
        Ok(())
    })
}

/// One typing error must not silently drop the rest, as it does in LTSP.
#[test]
#[ignore = "boots a virtual machine"]
fn a_syntax_error_is_reported_with_its_line_and_the_rest_applies() -> Result<()> {
    let text = format!("[default]\nDNS_SERVER = 10.77.0.1\nthis is no setting\n{MARK}");
    boot_with("config-error", Some(&text), |mark, machine| {
        assert_eq!(mark, "fetched");
        machine.line("config: warning: tftp://10.77.0.1/ltsp/amd64/lts.conf: line 3,").map(drop)
    })
}

/// PREINIT commands see every setting, and every DHCP value in LTSP's names.
#[test]
#[ignore = "boots a virtual machine"]
fn preinit_commands_see_settings_and_dhcp_values() -> Result<()> {
    let lab = Lab::new("config-environment")?;
    let text = "[default]\nRACK = b7\nPREINIT_1 = \"env > /etc/environment.seen\"\n";
    let tftp = lab.served("tftp", &[(PLACE, text)])?;
    let _dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let _nbd = usual_root(&lab)?;

    // The last word is LTSP's oldest way, by the environment that the kernel gives to its init.
    let machine = usual_vm(&lab, Kernel::V6_12, "ltsp.shelf=3 ROOM=b12")?.boot()?;
    let seen = machine.node()?.file("/etc/environment.seen")?;
    let wanted = [
        "RACK=b7",
        "SHELF=3",
        "ROOM=b12",
        "SERVER=10.77.0.1",
        "ROOTSERVER=10.77.0.1",
        "IPV4ADDR=10.77.0.",
    ];
    for line in wanted {
        assert!(seen.lines().any(|text| text.starts_with(line)), "no {line} in:\n{seen}");
    }
    Ok(())
}

/// Nodes are listed in one file and described in another, by two people.
#[test]
#[ignore = "boots a virtual machine"]
fn an_included_file_is_fetched_from_beside_the_first() -> Result<()> {
    let lab = Lab::new("config-include")?;
    let text = format!("include nodes.conf\n[default]\nRACK = b7\n{MARK}");
    let nodes = "[52:54:00:77:00:01]\nPREINIT_99_MARK = \"echo $RACK included > /etc/mark\"\n";
    let tftp = lab.served("tftp", &[(PLACE, &text), ("ltsp/amd64/nodes.conf", nodes)])?;
    let _dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    assert_eq!(machine.node()?.file("/etc/mark")?.trim(), "b7 included");
    Ok(())
}

/// What LTSP ran as root in PID 1 runs here when it is asked for, where its programs and files are;
/// by itself it is a line on the console, and the rest applies.
#[test]
#[ignore = "boots a virtual machine"]
fn a_substitution_runs_in_the_real_root_and_only_when_asked_for() -> Result<()> {
    let lab = Lab::new("config-substitution")?;
    let text = format!(
        "[default]\n{MARK}SEEN = \"$(cat /etc/motd)\"\n\
                        PREINIT_1 = \"echo $SEEN > /etc/seen\"\n"
    );
    let tftp = lab.served("tftp", &[(PLACE, &text)])?;
    let _dhcp = Dnsmasq::new().tftp(&tftp).start(&lab)?;
    let _nbd = usual_root(&lab)?;

    {
        let machine = usual_vm(&lab, Kernel::V6_12, "landfall.substitution=on")?.boot()?;
        assert_eq!(machine.node()?.file("/etc/seen")?.trim(), "from the image");
    }
    let machine = usual_vm(&lab, Kernel::V6_12, "")?.boot()?;
    let node = machine.node()?;
    assert_eq!(node.file("/etc/mark")?.trim(), "fetched");
    assert_eq!(node.file("/etc/seen")?.trim(), "");
    machine.line("lts.conf: line 3,").map(drop)
}

/// tftpd-hpa is the TFTP server of LTSP sites, and boot ROM workarounds make it refuse options.
#[test]
#[ignore = "boots a virtual machine"]
fn a_tftp_server_that_negotiates_nothing_serves_as_well() -> Result<()> {
    let lab = Lab::new("config-plain-tftp")?;
    let text = format!("[default]\n{}{MARK}", "# filled up to several blocks\n".repeat(200));
    let folder = lab.served("tftp", &[("site.conf", &text)])?;
    // It does not know windowsize, and takes no refusal of what it does not know.
    let refuse = ["blksize", "tsize", "timeout"].map(|option| ["--refuse", option]);
    let _tftp = tftpd(&lab, &folder, refuse.as_flattened())?;
    let _dhcp = Dnsmasq::new().start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let words = "landfall.config=tftp://10.77.0.1/site.conf";
    let machine = usual_vm(&lab, Kernel::V6_1, words)?.boot()?;
    assert_eq!(machine.node()?.file("/etc/mark")?.trim(), "fetched");
    Ok(())
}

/// One URL for all machines, with what tells them apart in it.
#[test]
#[ignore = "boots a virtual machine"]
fn http_serves_each_machine_its_own_configuration() -> Result<()> {
    let lab = Lab::new("config-http")?;
    let text = format!("[default]\n{MARK}");
    let folder = lab.served("www", &[("nodes/52-54-00-77-00-01.conf", &text)])?;
    let _web = nginx(&lab, &folder)?;
    let _dhcp = Dnsmasq::new().start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let words = "landfall.config=http://10.77.0.1/nodes/{mac-dashed}.conf";
    let machine = usual_vm(&lab, Kernel::V6_12, words)?.boot()?;
    assert_eq!(machine.node()?.file("/etc/mark")?.trim(), "fetched");
    Ok(())
}

/// Names outlive addresses; the seed's own server is one.
#[test]
#[ignore = "boots a virtual machine"]
fn the_configurations_server_may_be_given_by_name() -> Result<()> {
    let lab = Lab::new("config-by-name")?;
    let text = format!("[default]\n{MARK}");
    let folder = lab.served("www", &[("site.conf", &text)])?;
    let _web = nginx(&lab, &folder)?;
    let _dhcp = Dnsmasq::new().name("boothost.example", SERVER).start(&lab)?;
    let _nbd = usual_root(&lab)?;

    let words = "landfall.config=http://boothost.example/site.conf";
    let machine = usual_vm(&lab, Kernel::V6_12, words)?.boot()?;
    assert_eq!(machine.node()?.file("/etc/mark")?.trim(), "fetched");
    Ok(())
}
