//! A switch that can do what switches of machine rooms can: bonds, tags, lossy and slow cables.
//!
//! Kernels of hosts on which tests run often lack half of it, so the switch is a machine, with
//! Debian's kernel and Debian's `ip`, `bridge` and `tc`. Its card `uplink` is on the lab's `br0`,
//! where the servers are; `port0`, `port1` … are sockets for the machines under test, one cable each,
//! through which every frame passes, those of LACP and of spanning trees as well.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::initramfs::Initramfs;
use crate::kernel::{Arch, Kernel};
use crate::lab::Lab;
use crate::machine::Machine;
use crate::vm::Nic;
use crate::workshop;

const KERNEL: Kernel = Kernel::V6_12;

/// Loaded before anything else happens, but for the card's driver.
const MODULES: &[&str] = &["bonding", "8021q", "bridge", "sch_netem", "sch_prio", "cls_u32"];

/// Of the package iproute2, by what they are called here.
const TOOLS: [(&str, &str); 3] =
    [("ip", "usr/bin/ip"), ("bridge", "usr/sbin/bridge"), ("tc", "usr/sbin/tc")];

/// To get ready, and for any command.
const PATIENCE: Duration = Duration::from_secs(120);

/// Before the lines of a test: every port up and part of one bridge.
const USUAL: &[&str] = &[
    "ip link add lan type bridge",
    "ip link set uplink master lan up",
    "ip link set lan up",
    "for port in $ports; do ip link set $port master lan up || exit; done",
];

pub struct Switch<'lab> {
    lab: &'lab Lab,
    ports: usize,
    script: Vec<String>,
}

impl<'lab> Switch<'lab> {
    pub fn new(lab: &'lab Lab) -> Self {
        Self { lab, ports: 1, script: Vec::new() }
    }

    pub fn ports(mut self, count: usize) -> Self {
        self.ports = count;
        self
    }

    /// Commands of a shell, a line each, that make of a bridge `lan` with all ports in it what the
    /// test wants. `$ports` is the names of all of them.
    pub fn script(mut self, lines: &str) -> Self {
        let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        self.script.extend(lines.map(str::to_owned));
        self
    }

    /// Switches it on, and waits until it has done all of that.
    pub fn start(self) -> Result<RunningSwitch> {
        let socket = |port| format!("landfall-{}-switch-port{port}", process::id());
        let sockets: Vec<_> = (0..self.ports).map(socket).collect();
        let mut vm = self
            .lab
            .vm(KERNEL)
            .named("switch")
            .initramfs(image()?)
            .cmdline("quiet panic=-1 ipv6.disable=1")
            .memory_mib(192)
            .nic(Nic::on("br0").mac("52:54:00:77:ff:ff"));
        for (port, socket) in sockets.iter().enumerate() {
            vm = vm.nic(Nic::on_cable(socket, true).mac(&format!("52:54:00:77:ff:{port:02x}")));
        }
        let switch = RunningSwitch { machine: vm.boot()?, sockets };
        switch.answer("the switch to be ready")?;
        switch.run(&format!("ports={:?}", port_names(self.ports).join(" ")))?;
        for line in USUAL.iter().copied().chain(self.script.iter().map(String::as_str)) {
            switch.run(line)?;
        }
        Ok(switch)
    }
}

/// Switched off when dropped.
pub struct RunningSwitch {
    machine: Machine,
    sockets: Vec<String>,
}

impl RunningSwitch {
    /// A card whose cable leads to this port.
    pub fn port(&self, number: usize) -> Result<Nic> {
        let socket = self.sockets.get(number).with_context(|| format!("no port {number}"))?;
        Ok(Nic::on_cable(socket, false))
    }

    /// A line for the switch's shell, which must succeed; what it prints. Variables and functions
    /// stay.
    pub fn run(&self, line: &str) -> Result<String> {
        ensure!(!line.contains('\n'), "not one line: {line:?}");
        let (_, mut port) = self.machine.control();
        port.write_all(format!("{line}\n").as_bytes())?;
        self.answer(line)
    }

    /// Pulls the cable out of a port, or plugs it in again. The machine at the other end notices
    /// only that nothing arrives; its own end is [`Machine::cable`]'s.
    pub fn cable(&self, port: usize, plugged: bool) -> Result<()> {
        // Before the ports comes the uplink.
        self.machine.cable(port + 1, plugged)
    }

    /// Pulls the whole cable between a port and a machine's card, or plugs it in again.
    pub fn cable_to(
        &self,
        port: usize,
        machine: &Machine,
        nic: usize,
        plugged: bool,
    ) -> Result<()> {
        self.cable(port, plugged)?;
        machine.cable(nic, plugged)
    }

    /// ```text
    /// |a line that was printed
    /// =0
    /// ```
    fn answer(&self, to: &str) -> Result<String> {
        let (console, _) = self.machine.control();
        let mut text = String::new();
        let status = console.wait(&format!("the switch: {to}"), PATIENCE, |heard| {
            while let Some(line) = heard.control.pop_front() {
                if let Some(status) = line.strip_prefix('=') {
                    return Some(Ok(status.to_owned()));
                }
                text += line.strip_prefix('|').unwrap_or(&line);
                text.push('\n');
            }
            None
        })?;
        ensure!(status == "0", "the switch: {to}: status {status}: {text}");
        Ok(text)
    }
}

fn port_names(count: usize) -> Vec<String> {
    (0..count).map(|port| format!("port{port}")).collect()
}

/// One for all tests: what makes the difference comes over the control port.
fn image() -> Result<PathBuf> {
    // Cards are found in the order of their slots. The applets of busybox that share a name with
    // the real tools must not take their places.
    let tools = TOOLS.map(|(name, _)| format!("{name}() {{ /tools/{name} \"$@\"; }}\n")).concat();
    let init = format!(
        r#"#!/bin/busybox sh
/bin/busybox mkdir -p /bin /dev /proc /sys /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
port=/dev/{port}
stty -F $port raw -echo
exec 3<>$port
{tools}
answer() {{
    "$@" >/tmp/output 2>&1
    status=$?
    sed 's/^/|/' /tmp/output >&3
    echo "=$status" >&3
}}
begin() {{
    for module in virtio_net {modules}; do modprobe $module || return; done
    # The module makes one that nobody asked for.
    ip link delete bond0 2>/dev/null
    ip link set eth0 name uplink
    ip link set lo up
    number=0
    while [ -e /sys/class/net/eth$((number + 1)) ]; do
        ip link set eth$((number + 1)) name port$number || return
        number=$((number + 1))
    done
}}
answer begin
while read -r line <&3; do answer eval "$line"; done
"#,
        port = "ttyS1",
        modules = MODULES.join(" "),
    );
    let mut image = Initramfs::new(KERNEL)
        .modules(MODULES)
        .script("init", &init)
        .program("bin/busybox", &Arch::Amd64.busybox()?);
    let mut libraries = BTreeSet::new();
    for (name, path) in TOOLS {
        image = image.program(&format!("tools/{name}"), &workshop::packaged(path)?);
        libraries.extend(libraries_of(path)?);
    }
    for library in &libraries {
        let name = library.file_name().context("a library has a name")?.to_string_lossy();
        image = image.program(&format!("lib/x86_64-linux-gnu/{name}"), library);
    }
    image
        .program("lib64/ld-linux-x86-64.so.2", &workshop::packaged(LOADER)?)
        .build()
        .context("building the switch's initramfs")
}

const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// As the loader itself finds them, in the packages and not on the host.
fn libraries_of(program: &str) -> Result<Vec<PathBuf>> {
    let folder = workshop::packaged("usr/lib/x86_64-linux-gnu")?;
    let output = Command::new(workshop::packaged(LOADER)?)
        .arg("--library-path")
        .arg(&folder)
        .arg("--list")
        .arg(workshop::packaged(program)?)
        .output()?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    // `	libmnl.so.0 => /…/libmnl.so.0 (0x00007f…)`; the loader itself is there by its path.
    let text = String::from_utf8(output.stdout)?;
    let path = |line: &str| {
        let (name, path) = line.split_once(" => ")?;
        (!name.contains('/')).then(|| path.split(' ').next().map(PathBuf::from))?
    };
    let libraries: Vec<_> = text.lines().filter_map(path).collect();
    let ours = |library: &PathBuf| library.starts_with(&folder) && Path::exists(library);
    ensure!(libraries.iter().all(ours), "{program} wants what no package has:\n{text}");
    Ok(libraries)
}
