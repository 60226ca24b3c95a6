//! A machine in one literal: what it is made of, and what its boot loader tells it.

use std::fs::{self, File};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::accel::Accel;
use crate::console::Console;
use crate::kernel::Kernel;
use crate::lab::Lab;
use crate::machine::{Listeners, Machine, cable};
use crate::sys;

/// What looks for something to boot on a machine that has nothing but network cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, which starts the PXE ROM of the first card; in QEMU that is an iPXE.
    Bios,
    /// OVMF, with its own driver for the card and its own PXE and HTTP boot.
    Uefi,
    /// The same, set to boot from web servers only.
    UefiHttp,
    /// OVMF with Secure Boot: it starts what Debian's snake oil key has signed.
    SecureUefi,
}

impl Firmware {
    /// Those that start anything.
    pub const ALL: [Self; 2] = [Self::Bios, Self::Uefi];

    /// OVMF's code, and its store of variables: one in which nobody has written yet, or one with
    /// the key in it.
    fn ovmf(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Bios => None,
            Self::Uefi | Self::UefiHttp => {
                Some(["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"])
            }
            Self::SecureUefi => Some([
                "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
                "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd",
            ]),
        }
    }
}

/// A network card, and what its cable leads to.
#[derive(Clone, Debug)]
pub struct Nic {
    to: Far,
    /// `None`: by its number.
    mac: Option<String>,
    plugged: bool,
}

#[derive(Clone, Debug)]
enum Far {
    /// A bridge of the lab.
    Wire(String),
    /// One end of a cable between two machines, by the socket that it is: every frame goes through,
    /// those that bridges keep to themselves as well.
    Cable { socket: String, first: bool },
}

impl Nic {
    pub fn on(wire: &str) -> Self {
        Self { to: Far::Wire(wire.to_owned()), mac: None, plugged: true }
    }

    /// Of the machine that is switched on first, or of the other.
    pub(crate) fn on_cable(socket: &str, first: bool) -> Self {
        Self { to: Far::Cable { socket: socket.to_owned(), first }, mac: None, plugged: true }
    }

    pub fn mac(mut self, mac: &str) -> Self {
        self.mac = Some(mac.to_owned());
        self
    }

    /// Without carrier until [`Machine::cable`] says otherwise.
    pub fn unplugged(mut self) -> Self {
        self.plugged = false;
        self
    }

    /// QEMU's `-netdev`, but for the name.
    fn backend(&self, lab: &Lab) -> Result<String> {
        Ok(match &self.to {
            Far::Wire(wire) => {
                format!("tap,ifname={},script=no,downscript=no", lab.tap(wire)?)
            }
            Far::Cable { socket, first } => format!(
                "stream,server={},addr.type=unix,addr.abstract=on,addr.path={socket}",
                if *first { "on" } else { "off" }
            ),
        })
    }
}

/// Of the cards in the order in which they are given: the last byte begins at 1.
const MACS: &str = "52:54:00:77:00";

pub struct Vm<'lab> {
    lab: &'lab Lab,
    name: &'static str,
    kernel: Kernel,
    firmware: Option<Firmware>,
    initramfs: Option<PathBuf>,
    cmdline: String,
    memory_mib: u32,
    /// None: one on `br0`.
    nics: Vec<Nic>,
    nic_model: &'static str,
    disks: Vec<PathBuf>,
    disk_elsewhere: Option<String>,
    watchdog: bool,
    uuid: Option<String>,
    accel: Accel,
    console: Output,
    reader: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    Log,
    /// And on standard output.
    Echo,
    /// This terminal is the console; nothing is logged.
    Terminal,
}

impl<'lab> Vm<'lab> {
    /// 512 MiB, two CPUs, one virtio NIC on `br0`, and firmware that knows no UUID.
    pub(crate) fn new(lab: &'lab Lab, kernel: Kernel) -> Self {
        Self {
            lab,
            name: "machine",
            kernel,
            firmware: None,
            initramfs: None,
            cmdline: String::new(),
            memory_mib: 512,
            nics: Vec::new(),
            nic_model: "virtio-net-pci",
            disks: Vec::new(),
            disk_elsewhere: None,
            watchdog: false,
            uuid: None,
            accel: Accel::best(),
            console: Output::Log,
            reader: false,
        }
    }

    /// What its files in the lab's folder begin with, where there are several machines.
    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    pub fn initramfs(mut self, image: impl Into<PathBuf>) -> Self {
        self.initramfs = Some(image.into());
        self
    }

    /// Starts the machine as one is started by its switch: kernel, initramfs and command line come
    /// from wherever its firmware finds them, and those given here count for nothing.
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = Some(firmware);
        self
    }

    /// What the boot loader says, beside the console and what an emulated machine needs.
    pub fn cmdline(mut self, words: &str) -> Self {
        self.cmdline = words.to_owned();
        self
    }

    pub fn memory_mib(mut self, memory: u32) -> Self {
        self.memory_mib = memory;
        self
    }

    /// Instead of the one card on `br0`; in the order in which the kernel finds them.
    pub fn nics(mut self, nics: &[(&str, &str)]) -> Self {
        self.nics = nics.iter().map(|(wire, mac)| Nic::on(wire).mac(mac)).collect();
        self
    }

    /// One more card. Given any, there is none but those given.
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nics.push(nic);
        self
    }

    /// What the cards are, as QEMU's `-device` names it.
    pub fn nic_model(mut self, model: &'static str) -> Self {
        self.nic_model = model;
        self
    }

    /// One more virtio disk: vda, vdb.
    pub fn disk(mut self, image: impl Into<PathBuf>) -> Self {
        self.disks.push(image.into());
        self
    }

    /// A SCSI disk with a cache, which is where this NBD URI leads: it stands still when that server
    /// does, as a disk with a broken controller.
    pub fn disk_elsewhere(mut self, uri: &str) -> Self {
        self.disk_elsewhere = Some(uri.to_owned());
        self
    }

    /// Hardware that resets the machine when nobody speaks to it for too long.
    pub fn watchdog(mut self) -> Self {
        self.watchdog = true;
        self
    }

    pub fn uuid(mut self, uuid: &str) -> Self {
        self.uuid = Some(uuid.to_owned());
        self
    }

    /// A third serial port, for [`Machine::reader`].
    pub fn reader_port(mut self) -> Self {
        self.reader = true;
        self
    }

    pub fn accel(mut self, accel: Accel) -> Self {
        self.accel = accel;
        self
    }

    /// Shows the console while the machine runs.
    pub fn echo(mut self) -> Self {
        self.console = Output::Echo;
        self
    }

    /// Gives the machine this terminal as its console, with QEMU's keys on Ctrl-A.
    pub fn on_this_terminal(mut self) -> Self {
        self.console = Output::Terminal;
        self
    }

    /// Switches the machine on.
    pub fn boot(self) -> Result<Machine> {
        // These are sockets without a path: gone with the namespace, and paths of sockets may not be
        // longer than 107 bytes.
        let listen = |address: &str| -> Result<_> {
            Ok(UnixListener::bind_addr(&SocketAddr::from_abstract_name(address.as_bytes())?)?)
        };
        let address = format!("landfall-{}-{}", std::process::id(), self.name);
        let monitor = format!("{address}-monitor");
        let reader = format!("{address}-reader");
        let listeners = Listeners {
            control: listen(&address)?,
            monitor: listen(&monitor)?,
            reader: if self.reader { Some(listen(&reader)?) } else { None },
        };
        let nics = if self.nics.is_empty() { &[Nic::on("br0")][..] } else { &self.nics };

        let arch = self.kernel.arch();
        let mut command = Command::new(arch.qemu());
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-m", &self.memory_mib.to_string()])
            .args(["-smp", &self.cpus().to_string()])
            .args(arch.board(self.accel))
            .args(["-serial", if self.console == Output::Terminal { "mon:stdio" } else { "stdio" }])
            .args(["-chardev", &format!("socket,id=control,abstract=on,path={address}")])
            .args(arch.control_port())
            .args(["-chardev", &format!("socket,id=monitor,abstract=on,path={monitor}")])
            .args(["-mon", "chardev=monitor,mode=control"]);
        if self.reader {
            command
                .args(["-chardev", &format!("socket,id=reader,abstract=on,path={reader}")])
                .args(["-device", "isa-serial,chardev=reader,index=2"]);
        }
        self.add_firmware(&mut command)?;
        for (number, nic) in nics.iter().enumerate() {
            let mut model = self.nic_model.to_owned();
            // A bond that talks to its switch wants to know both, and this card would not say.
            if model.starts_with("virtio") && matches!(nic.to, Far::Cable { .. }) {
                model += ",speed=1000,duplex=full";
            }
            let mac = nic.mac.clone().unwrap_or_else(|| format!("{MACS}:{:02x}", number + 1));
            let (rom, order) = match self.firmware {
                Some(Firmware::Bios) => ("", format!(",bootindex={number}")),
                // Without its ROM the card is the firmware's to drive, as in most servers.
                Some(_) => (",romfile=", format!(",bootindex={number}")),
                None => (",romfile=", String::new()),
            };
            // A fixed slot for each card, so that its name in the running system is known.
            let slot = number + 3;
            command
                .arg("-netdev")
                .arg(format!("{},id={}", nic.backend(self.lab)?, cable(number)))
                .args(["-device"])
                .arg(format!("{model},netdev={},mac={mac},addr={slot}{rom}{order}", cable(number)));
        }
        for (number, disk) in self.disks.iter().enumerate() {
            command
                .arg("-drive")
                .arg(format!("if=none,id=disk{number},format=raw,file={}", disk.display()))
                .arg("-device")
                .arg(format!("virtio-blk-pci,drive=disk{number},addr={}", number + 16));
        }
        if let Some(uri) = &self.disk_elsewhere {
            command
                .args(["-drive", &format!("if=none,id=elsewhere,format=raw,file={uri}")])
                .args(["-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=elsewhere"]);
        }
        if self.watchdog {
            command.args(["-device", "i6300esb", "-action", "watchdog=reset"]);
        }
        if let Some(uuid) = &self.uuid {
            command.args(["-uuid", uuid]);
        }

        let console = Console::default();
        let errors = self.lab.file(&format!("{}.qemu.log", self.name));
        if self.console != Output::Terminal {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        }
        command.stderr(File::create(&errors)?);
        let mut qemu = sys::bind_to_this_thread(&mut command)
            .spawn()
            .with_context(|| format!("starting {}", arch.qemu()))?;
        if let Some(output) = qemu.stdout.take() {
            let log = File::create(self.lab.file(&format!("{}.console.log", self.name)))?;
            console.follow_console(output, log, self.console == Output::Echo);
        }
        let machine = Machine::new(qemu, console, &listeners, &errors)?;
        for (number, _) in nics.iter().enumerate().filter(|(_, nic)| !nic.plugged) {
            // Long before its kernel has a driver for the card.
            machine.cable(number, false)?;
        }
        Ok(machine)
    }

    /// Where one thread emulates them all, a second one only takes time to wait for the first; but a
    /// root that is read all the time shall have two connections in use.
    fn cpus(&self) -> u32 {
        match self.accel {
            Accel::Kvm => 2,
            Accel::Tcg if self.reader => 2,
            Accel::Tcg | Accel::Counted => 1,
        }
    }

    /// What the machine runs first.
    fn add_firmware(&self, command: &mut Command) -> Result<()> {
        match self.firmware {
            // QEMU's own choice. Without graphics it, and hence the card's ROM, speaks on the first
            // serial port; OVMF does so anyway.
            Some(Firmware::Bios) => {
                command.args(["-machine", "graphics=off"]);
            }
            Some(firmware) => {
                let [code, pristine] = firmware.ovmf().context("this firmware is not OVMF")?;
                let variables = self.lab.file(&format!("{}.vars.img", self.name));
                fs::copy(pristine, &variables)
                    .with_context(|| format!("{pristine}: package ovmf"))?;
                command
                    .args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")])
                    .arg("-drive")
                    .arg(format!("if=pflash,format=raw,file={}", variables.display()));
                if self.accel != Accel::Kvm {
                    // From 2024 on OVMF has no network without random numbers, and the processor
                    // that is emulated by default has none to give.
                    command.args(["-cpu", "qemu64,+rdrand"]);
                }
                if firmware == Firmware::UefiHttp {
                    for family in ["IPv4PXE", "IPv6PXE", "IPv6"] {
                        let off = format!("name=opt/org.tianocore/{family}Support,string=n");
                        command.args(["-fw_cfg", &off]);
                    }
                }
                if firmware == Firmware::SecureUefi {
                    // Only the firmware itself, in its own mode of the processor, may write the
                    // variables; and it does not implement suspending to memory in it.
                    command
                        .args(["-machine", "smm=on"])
                        .args(["-global", "driver=cfi.pflash01,property=secure,value=on"])
                        .args(["-global", "ICH9-LPC.disable_s3=1"]);
                }
            }
            None => {
                let initramfs = self.initramfs.as_ref().context("this machine has no initramfs")?;
                command
                    .args([
                        "-append",
                        &format!("{} {}", self.kernel.arch().cmdline(), self.cmdline),
                    ])
                    .arg("-kernel")
                    .arg(self.kernel.vmlinuz()?)
                    .arg("-initrd")
                    .arg(initramfs);
            }
        }
        Ok(())
    }
}
