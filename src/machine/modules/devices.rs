//! The devices of this machine that a driver could be loaded for, read from sysfs and
//! from the kernel's events.
//!
//! Only what sits on a bus is looked at (`/sys/bus/*/devices`): a driver binds to nothing else. That
//! is a few hundred entries where the whole of `/sys/devices` has tens of thousands of directories
//! on a server. CPUs are left out: their aliases bring faster ciphers and thermal sensors, not
//! devices, and udev asks for those again in the real root; what the boot itself needs of them is
//! loaded as a soft dependency of its user.

use std::fs;
use std::path::Path;

/// Something with a modalias.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// The kernel's name on its bus: `0000:00:03.0`, `virtio0`, `1-1:1.0`.
    pub name: String,
    pub modalias: String,
}

/// Every device on a bus below `sys`, in the order of bus and name.
pub fn present(sys: &Path) -> Vec<Device> {
    let mut devices = Vec::new();
    for bus in names_in(&sys.join("bus")) {
        if bus == "cpu" {
            continue;
        }
        let directory = sys.join("bus").join(&bus).join("devices");
        for name in names_in(&directory) {
            let device = directory.join(&name);
            let modalias = match bus.as_str() {
                "mdio_bus" => attribute(&device, "phy_id").and_then(|id| phy_modalias(&id)),
                _ => attribute(&device, "modalias"),
            };
            if let Some(modalias) = modalias {
                devices.push(Device { name, modalias });
            }
        }
    }
    devices
}

/// The device that an event of the kernel announces, if it is one that appears and has a modalias.
pub fn added(event: &[u8]) -> Option<Device> {
    let mut modalias = None;
    let mut path = None;
    let mut added = false;
    for field in event.split(|&byte| byte == 0) {
        let Ok(field) = std::str::from_utf8(field) else { continue };
        match field.split_once('=') {
            Some(("ACTION", action)) => added = action == "add",
            Some(("DEVPATH", value)) => path = Some(value),
            Some(("MODALIAS", value)) => modalias = Some(value),
            _ => {}
        }
    }
    let name = path?.rsplit('/').next()?;
    let modalias = modalias?.to_owned();
    added.then(|| Device { name: name.to_owned(), modalias })
}

/// Network devices that no driver has claimed, as an operator would look them up:
/// `0000:00:03.0 [8086:100e]`, `virtio0 [1af4:0001]`, `1-1:1.0 [0bda:8152]`.
pub fn unclaimed_network(sys: &Path) -> Vec<String> {
    let mut unclaimed = Vec::new();
    for (bus, name) in without_driver(sys) {
        let device = sys.join("bus").join(bus).join("devices").join(&name);
        let read = |file: &str| attribute(&device, file).unwrap_or_default();
        let hex = |file: &str| read(file).trim_start_matches("0x").to_owned();
        let id = match bus {
            // `name` is an interface; the numbers are its device's.
            "usb" => fs::canonicalize(&device).ok().and_then(|path| {
                let device = path.parent()?;
                let (vendor, product) =
                    (attribute(device, "idVendor")?, attribute(device, "idProduct")?);
                Some(format!("{vendor}:{product}"))
            }),
            "pci" | "virtio" => Some(format!("{}:{}", hex("vendor"), hex("device"))),
            _ => None,
        };
        unclaimed.push(match id {
            Some(id) => format!("{name} [{id}]"),
            None => name,
        });
    }
    unclaimed
}

/// The same devices, for who looks for their drivers.
pub fn driverless_network(sys: &Path) -> Vec<Device> {
    let found = without_driver(sys).into_iter().filter_map(|(bus, name)| {
        let folder = sys.join("bus").join(bus).join("devices").join(&name);
        attribute(&folder, "modalias").map(|modalias| Device { name, modalias })
    });
    found.collect()
}

/// Network devices that no driver has claimed: bus and name.
fn without_driver(sys: &Path) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for bus in ["pci", "usb", "virtio", "vmbus", "xen"] {
        let directory = sys.join("bus").join(bus).join("devices");
        for name in names_in(&directory) {
            let device = directory.join(&name);
            let read = |file: &str| attribute(&device, file).unwrap_or_default();
            if !device.join("driver").exists() && is_wired_network(bus, &read) {
                found.push((bus, name));
            }
        }
    }
    found
}

/// `read` gives an attribute of the device, empty when there is none.
fn is_wired_network(bus: &str, read: &dyn Fn(&str) -> String) -> bool {
    match bus {
        // Class 02 is networking, and 0280, "other", is what wireless cards say.
        "pci" => {
            let class = read("class");
            class.starts_with("0x02") && !class.starts_with("0x0280")
        }
        // 1: network card (VIRTIO 1.2, section 5).
        "virtio" => read("device") == "0x0001",
        // CDC Ethernet, EEM and NCM, and RNDIS; others hide behind a class of their vendor's own.
        "usb" => matches!(
            (&*read("bInterfaceClass"), &*read("bInterfaceSubClass"), &*read("bInterfaceProtocol")),
            ("02", "06" | "0c" | "0d", _) | ("e0", "01", "03") | ("02", "02", "ff")
        ),
        // The synthetic network adapter (`HV_NIC_GUID` in the kernel's hyperv.h).
        "vmbus" => read("class_id") == "{f8615163-df3e-46c5-913f-f2d2f965ed0e}",
        "xen" => read("devtype") == "vif",
        _ => false,
    }
}

/// PHYs have no modalias in sysfs: the kernel asks `/sbin/modprobe` for their driver, and there is
/// none here. This is the name it would ask for (`MDIO_ID_FMT` in the kernel's mod_devicetable.h).
fn phy_modalias(id: &str) -> Option<String> {
    let id = u32::from_str_radix(id.strip_prefix("0x")?, 16).ok()?;
    // An absent PHY reads as all zeros or all ones.
    (id != 0 && id != u32::MAX).then(|| format!("mdio:{id:032b}"))
}

/// Sorted, so that drivers load in the same order at every boot.
fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Devices vanish between two system calls: whatever cannot be read is not there.
fn attribute(device: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(device.join(name)).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        sys
    }

    #[test]
    fn devices_are_found_on_their_buses_and_phys_by_their_number() {
        let sys = machine(&[
            ("bus/pci/devices/0000:00:04.0/modalias", "pci:v00001AF4\n"),
            ("bus/pci/devices/0000:00:03.0/modalias", "pci:v00008086\n"),
            ("bus/pci/devices/0000:00:05.0/vendor", "0x8086\n"),
            ("bus/cpu/devices/cpu0/modalias", "cpu:type:x86\n"),
            ("bus/mdio_bus/devices/r8169-0-200:00/phy_id", "0x001cc915\n"),
            ("bus/mdio_bus/devices/r8169-0-200:01/phy_id", "0xffffffff\n"),
            ("bus/platform/devices/serial8250/modalias", "platform:serial8250\n"),
        ]);
        let found: Vec<_> =
            present(sys.path()).into_iter().map(|d| format!("{} {}", d.name, d.modalias)).collect();
        assert_eq!(
            found,
            [
                "r8169-0-200:00 mdio:00000000000111001100100100010101",
                "0000:00:03.0 pci:v00008086",
                "0000:00:04.0 pci:v00001AF4",
                "serial8250 platform:serial8250",
            ]
        );
    }

    /// Who boots a machine with a card that nobody packed a driver for must read which card.
    #[test]
    fn network_devices_without_a_driver_are_named_with_their_numbers() {
        let sys = machine(&[
            ("bus/pci/devices/0000:00:03.0/class", "0x020000\n"),
            ("bus/pci/devices/0000:00:03.0/vendor", "0x8086\n"),
            ("bus/pci/devices/0000:00:03.0/device", "0x100e\n"),
            ("bus/pci/devices/0000:00:04.0/class", "0x020000\n"),
            ("bus/pci/devices/0000:00:04.0/driver/bind", ""),
            ("bus/pci/devices/0000:00:05.0/class", "0x028000\n"), // wireless
            ("bus/pci/devices/0000:00:06.0/class", "0x010000\n"),
            ("bus/virtio/devices/virtio0/device", "0x0001\n"),
            ("bus/virtio/devices/virtio0/vendor", "0x1af4\n"),
            ("bus/virtio/devices/virtio1/device", "0x0002\n"),
            ("bus/vmbus/devices/a-b/class_id", "{f8615163-df3e-46c5-913f-f2d2f965ed0e}\n"),
            ("devices/usb1/1-1/idVendor", "0bda\n"),
            ("devices/usb1/1-1/idProduct", "8152\n"),
            ("devices/usb1/1-1/1-1:1.0/bInterfaceClass", "02\n"),
            ("devices/usb1/1-1/1-1:1.0/bInterfaceSubClass", "06\n"),
            ("bus/usb/devices/README", ""),
        ]);
        symlink(
            sys.path().join("devices/usb1/1-1/1-1:1.0"),
            sys.path().join("bus/usb/devices/1-1:1.0"),
        )
        .unwrap();
        assert_eq!(
            unclaimed_network(sys.path()),
            ["0000:00:03.0 [8086:100e]", "1-1:1.0 [0bda:8152]", "virtio0 [1af4:0001]", "a-b"]
        );
    }

    #[test]
    #[rustfmt::skip]
    fn only_devices_that_appear_with_a_modalias_want_a_driver() {
        let cases = [
            (&b"add@/devices/pci/0000:00:03.0\0ACTION=add\0DEVPATH=/devices/pci/0000:00:03.0\0SUBSYSTEM=pci\0MODALIAS=pci:v1\0SEQNUM=9\0"[..],
             Some(("0000:00:03.0", "pci:v1"))),
            (b"remove@/devices/x\0ACTION=remove\0DEVPATH=/devices/x\0MODALIAS=pci:v1\0", None),
            (b"add@/devices/net/eth0\0ACTION=add\0DEVPATH=/devices/net/eth0\0SUBSYSTEM=net\0", None),
            (b"libudev\0\xfe\xed\xca\xfe", None), // udev's own format, should it get here
            (b"add@/x\0ACTION=add\0MODALIAS=pci:v1\0", None),
            (b"", None),
        ];
        for (event, expected) in cases {
            let got = added(event);
            let got = got.as_ref().map(|device| (&*device.name, &*device.modalias));
            assert_eq!(got, expected, "{}", String::from_utf8_lossy(event));
        }
    }

    proptest! {
        #[test]
        fn no_event_can_panic(event in proptest::collection::vec(any::<u8>(), 0..200)) {
            added(&event);
        }
    }
}
