//! A verified root: a bit that is not what it was must not go unnoticed, wherever the image is, and
//! a wrong root hash must be told from a broken image.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use landfall_tests::{
    Format, HashTree, Kernel, Lab, Nbd, NbdKind, Node, ProbeRoot, TreeDigest, Vm, append_hash_tree,
    flip_a_bit, separate_hash_tree,
};
use serde_json::Value;

use crate::{connected, usual_dhcp, usual_vm};

/// The file whose bit is changed, a piece of it, and one that stays as it was.
const BROKEN: &str = "/srv/002";
const WHOLE: &str = "/srv/001";

/// What the kernel says of a block, beside its number.
const CORRUPTED: &str = "device-mapper: verity: ";

/// An image with a tree behind it, and what its files are.
struct Verified {
    image: PathBuf,
    tree: HashTree,
    digest: TreeDigest,
    /// Of [`BROKEN`], 64 bytes in its middle.
    piece: Vec<u8>,
}

impl Verified {
    fn new(lab: &Lab, format: Format, gap: u64, options: &[&str]) -> Result<Self> {
        let root = ProbeRoot::new(lab)?.payload_mib(4)?;
        if format == Format::Ext4 {
            // mke2fs makes one, whatever the tree has.
            let folder = lab.file("root.tree/lost+found");
            fs::create_dir(&folder)?;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        }
        let digest = root.digest()?;
        let content = fs::read(lab.file("root.tree").join(BROKEN.trim_start_matches('/')))?;
        let piece = content.get(500_000..500_064).context("a short file")?.to_vec();
        let image = root.pack_as(format)?;
        let tree = append_hash_tree(&image, gap, options)?;
        Ok(Self { image, tree, digest, piece })
    }

    fn usual(lab: &Lab) -> Result<Self> {
        Self::new(lab, Format::Squashfs("zstd"), 0, &[])
    }

    fn broken(lab: &Lab) -> Result<Self> {
        let made = Self::usual(lab)?;
        flip_a_bit(&made.image, &made.piece)?;
        Ok(made)
    }

    fn words(&self, more: &str) -> String {
        format!("landfall.verity={} {more}", self.tree.root_hash)
    }
}

fn served(lab: &Lab, image: &Path) -> Result<Nbd> {
    Nbd::new(lab, NbdKind::NbdServer).export("root", image).start()
}

/// The root is on a device of the kernel's that verifies, and its files are what they were.
fn is_verified(node: &Node<'_>, digest: &TreeDigest) -> Result<()> {
    let source = node.mount("/rofs")?.source;
    let device = source.strip_prefix("/dev/").with_context(|| format!("{source} is mounted"))?;
    let name = node.file(&format!("/sys/block/{device}/dm/name"))?;
    assert_eq!(name.trim(), "landfall-verity");
    node.drop_caches()?;
    assert_eq!(&node.tree("/rofs")?, digest);
    Ok(())
}

fn boots_verified(
    test: &str,
    kernel: Kernel,
    format: Format,
    options: &[&str],
    ram: &str,
) -> Result<()> {
    let lab = Lab::new(test)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let made = Verified::new(&lab, format, 0, options)?;
    let _nbd = served(&lab, &made.image)?;

    let machine = usual_vm(&lab, kernel, &made.words(ram))?.boot()?;
    let node = machine.node()?;
    is_verified(&node, &made.digest)?;
    let (shown, _) = made.tree.root_hash.split_at(16);
    machine.line(&format!("root hash {shown}"))?;
    machine.never_said(CORRUPTED)
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_verified_root_is_streamed() -> Result<()> {
    boots_verified("verity-stream", Kernel::V6_12, Format::Squashfs("zstd"), &[], "")
}

/// Digests of this kind are a module of this kernel, whose name only the tree knows.
#[test]
#[ignore = "boots a virtual machine"]
fn a_tree_of_sha512_finds_its_module() -> Result<()> {
    boots_verified("verity-sha512", Kernel::V6_1, Format::Squashfs("zstd"), &["--hash=sha512"], "")
}

/// We cannot say whether its root hash is right, and the kernel can.
#[test]
#[ignore = "boots a virtual machine"]
fn a_tree_of_another_digest_is_left_to_the_kernel() -> Result<()> {
    boots_verified("verity-sha1", Kernel::V6_12, Format::Erofs, &["--hash=sha1", "--format=0"], "")
}

#[test]
#[ignore = "boots a virtual machine"]
fn an_ext4_is_verified_in_a_copy() -> Result<()> {
    let options = ["--data-block-size=1024", "--hash-block-size=2048"];
    boots_verified("verity-copy-ext4", Kernel::V6_1, Format::Ext4, &options, "landfall.ram=copy")
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_verified_copy_outlives_its_server() -> Result<()> {
    let lab = Lab::new("verity-copy")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let made = Verified::usual(&lab)?;
    let mut nbd = served(&lab, &made.image)?;

    let machine = usual_vm(&lab, Kernel::V6_12, &made.words("landfall.ram=copy"))?.boot()?;
    let node = machine.node()?;
    nbd.kill();
    is_verified(&node, &made.digest)?;
    machine.never_said(CORRUPTED)
}

/// Until the copy behind the running system has taken the server's place.
fn wait_for_the_copy(node: &Node<'_>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let status = node.output(&["/run/landfall/landfall", "status", "--json"])?;
        let status: Value = serde_json::from_str(&status).with_context(|| status.clone())?;
        if status.pointer("/root/state").is_some_and(|state| state == "in_memory") {
            break;
        }
        ensure!(Instant::now() < deadline, "the server is still needed: {status:#}");
        thread::sleep(Duration::from_millis(200));
    }
    let connected = connected(node)?;
    ensure!(connected.is_empty(), "{connected:?} are still connected");
    Ok(())
}

/// What is below a verified root may change: its blocks are still compared, now with memory's.
#[test]
#[ignore = "boots a virtual machine"]
fn a_verified_root_is_copied_behind_the_running_system() -> Result<()> {
    let lab = Lab::new("verity-lazy")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let made = Verified::broken(&lab)?;
    let mut nbd = served(&lab, &made.image)?;

    let machine = usual_vm(&lab, Kernel::V6_12, &made.words("landfall.ram=lazy"))?.boot()?;
    let node = machine.node()?;
    wait_for_the_copy(&node)?;
    nbd.kill();
    machine.never_said(CORRUPTED)?;
    node.drop_caches()?;
    for file in ["/srv/000", WHOLE, "/srv/003"] {
        assert_eq!(node.run(&["cp", file, "/tmp/copy"])?.status, Some(0), "{file}");
    }
    assert_ne!(node.run(&["cp", BROKEN, "/tmp/broken"])?.status, Some(0));
    machine.line(CORRUPTED).map(drop)
}

/// Whoever reads the file hears of it, the operator does, and everybody else goes on.
fn gives_an_error_for_one_file(test: &str, kernel: Kernel, ram: &str) -> Result<()> {
    let lab = Lab::new(test)?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let made = Verified::broken(&lab)?;
    let _nbd = served(&lab, &made.image)?;

    let machine = usual_vm(&lab, kernel, &made.words(ram))?.boot()?;
    let node = machine.node()?;
    machine.never_said(CORRUPTED)?;
    // Twice: what was read in vain is not there the second time either.
    for _ in 0..2 {
        node.drop_caches()?;
        let ran = node.run(&["cp", BROKEN, "/tmp/broken"])?;
        assert_ne!(ran.status, Some(0), "a changed file was read");
        // As musl and as glibc say EIO.
        let said = ["I/O error", "Input/output error"].iter().any(|text| ran.stderr.contains(text));
        assert!(said, "{ran:?}");
        assert_eq!(node.run(&["cp", WHOLE, "/tmp/copy"])?.status, Some(0));
    }
    let line = machine.line(CORRUPTED)?;
    assert!(line.contains("is corrupted"), "{line}");
    node.output(&["sh", "-c", "echo still here"]).map(drop)
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_flipped_bit_of_a_streamed_root_is_an_error_for_one_file() -> Result<()> {
    gives_an_error_for_one_file("verity-error-stream", Kernel::V6_12, "")
}

/// The same said out loud, in memory, where nothing else would ever find it.
#[test]
#[ignore = "boots a virtual machine"]
fn a_flipped_bit_of_a_copy_is_an_error_for_one_file() -> Result<()> {
    let words = "landfall.verity.on-corruption=error landfall.ram=copy";
    gives_an_error_for_one_file("verity-error-copy", Kernel::V6_1, words)
}

/// A classroom that shall never show anything but what its image has.
#[test]
#[ignore = "boots a virtual machine"]
fn a_flipped_bit_reboots_where_that_is_asked_for() -> Result<()> {
    let lab = Lab::new("verity-reboot")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let made = Verified::broken(&lab)?;
    let _nbd = served(&lab, &made.image)?;

    let words = made.words("landfall.verity.on-corruption=reboot");
    let mut machine = usual_vm(&lab, Kernel::V6_12, &words)?.boot()?;
    let node = machine.node()?;
    assert_eq!(node.run(&["cp", WHOLE, "/tmp/copy"])?.status, Some(0));
    node.begin(&["cp", BROKEN, "/tmp/broken"])?;
    machine.ended_by("Restarting system", Duration::from_secs(30))?;
    machine.never_said("Kernel panic")
}

#[test]
#[ignore = "boots a virtual machine"]
fn a_flipped_bit_is_a_panic_where_that_is_asked_for() -> Result<()> {
    let lab = Lab::new("verity-panic")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let made = Verified::broken(&lab)?;
    let _nbd = served(&lab, &made.image)?;

    let words = made.words("landfall.verity.on-corruption=panic");
    let mut machine = usual_vm(&lab, Kernel::V6_1, &words)?.boot()?;
    let node = machine.node()?;
    node.begin(&["cp", BROKEN, "/tmp/broken"])?;
    machine.line("Kernel panic - not syncing: dm-verity device corrupted")?;
    // `panic=5` of the usual command line is the kernel's.
    machine.gone(Duration::from_secs(60))
}

fn fails(vm: Vm<'_>, words: &[&str]) -> Result<()> {
    let machine = vm.boot()?;
    machine.failed_in("root", words)?;
    // Nothing was mounted, and the kernel was not even asked.
    machine.never_said("device-mapper")
}

/// Yesterday's boot menu with today's image. Rebooting would not mend it, whatever was asked for.
#[test]
#[ignore = "boots a virtual machine"]
fn a_wrong_root_hash_is_told_from_a_broken_image() -> Result<()> {
    let lab = Lab::new("verity-wrong-hash")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let made = Verified::usual(&lab)?;
    let _nbd = served(&lab, &made.image)?;

    let wrong = "5a".repeat(32);
    let (shown, _) = made.tree.root_hash.split_at(16);
    let words = format!("landfall.verity={wrong} landfall.verity.on-corruption=reboot");
    fails(
        usual_vm(&lab, Kernel::V6_12, &words)?,
        &[
            "verifying \"root\" of 10.77.0.1:10809: ",
            "landfall.verity=5a5a5a5a5a5a5a5a…: refused: ",
            &format!("its root hash is {shown}…"),
            "an image made anew has a new root hash",
        ],
    )
}

/// Typed by hand, with a digit lost: it must not boot unverified.
#[test]
#[ignore = "boots a virtual machine"]
fn half_a_root_hash_boots_nothing() -> Result<()> {
    let lab = Lab::new("verity-half-a-hash")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let made = Verified::usual(&lab)?;
    let _nbd = served(&lab, &made.image)?;
    let (cut, _) = made.tree.root_hash.split_at(63);
    fails(
        usual_vm(&lab, Kernel::V6_12, &format!("landfall.verity={cut}"))?,
        &["63 digits are no root hash"],
    )
}

/// A tree that is not where trees are: the key that says where is named, and works.
#[test]
#[ignore = "boots a virtual machine"]
fn a_tree_in_an_unusual_place_is_found_when_that_is_said() -> Result<()> {
    let lab = Lab::new("verity-offset")?;
    let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
    let made = Verified::new(&lab, Format::Squashfs("zstd"), 1 << 20, &[])?;
    let _nbd = served(&lab, &made.image)?;
    let place = made.tree.offset - (1 << 20);
    fails(
        usual_vm(&lab, Kernel::V6_12, &made.words(""))?,
        &[
            &format!("there is none behind the squashfs 4.0 (zstd), at byte {place}"),
            "landfall.verity.hash-offset=BYTES",
        ],
    )?;

    let words = made.words(&format!("landfall.verity.hash-offset={}", made.tree.offset));
    let machine = usual_vm(&lab, Kernel::V6_12, &words)?.named("second").boot()?;
    is_verified(&machine.node()?, &made.digest)
}

/// A tree of its own is in memory from the beginning: it is one server less to lose.
#[test]
#[ignore = "boots a virtual machine"]
fn a_tree_in_an_export_of_its_own_is_kept_in_memory() -> Result<()> {
    for (test, ram) in [("verity-apart", ""), ("verity-apart-copy", "landfall.ram=copy")] {
        let lab = Lab::new(test)?;
        let _dhcp = usual_dhcp(&lab)?.start(&lab)?;
        let root = ProbeRoot::new(&lab)?.payload_mib(4)?;
        let digest = root.digest()?;
        let image = root.pack()?;
        let hash = lab.file("root.verity");
        let root_hash = separate_hash_tree(&image, &hash)?;
        let nbd = Nbd::new(&lab, NbdKind::NbdServer).export("root", &image).export("hash", &hash);
        let _nbd = nbd.start()?;

        let words =
            format!("landfall.verity={root_hash} landfall.verity.hash=nbd://10.77.0.1/hash {ram}");
        let machine = usual_vm(&lab, Kernel::V6_12, &words)?.boot()?;
        let node = machine.node()?;
        // nbd-server has the file open once for each connection that there is.
        let backing = fs::canonicalize(&hash)?;
        assert!(!is_open(&backing)?, "{test}: the hash export is still connected");
        is_verified(&node, &digest)?;
        machine.never_said(CORRUPTED)?;
    }
    Ok(())
}

/// Whether any process of this lab has the file open.
fn is_open(file: &Path) -> Result<bool> {
    for process in fs::read_dir("/proc")? {
        let Ok(files) = fs::read_dir(process?.path().join("fd")) else { continue };
        let is_it = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target == file);
        if files.filter_map(Result::ok).any(|entry| is_it(entry.path())) {
            return Ok(true);
        }
    }
    Ok(false)
}
