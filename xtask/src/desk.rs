//! What `landfall check` and `landfall plan` cost for the file of a large site.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use landfall_tests::workshop;

const SECTIONS: u32 = 5_000;
const BYTES: usize = 2_000_000;

/// The fastest is the one that was disturbed least.
const RUNS: usize = 10;

pub fn bench() -> Result<()> {
    let folder = workshop::dir().join("bench");
    fs::create_dir_all(&folder)?;
    let large = folder.join("lts.conf");
    fs::write(&large, site())?;
    let small = folder.join("small.conf");
    fs::write(&small, "[default]\nRACK = 1\n")?;
    println!("desk, {SECTIONS} sections, {} bytes", fs::metadata(&large)?.len());
    let node = ["--mac", "52:54:00:00:09:c4", "--ip", "10.9.9.196", "--hostname", "node2500"];
    for (what, file, arguments) in [
        ("check", &large, &[][..]),
        ("plan", &large, &node[..]),
        ("plan, two lines", &small, &node[..]),
    ] {
        let agent = workshop::agent()?;
        let verb = what.split(',').next().unwrap_or_default();
        let measured = |program: &mut Command| {
            program.arg(verb);
            if verb == "plan" {
                program.arg("--config");
            }
            program.arg(file).args(arguments);
            program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            program.status()
        };
        let mut best = Duration::MAX;
        for _ in 0..RUNS {
            let started = Instant::now();
            let status = measured(&mut Command::new(&agent))?;
            best = best.min(started.elapsed());
            ensure!(status.code().is_some_and(|code| code < 2), "landfall {verb}: {status}");
        }
        let counted = match instructions(&folder, &agent, measured)? {
            Some(count) => format!("{:>6} million instructions", count / 1_000_000),
            None => "install valgrind to count instructions".to_owned(),
        };
        println!("    {what:<16} {:>7.1} ms  {counted}", best.as_secs_f64() * 1000.0);
    }
    Ok(())
}

/// As callgrind counts them: the same on a busy host as on an idle one.
fn instructions(
    folder: &Path,
    agent: &Path,
    measured: impl Fn(&mut Command) -> std::io::Result<std::process::ExitStatus>,
) -> Result<Option<u64>> {
    let report = folder.join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", report.display()))
        .arg(agent);
    match measured(&mut valgrind) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        status => status?,
    };
    // `summary: 123456`, or `totals:` in older releases.
    let text = fs::read_to_string(&report).context("callgrind has left no report")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("summary:").or_else(|| line.strip_prefix("totals:")));
    Ok(Some(line.context("callgrind has counted nothing")?.trim().parse()?))
}

/// Racks of machines, each with settings of its own: sections by name and by MAC, `LIKE`, comments,
/// quoted commands with variables.
fn site() -> String {
    let mut text = String::from(
        "[default]\nTIMEZONE = Europe/Prague\nKEEP_SYSTEM_SERVICES = \"ssh rpcbind\"\n\
         LOG = /var/log/site\n\n[rack]\nMODULE_1 = br_netfilter\n",
    );
    let racks = 50;
    for rack in 0..racks {
        let _ = writeln!(text, "\n[rack{rack}]\nLIKE = rack\nRACK = {rack}");
    }
    let nodes = SECTIONS - racks - 2;
    for node in 0..nodes {
        let name = match node % 2 {
            0 => format!("node{node}"),
            _ => format!("52:54:00:00:{:02x}:{:02x}", node >> 8, node & 0xff),
        };
        let _ = write!(
            text,
            "\n# Machine {node}, row {}.\n[{name}]\nLIKE = rack{}\nSLOT = {node}\n\
             FSTAB_01_DATA = \"LABEL=data{node}  /srv/data  ext4  nofail,noatime  0 0\"\n\
             RCFILE_01_MARK = \"echo node {node} of $RACK > $LOG/mark; logger 'slot \\$SLOT'\"\n",
            node / 100,
            node % racks,
        );
        let wanted = BYTES / nodes as usize * (node as usize + 1);
        while text.len() < wanted {
            let left = (wanted - text.len()).min(72);
            let _ = writeln!(text, "# {}", "-".repeat(left.saturating_sub(3)));
        }
    }
    text
}
