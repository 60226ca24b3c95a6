//! Whole images from made-up kernels: what is in them, and that it is always the same.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

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

const MODULES: [(&str, &str); 6] = [
    ("kernel/drivers/block/nbd.ko", "depends="),
    ("kernel/fs/overlayfs/overlay.ko", ""),
    ("kernel/fs/squashfs/squashfs.ko", "alias=fs-squashfs"),
    (
        "kernel/drivers/net/ethernet/intel/igb/igb.ko",
        "alias=pci:v00008086d00001533sv*sd*bc*sc*i*\0depends=i2c-algo-bit\0firmware=intel/igb.bin",
    ),
    ("kernel/drivers/i2c/algos/i2c-algo-bit.ko", ""),
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
         "kernel/drivers/i2c/algos/i2c-algo-bit.ko:\n\
          kernel/drivers/net/ethernet/intel/igb/igb.ko: kernel/drivers/i2c/algos/i2c-algo-bit.ko\n\
          kernel/drivers/block/nbd.ko:\n\
          kernel/fs/overlayfs/overlay.ko:\n\
          kernel/fs/squashfs/squashfs.ko:\n"),
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
