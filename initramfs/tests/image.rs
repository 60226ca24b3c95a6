//! Whole images from made-up kernels: what is in them, that it is always the same, and that hooks
//! are told the same.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use landfall_initramfs::{Build, Signatures, build};

const RELOCATABLE: u16 = 1;
const EXECUTABLE: u16 = 2;
const X86_64: u16 = 62;
const AARCH64: u16 = 183;

/// The smallest ELF64 file with a `.modinfo`, and for a program perhaps with an interpreter.
fn elf(kind: u16, machine: u16, modinfo: &[u8], interpreter: bool) -> Vec<u8> {
    let mut file = vec![0; 64];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[0x10..0x12].copy_from_slice(&kind.to_le_bytes());
    file[0x12..0x14].copy_from_slice(&machine.to_le_bytes());
    file[0x14] = 1; // version
    file[0x34] = 64; // bytes of this header
    file[0x3a] = 64; // of a section's
    if interpreter {
        file[0x20] = 64; // where the segments are
        file[0x36] = 56; // bytes of one
        file[0x38] = 1; // how many
        let mut segment = [0; 56];
        segment[0] = 3; // PT_INTERP
        file.extend_from_slice(&segment);
    }
    let modinfo_at = file.len();
    file.extend_from_slice(modinfo);
    let names_at = file.len();
    let names = b"\0.modinfo\0.shstrtab\0";
    file.extend_from_slice(names);
    file.resize(file.len().next_multiple_of(8), 0);
    let table = file.len() as u64;
    file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
    file[0x3c] = 3; // sections
    file[0x3e] = 2; // the one with the names
    let mut section = |name: u32, kind: u32, at: usize, length: usize| {
        file.extend_from_slice(&name.to_le_bytes());
        file.extend_from_slice(&kind.to_le_bytes());
        // Flags, address, place, length, link and info, alignment, size of an entry.
        for value in [0, 0, at as u64, length as u64, 0, 1, 0] {
            file.extend_from_slice(&value.to_le_bytes());
        }
    };
    section(0, 0, 0, 0);
    section(1, 1, modinfo_at, modinfo.len());
    section(10, 3, names_at, names.len());
    file
}

const MODULES: [(&str, &str); 11] = [
    ("kernel/drivers/block/nbd.ko", "depends="),
    ("kernel/fs/overlayfs/overlay.ko", ""),
    ("kernel/fs/squashfs/squashfs.ko", "alias=fs-squashfs"),
    (
        "kernel/drivers/net/ethernet/intel/igb/igb.ko",
        "alias=pci:v00008086d00001533sv*sd*bc*sc*i*\0depends=i2c-algo-bit\0firmware=intel/igb.bin",
    ),
    ("kernel/drivers/i2c/algos/i2c-algo-bit.ko", ""),
    // What links are composed of: the command line may ask for it on any machine.
    ("kernel/drivers/net/bonding/bonding.ko", ""),
    ("kernel/net/8021q/8021q.ko", "depends="),
    ("kernel/net/bridge/bridge.ko", "depends=stp,llc"),
    ("kernel/net/802/stp.ko", "depends=llc"),
    ("kernel/net/llc/llc.ko", ""),
    ("kernel/sound/snd.ko", ""),
];

const SIGNATURE: &[u8] = b"PKCS7\0\0\x02\0\0\0\0\0\0\0\0\x05~Module signature appended~\n";

/// An unpacked kernel package with all that a build can take. `order` is the order in which the
/// modules come into being, which is the order in which some file systems list them.
fn package(order: impl Iterator<Item = usize>) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &[u8]| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    for number in order {
        let (path, modinfo) = MODULES[number];
        let modinfo = format!("{modinfo}\0vermagic=6.1.0 SMP\0");
        let mut module = elf(RELOCATABLE, X86_64, modinfo.as_bytes(), false);
        module.extend_from_slice(SIGNATURE);
        write(&format!("lib/modules/6.1.0/{path}"), &module);
    }
    write("lib/modules/6.1.0/modules.builtin", b"kernel/drivers/block/loop.ko\n");
    write("landfall", &elf(EXECUTABLE, X86_64, b"", false));
    write("for-arm", &elf(EXECUTABLE, AARCH64, b"", false));
    write("dynamic", &elf(EXECUTABLE, X86_64, b"", true));
    write("firmware/intel/igb.bin.xz", b"blob");
    write("lts.conf", b"[default]\n");
    write("ca.pem", b"-----BEGIN CERTIFICATE-----\nAA==");
    root
}

fn full(root: &Path) -> Build {
    Build {
        firmware: vec![root.join("firmware")],
        ca: vec![root.join("ca.pem"), root.join("ca.pem")],
        config: Some(root.join("lts.conf")),
        rescue_shell: Some(root.join("landfall")),
        add: vec![(root.join("firmware"), "/opt/more".to_owned())],
        level: 3,
        epoch: 1_700_000_000,
        ..Build::new(root, root.join("landfall"), root.join("image"))
    }
}

/// Content by path, read by somebody else's code.
fn unpack(image: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = zstd::decode_all(fs::File::open(image).unwrap()).unwrap();
    let mut rest = &*bytes;
    let mut files = BTreeMap::new();
    loop {
        let mut reader = cpio::NewcReader::new(rest).unwrap();
        if reader.entry().is_trailer() {
            return files;
        }
        let name = reader.entry().name().to_owned();
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        files.insert(name, content);
        rest = reader.finish().unwrap();
    }
}

#[test]
#[rustfmt::skip]
fn an_image_has_what_a_boot_needs_and_indexes_for_exactly_that() {
    let root = package(0..MODULES.len());
    let summary = build(&full(root.path())).unwrap();
    let files = unpack(&root.path().join("image"));

    let found: Vec<_> = files.keys().filter(|path| path.ends_with(".ko")).cloned().collect();
    let (sound, chosen) = MODULES.split_last().unwrap();
    assert!(sound.0.contains("snd"));
    let mut expected: Vec<_> =
        chosen.iter().map(|(path, _)| format!("lib/modules/6.1.0/{path}")).collect();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(summary.modules.len(), expected.len());

    let cases = [
        ("lib/modules/6.1.0/modules.dep",
         "kernel/net/8021q/8021q.ko:\n\
          kernel/drivers/net/bonding/bonding.ko:\n\
          kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko\n\
          kernel/drivers/i2c/algos/i2c-algo-bit.ko:\n\
          kernel/drivers/net/ethernet/intel/igb/igb.ko: kernel/drivers/i2c/algos/i2c-algo-bit.ko\n\
          kernel/net/llc/llc.ko:\n\
          kernel/drivers/block/nbd.ko:\n\
          kernel/fs/overlayfs/overlay.ko:\n\
          kernel/fs/squashfs/squashfs.ko:\n\
          kernel/net/802/stp.ko: kernel/net/llc/llc.ko\n"),
        ("lib/modules/6.1.0/modules.alias",
         "alias pci:v00008086d00001533sv*sd*bc*sc*i* igb\nalias fs-squashfs squashfs\n"),
        ("lib/modules/6.1.0/modules.builtin", "kernel/drivers/block/loop.ko\n"),
        ("lib/firmware/intel/igb.bin.xz",     "blob"),
        ("opt/more/intel/igb.bin.xz",         "blob"),
        ("etc/lts.conf",                      "[default]\n"),
        // Files without a final newline must not run into each other.
        ("etc/ssl/certs/ca-certificates.crt",
         "-----BEGIN CERTIFICATE-----\nAA==\n-----BEGIN CERTIFICATE-----\nAA==\n"),
        ("bin/sh",                            "busybox"),
        ("dev/console",                       ""),
        ("dev/null",                          ""),
        ("dev/kmsg",                          ""),
        ("sysroot",                           ""),
    ];
    for (path, expected) in cases {
        let content = files.get(path).map(|content| String::from_utf8_lossy(content));
        assert_eq!(content.as_deref(), Some(expected), "{path}");
    }
    let igb = &files["lib/modules/6.1.0/kernel/drivers/net/ethernet/intel/igb/igb.ko"];
    assert!(igb.ends_with(SIGNATURE), "signatures are kept unless told otherwise");
}

/// Whoever signs images, or compares them, rebuilds them elsewhere.
#[test]
fn the_same_inputs_give_the_same_bytes() {
    let there = package(0..MODULES.len());
    let elsewhere = package((0..MODULES.len()).rev());
    let image = |root: &tempfile::TempDir| {
        build(&full(root.path())).unwrap();
        fs::read(root.path().join("image")).unwrap()
    };
    assert!(image(&there) == image(&elsewhere));
}

#[test]
fn unsigned_modules_have_no_signature_and_the_summary_says_what_that_costs() {
    let root = package(0..MODULES.len());
    let summary = build(&Build { signatures: Signatures::Strip, ..full(root.path()) }).unwrap();
    let files = unpack(&root.path().join("image"));
    for (path, content) in files.iter().filter(|(path, _)| path.ends_with(".ko")) {
        assert!(!content.ends_with(SIGNATURE), "{path}");
    }
    assert!(summary.to_string().contains("taints the kernel"));
}

/// A build that fails in a nightly job must not replace the image that machines boot from.
#[test]
fn what_cannot_work_is_refused_and_the_old_image_stays() {
    let root = package(0..MODULES.len());
    let path = |name: &str| root.path().join(name);
    fs::write(path("image"), "the old one").unwrap();
    let good = Build { level: 3, ..Build::new(root.path(), path("landfall"), path("image")) };
    let with = |change: &dyn Fn(&mut Build)| {
        let mut build = good.clone();
        change(&mut build);
        build
    };
    let word = |word: &str| vec![word.to_owned()];
    let cases = [
        (with(&|b| b.agent = path("dynamic")), "it is linked dynamically"),
        (
            with(&|b| b.agent = path("for-arm")),
            "is for aarch64, the kernel's modules are for x86_64",
        ),
        (with(&|b| b.agent = path("ca.pem")), "not an ELF program"),
        (with(&|b| b.rescue_shell = Some(path("dynamic"))), "adding the rescue shell"),
        (with(&|b| b.drivers = Some(word("igc"))), "did you mean \"igb\"?"),
        (with(&|b| b.modules = word("nvme")), "no module \"nvme\""),
        (with(&|b| b.ca = vec![path("lts.conf")]), "has no certificate in PEM form"),
        (with(&|b| b.add = vec![(path("ca.pem"), "init/x".into())]), "init is not a directory"),
        (with(&|b| b.output = path("gone/image")), "gone/image.partial: No such file or directory"),
    ];
    for (case, expected) in cases {
        let Err(error) = build(&case) else { panic!("no error, expected {expected}") };
        let error = format!("{error:#}");
        assert!(error.contains(expected), "{error}, expected {expected}");
        assert_eq!(fs::read(path("image")).unwrap(), b"the old one", "{expected}");
        assert!(!path("image.partial").exists(), "{expected}");
    }
    build(&good).unwrap();
    assert_ne!(fs::read(path("image")).unwrap(), b"the old one");
}

/// The agent looks its modules up by `uname -r`; under another name it would find none.
#[test]
fn a_tree_under_a_wrong_version_is_refused() {
    let root = package(0..MODULES.len());
    let modules = root.path().join("lib/modules");
    fs::rename(modules.join("6.1.0"), modules.join("6.1.1")).unwrap();
    let error = build(&full(root.path())).unwrap_err().to_string();
    assert!(error.contains("built for Linux 6.1.0, but its directory is that of 6.1.1"), "{error}");
}

fn list(words: &[&str], kernel: &Path) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_landfall-initramfs"))
        .arg("list")
        .args(words)
        .arg("--kernel")
        .arg(kernel)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// An image that a hook makes must boot where our own does.
#[test]
fn a_hook_is_told_to_copy_what_an_image_has() {
    let root = package(0..MODULES.len());
    let directory = root.path().join("lib/modules/6.1.0").canonicalize().unwrap();
    // Modules of distributions are compressed, and hooks copy them as they are.
    let igb = directory.join("kernel/drivers/net/ethernet/intel/igb/igb.ko");
    let file = fs::File::create(igb.with_extension("ko.gz")).unwrap();
    let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, &fs::read(&igb).unwrap()).unwrap();
    packer.finish().unwrap();
    fs::remove_file(&igb).unwrap();

    let (status, out, err) = list(&["modules"], root.path());
    assert_eq!((status, &*err), (Some(0), ""));
    let paths: Vec<_> = out.lines().map(PathBuf::from).collect();
    assert!(paths.iter().all(|path| path.is_absolute() && path.is_file()), "{out}");

    build(&full(root.path())).unwrap();
    let image = unpack(&root.path().join("image"));
    let packed = |path: &String| path.ends_with(".ko");
    let mut in_image: Vec<_> = image.keys().filter(|path| packed(path)).cloned().collect();
    let mut listed: Vec<_> = paths
        .iter()
        .map(|path| path.strip_prefix(&directory).unwrap().display().to_string())
        .map(|path| format!("lib/modules/6.1.0/{}", path.trim_end_matches(".gz")))
        .collect();
    in_image.sort();
    listed.sort();
    assert_eq!(listed, in_image);
    assert!(out.contains("igb.ko.gz\n"), "{out}");

    let firmware = root.path().join("firmware");
    let firmware = firmware.to_str().unwrap();
    let (status, out, err) = list(&["firmware", "--firmware", firmware, "--verbose"], root.path());
    assert_eq!((status, out, &*err), (Some(0), format!("{firmware}/intel/igb.bin.xz\n"), ""));
    let (status, out, err) = list(&["firmware", "--verbose"], root.path());
    assert_eq!((status, &*out), (Some(0), ""));
    assert_eq!(err, "landfall-initramfs: no intel/igb.bin for igb\n");
}

#[test]
fn a_hook_is_told_soft_dependencies_of_the_modules_it_copies_only() {
    let root = package(0..MODULES.len());
    let directory = root.path().join("lib/modules/6.1.0/kernel/net");
    fs::create_dir_all(&directory).unwrap();
    for name in ["tls", "tg3"] {
        let module = elf(RELOCATABLE, X86_64, b"vermagic=6.1.0 SMP", false);
        fs::write(directory.join(name).with_extension("ko"), module).unwrap();
    }
    let (status, out, err) = list(&["softdeps"], root.path());
    assert_eq!((status, &*err), (Some(0), ""));
    // tg3 is not where network drivers are, so it is not chosen.
    assert!(out.starts_with("softdep tls pre: ") && out.lines().count() == 1, "{out}");
    let (_, out, _) = list(&["softdeps", "--modules", "tg3"], root.path());
    assert!(out.contains("softdep tg3 pre: broadcom\n") && out.lines().count() == 2, "{out}");
}

/// `update-initramfs` must fail when the image would not boot, and tell which package to look at.
#[test]
#[rustfmt::skip]
fn a_hook_is_told_by_name_what_is_missing() {
    let root = package(1..MODULES.len());
    let good = package(0..MODULES.len());
    let cases: [(&[&str], &Path, &str); 4] = [
        (&["modules"],                       root.path(),              "this kernel has no nbd, neither as a module nor built in"),
        (&["firmware"],                      root.path(),              "this kernel has no nbd, neither as a module nor built in"),
        (&["modules", "--drivers", "igc"],   good.path(),              "did you mean \"igb\"?"),
        (&["modules"],                       Path::new("9.9.9-none"),  "there is no kernel 9.9.9-none in /lib/modules"),
    ];
    for (words, kernel, expected) in cases {
        let (status, out, err) = list(words, kernel);
        assert_eq!((status, &*out), (Some(1), ""), "{words:?}");
        assert!(err.contains(expected), "{err}, expected {expected}");
    }
}
