//! Which modules a netboot can need.
//!
//! Takes a kernel's index and what was asked for; gives names, closed under dependencies and soft
//! dependencies. Pure. Never chosen unless asked for: wireless, storage controllers, graphics,
//! sound, input.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, bail};
use landfall::cmdline::distance;
use landfall::machine::modules::{Found, Index, Module, Softdep, glob, normalized, parse_softdep};

/// Without these no machine reaches its root.
const ESSENTIAL: [&str; 2] = ["nbd", "overlay"];

/// File systems that an image can have; one is essential.
const FILE_SYSTEMS: [&str; 4] = ["squashfs", "erofs", "ext4", "isofs"];

/// Taken when the kernel has them; a boot says so when it misses one that its configuration needs.
///
/// A root that is read over the network has dm-multipath below it, with the one path selector that
/// is asked for by name, and dm-verity where its blocks are verified.
#[rustfmt::skip]
const FEATURES: [&str; 10] = [
    "loop", "dm_mod", "dm_multipath", "dm_round_robin", "dm_verity", "tls", "bonding", "8021q",
    "bridge", "af_packet",
];

/// Of the digests that a hash tree can have, the usual one beside that of the soft dependency of
/// dm-verity below. Loaded only when a tree names it.
const DIGEST: &str = "crypto-sha512";

/// What a network card can be behind. No kernel has all of them.
#[rustfmt::skip]
const BUSES: [&str; 16] = [
    "virtio_pci", "virtio_mmio", "virtio_blk", "hv_vmbus", "pci_hyperv", "xen_pcifront",
    "usbcore", "xhci_pci", "xhci_plat_hcd", "ehci_pci", "ehci_platform", "ohci_pci",
    "ohci_platform", "uhci_hcd", "dwc2", "dwc3_pci",
];

/// Network cards that are not with the others in the tree, and docks on USB-C that carry PCI
/// Express or a network between hosts.
const CARDS: [&str; 6] =
    ["virtio_net", "vmxnet3", "hv_netvsc", "xen_netfront", "thunderbolt", "thunderbolt_net"];

/// Host bridges that are modules; on a PC there are few, on ARM boards the card is behind one.
const BUS_DIRECTORIES: [&str; 1] = ["kernel/drivers/pci/controller/"];

const NETWORK_DIRECTORIES: [&str; 2] = ["kernel/drivers/net/ethernet/", "kernel/drivers/net/usb/"];

/// `--drivers` chooses among these.
const NETWORK: &str = "kernel/drivers/net/";

/// The kernel asks modprobe for the driver of each PHY it finds, by a number that no other file
/// mentions. So whoever uses the PHY library gets all of them.
const PHY_LIBRARY: &str = "libphy";
const PHY_DIRECTORIES: [&str; 2] = ["kernel/drivers/net/phy/", "kernel/drivers/net/mdio/"];

/// Who waits at a rescue shell has a keyboard, which is often a USB one.
const KEYBOARD: [&str; 4] = ["hid_generic", "usbhid", "atkbd", "i8042"];

/// What the kernel would ask `/sbin/modprobe` for while it runs. There is none in the initramfs, so
/// the agent has to know beforehand; lines are those of modprobe.d(5).
#[rustfmt::skip]
const SOFTDEPS: [(&str, &str); 8] = [
    // request_module(EN_DRV_NAME) in mlx4/main.c; Linux 6.7 and later announce a device instead.
    ("mlx4_core", "post: mlx4_en"),
    // These look for their PHY's driver while they probe, and fail or make do without.
    ("tg3",       "pre: broadcom"),
    ("b44",       "pre: broadcom"),
    ("bcmgenet",  "pre: broadcom bcm7xxx mdio_bcm_unimac"),
    ("smsc95xx",  "pre: smsc"),
    ("asix",      "pre: ax88796b"),
    // crypto_alloc_aead("gcm(aes)") at the first record, crypto_alloc_ahash("sha256") for the table.
    ("tls",       "pre: crypto-aes crypto-ghash crypto-gcm crypto-ctr"),
    ("dm_verity", "pre: crypto-sha256"),
];

/// Crypto engines answer to the same aliases as plain code, but are large and on few machines.
const CRYPTO_ENGINES: &str = "kernel/drivers/crypto/";

pub struct Request<'a> {
    /// Names or globs of network drivers; `None` is all of them.
    pub drivers: Option<&'a [String]>,
    /// Names, globs, or directories of the tree that end with `/` (`drivers/pinctrl/`).
    pub extra: &'a [String],
    pub keyboard: bool,
}

#[derive(Debug, Default)]
pub struct Selection {
    pub modules: BTreeSet<String>,
    /// Softdeps of the table above that apply to this kernel.
    pub softdeps: BTreeMap<&'static str, Softdep>,
    /// Of the usual ones, what this kernel has neither as a module nor built in.
    pub absent: Vec<&'static str>,
}

/// Fails when an essential module is missing, or when nothing has a name that was asked for.
pub fn choose(index: &Index, request: &Request<'_>) -> Result<Selection> {
    let mut index = index.clone();
    let mut selection = Selection::default();
    for (name, text) in SOFTDEPS {
        if index.module(name).is_some() {
            let softdep = parse_softdep(text);
            index.add_softdep(name, &softdep);
            selection.softdeps.insert(name, softdep);
        }
    }
    require_essential(&index)?;

    let mut wanted: Vec<&Module> = Vec::new();
    for name in ESSENTIAL.iter().chain(&FILE_SYSTEMS).chain(&FEATURES) {
        wanted.extend(index.module(name));
        if !has(&index, name) {
            selection.absent.push(name);
        }
    }
    wanted.extend(BUSES.iter().filter_map(|name| index.module(name)));
    if request.keyboard {
        wanted.extend(KEYBOARD.iter().filter_map(|name| index.module(name)));
    }
    let mut directories = BUS_DIRECTORIES.to_vec();
    if request.drivers.is_none() {
        wanted.extend(CARDS.iter().filter_map(|name| index.module(name)));
        directories.extend(NETWORK_DIRECTORIES);
    }
    wanted.extend(index.modules().filter(|module| is_below(module, &directories)));
    for pattern in request.drivers.unwrap_or_default() {
        let of_network = |module: &Module| module.path.starts_with(NETWORK);
        wanted.extend(matching(&index, pattern, of_network, "network driver")?);
    }
    for pattern in request.extra {
        wanted.extend(matching(&index, pattern, |_| true, "module")?);
    }

    for module in wanted {
        close(&index, module, &mut selection.modules)?;
    }
    if has(&index, "dm_verity")
        && let Found::Modules(digests) = index.find(DIGEST)
    {
        for module in digests.into_iter().filter(|module| !is_engine(module)) {
            close(&index, module, &mut selection.modules)?;
        }
    }
    if selection.modules.contains(PHY_LIBRARY) {
        for module in index.modules() {
            if is_below(module, &PHY_DIRECTORIES) {
                close(&index, module, &mut selection.modules)?;
            }
        }
    }
    Ok(selection)
}

fn require_essential(index: &Index) -> Result<()> {
    let lost: Vec<_> = ESSENTIAL.iter().filter(|name| !has(index, name)).copied().collect();
    if !lost.is_empty() {
        bail!(
            "this kernel has no {}, neither as a module nor built in, and cannot boot from the \
             network without",
            lost.join(" and no ")
        );
    }
    if !FILE_SYSTEMS.iter().any(|name| has(index, name)) {
        bail!("this kernel can read none of the images' file systems: {}", FILE_SYSTEMS.join(", "));
    }
    Ok(())
}

fn is_engine(module: &Module) -> bool {
    module.path.starts_with(CRYPTO_ENGINES)
}

fn is_below(module: &Module, directories: &[&str]) -> bool {
    directories.iter().any(|directory| module.path.starts_with(directory))
}

fn has(index: &Index, name: &str) -> bool {
    index.module(name).is_some() || index.is_builtin(name)
}

/// The modules that one word of a list stands for; none when it is built in.
fn matching<'a>(
    index: &'a Index,
    pattern: &str,
    eligible: impl Fn(&Module) -> bool,
    kind: &str,
) -> Result<Vec<&'a Module>> {
    let directory = pattern.ends_with('/').then(|| {
        let pattern = pattern.trim_start_matches('/');
        if pattern.starts_with("kernel/") {
            pattern.to_owned()
        } else {
            format!("kernel/{pattern}")
        }
    });
    let name = normalized(pattern);
    let fits = |module: &Module| match &directory {
        Some(directory) => module.path.starts_with(directory),
        None => glob(&name, &module.name),
    };
    let found: Vec<_> = index.modules().filter(|module| eligible(module) && fits(module)).collect();
    if !found.is_empty() || index.is_builtin(&name) {
        return Ok(found);
    }
    let nearest = index
        .modules()
        .filter(|module| eligible(module))
        .map(|module| (distance(&name, &module.name), &module.name))
        .min()
        // Further away it would be a riddle, not a hint.
        .filter(|(distance, _)| *distance <= 1.max(name.len() / 3));
    match nearest {
        Some((_, nearest)) => {
            bail!("this kernel has no {kind} \"{pattern}\"; did you mean \"{nearest}\"?")
        }
        None => bail!("this kernel has no {kind} \"{pattern}\""),
    }
}

/// Adds `module` and everything it needs or would like.
fn close(index: &Index, module: &Module, chosen: &mut BTreeSet<String>) -> Result<()> {
    if !chosen.insert(module.name.clone()) {
        return Ok(());
    }
    for need in &module.needs {
        match index.module(need) {
            Some(need) => close(index, need, chosen)?,
            None if index.is_builtin(need) => {}
            None => bail!(
                "{} needs the module {need}, which is not in this tree: is a package missing?",
                module.path.display()
            ),
        }
    }
    for name in module.softdep.pre.iter().chain(&module.softdep.post) {
        let Found::Modules(modules) = index.find(name) else { continue };
        for soft in modules {
            if soft.name == normalized(name) || !is_engine(soft) {
                close(index, soft, chosen)?;
            }
        }
    }
    Ok(())
}

/// Modules that `module` needs, directly or not, each before its users: depmod's list, reversed.
pub fn dependencies<'a>(index: &'a Index, module: &'a Module) -> Vec<&'a Module> {
    fn visit<'a>(
        index: &'a Index,
        module: &'a Module,
        seen: &mut BTreeSet<&'a str>,
        order: &mut Vec<&'a Module>,
    ) {
        for need in module.needs.iter().rev().filter_map(|name| index.module(name)) {
            if seen.insert(&need.name) {
                visit(index, need, seen, order);
                order.push(need);
            }
        }
    }
    let mut order = Vec::new();
    visit(index, module, &mut BTreeSet::from([module.name.as_str()]), &mut order);
    order
}

/// Where a module goes in the image: uncompressed, at the path it has in the tree.
pub fn plain_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    match text.rfind(".ko") {
        Some(end) => text[..end + 3].to_owned(),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use landfall::machine::modules::Texts;

    use super::*;

    fn index() -> Index {
        let files = [
            ("block/nbd", ""),
            ("fs/overlayfs/overlay", ""),
            ("fs/squashfs/squashfs", ""),
            ("drivers/net/ethernet/intel/igb/igb", "drivers/i2c/i2c-algo-bit"),
            ("drivers/i2c/i2c-algo-bit", ""),
            ("drivers/net/ethernet/intel/e1000e/e1000e", ""),
            ("drivers/net/ethernet/broadcom/tg3", "drivers/net/phy/libphy"),
            ("drivers/net/ethernet/mellanox/mlx4/mlx4_core", ""),
            (
                "drivers/net/ethernet/mellanox/mlx4/mlx4_en",
                "drivers/net/ethernet/mellanox/mlx4/mlx4_core",
            ),
            ("drivers/net/ethernet/odd/odd", "drivers/lost"),
            ("drivers/net/phy/libphy", ""),
            ("drivers/net/phy/broadcom", "drivers/net/phy/libphy"),
            ("drivers/net/phy/marvell", "drivers/net/phy/libphy"),
            ("drivers/net/virtio_net", ""),
            ("drivers/net/bonding/bonding", "net/tls/tls"),
            ("net/8021q/8021q", "net/802/garp"),
            ("net/bridge/bridge", "net/802/stp"),
            ("net/802/garp", "net/802/stp"),
            ("net/802/stp", "net/llc/llc"),
            ("net/llc/llc", ""),
            ("drivers/net/wireless/iwlwifi", ""),
            ("drivers/hid/usbhid/usbhid", ""),
            ("drivers/pinctrl/pinctrl-x", ""),
            ("net/tls/tls", ""),
            ("crypto/gcm", ""),
            ("drivers/crypto/engine", ""),
            ("sound/snd", ""),
            ("drivers/md/dm-mod", ""),
            ("drivers/md/dm-multipath", "drivers/scsi/scsi_mod"),
            ("drivers/md/dm-round-robin", "drivers/md/dm-multipath"),
            ("drivers/md/dm-verity", "drivers/md/dm-bufio"),
            ("drivers/md/dm-bufio", "drivers/md/dm-mod"),
            ("drivers/scsi/scsi_mod", ""),
            ("crypto/sha512_generic", ""),
            ("arch/x86/crypto/sha256-ssse3", ""),
        ];
        let mut texts =
            Texts { builtin: "kernel/drivers/block/loop.ko\n".into(), ..Texts::default() };
        for (path, needs) in files {
            let needs = if needs.is_empty() { String::new() } else { format!("kernel/{needs}.ko") };
            texts.dep.push_str(&format!("kernel/{path}.ko: {needs}\n"));
        }
        texts.alias = "alias crypto-gcm gcm\nalias crypto-gcm engine\n\
            alias crypto-sha256 sha256-ssse3\nalias crypto-sha256 engine\n\
            alias crypto-sha512 sha512_generic\nalias crypto-sha512 engine\n"
            .into();
        Index::parse(&texts)
    }

    fn chosen(drivers: Option<&[&str]>, extra: &[&str]) -> Result<String> {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let drivers = drivers.map(owned);
        let request =
            Request { drivers: drivers.as_deref(), extra: &owned(extra), keyboard: false };
        let selection = choose(&index(), &request)?;
        let base = ["nbd", "overlay", "squashfs", "tls", "gcm"];
        // A command line may compose links of any card, also where one driver was named.
        let links = ["bonding", "8021q", "garp", "bridge", "stp", "llc"];
        // So may it ask for a root of any kind.
        let roots = [
            "dm_mod",
            "dm_multipath",
            "scsi_mod",
            "dm_round_robin",
            "dm_verity",
            "dm_bufio",
            "sha256_ssse3",
            "sha512_generic",
        ];
        let mut modules = selection.modules;
        for name in base.into_iter().chain(links).chain(roots) {
            assert!(modules.remove(name), "{name} must always be there");
        }
        Ok(modules.into_iter().collect::<Vec<_>>().join(" "))
    }

    #[test]
    #[rustfmt::skip]
    fn drivers_narrow_the_choice_and_keep_what_they_need() {
        let cases: [(&[&str], &[&str], &str); 8] = [
            (&["virtio_net"],   &[],                   "virtio_net"),
            (&["igb"],          &[],                   "i2c_algo_bit igb"),
            (&["e1000*"],       &[],                   "e1000e"),
            (&["tg3"],          &[],                   "broadcom libphy marvell tg3"), // every PHY
            (&["mlx4-core"],    &[],                   "mlx4_core mlx4_en"),           // by our softdep
            (&["virtio_net"],   &["snd"],              "snd virtio_net"),
            (&["virtio_net"],   &["drivers/pinctrl/"], "pinctrl_x virtio_net"),
            (&["virtio_net"],   &["loop"],             "virtio_net"),                  // built in
        ];
        for (drivers, extra, expected) in cases {
            assert_eq!(chosen(Some(drivers), extra).unwrap(), expected, "{drivers:?} {extra:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_cannot_be_had_is_named_with_the_nearest_name() {
        let cases: [(&[&str], &[&str], &str); 5] = [
            (&["e1000"],    &[],       r#"this kernel has no network driver "e1000"; did you mean "e1000e"?"#),
            (&["snd"],      &[],       r#"this kernel has no network driver "snd""#),
            (&["virtionet"], &[],      r#"this kernel has no network driver "virtionet"; did you mean "virtio_net"?"#),
            (&["igb"],      &["nvme"], r#"this kernel has no module "nvme""#),
            (&["odd"],      &[],       "kernel/drivers/net/ethernet/odd/odd.ko needs the module lost, which is not in this tree: is a package missing?"),
        ];
        for (drivers, extra, expected) in cases {
            let error = chosen(Some(drivers), extra).unwrap_err().to_string();
            assert_eq!(error, expected, "{drivers:?} {extra:?}");
        }
    }

    #[test]
    fn a_kernel_that_cannot_boot_from_the_network_is_refused() {
        let request = Request { drivers: None, extra: &[], keyboard: false };
        let cases = [
            ("kernel/fs/overlay.ko:\nkernel/fs/ext4.ko:\n", "this kernel has no nbd, neither"),
            ("kernel/fs/ext4.ko:\n", "this kernel has no nbd and no overlay, neither"),
            ("kernel/nbd.ko:\nkernel/fs/overlay.ko:\n", "this kernel can read none of"),
        ];
        for (dep, expected) in cases {
            let index = Index::parse(&Texts { dep: dep.into(), ..Texts::default() });
            let error = choose(&index, &request).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{dep}: {error}");
        }
        let builtin = "kernel/nbd.ko\nkernel/fs/overlay.ko\nkernel/fs/squashfs.ko\n";
        let index = Index::parse(&Texts { builtin: builtin.into(), ..Texts::default() });
        let selection = choose(&index, &request).unwrap();
        assert!(selection.modules.is_empty());
        assert!(selection.absent.contains(&"tls") && !selection.absent.contains(&"squashfs"));
    }

    #[test]
    fn dependencies_are_listed_each_before_its_users() {
        let dep = "a.ko: b.ko c.ko\nb.ko: d.ko\nc.ko: b.ko\nd.ko: a.ko\n"; // d closes a circle
        let index = Index::parse(&Texts { dep: dep.into(), ..Texts::default() });
        let order: Vec<_> =
            dependencies(&index, index.module("a").unwrap()).iter().map(|m| &*m.name).collect();
        assert_eq!(order, ["d", "b", "c"]);
    }
}
