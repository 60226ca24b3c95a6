//! The rows. Their texts are in every image, so they are short; the manual page has the rest.

use super::Value::*;
use super::{Known, NetworkKey, Standing, Topic, Value};

use Topic::{
    Commands, Files, Mounts, Names, Network, Services as Units, Source, Swap, System, Time,
};

#[rustfmt::skip]
pub const KNOWN: &[Known] = &[
    Source.row("LIKE", Section, "", "Settings of another section, weaker than those of this one. May be given several times, the strongest first."),
    Source.row("LTSCONF", FileName, "lts.conf", "Name of the file to fetch; of use on the kernel command line."),
    Source.row("SERVER", Host, "the boot server", "The default of TIMESERVER=auto, NBD_SWAP_HOST and NFS_HOME, and a line of /etc/hosts."),

    Names.row("HOSTNAME", HostName, "from DHCP or ip=", "Name of the node, up to the first blank. A section of that name is in force as well."),
    Names.row("HOSTNAME_BASE", PartOfName, "ltsp", "How names begin that are made up for nodes without one."),
    Names.row("HOSTNAME_EXTRA", PartOfName, "ip", "How they end: ip for the host part of the address, mac, or any text."),
    Names.row("HOSTNAME_ADDRESS", AddressOr(&["lease", "off"]), "127.0.0.2", "Address of the node's own line in /etc/hosts; lease is that of its network card, off leaves the line out."),
    Names.row("SERVER_NAME", HostName, "server", "Name of SERVER in /etc/hosts."),
    Names.row("HOSTS_", HostsLine, "", "Lines of /etc/hosts."),

    Network.row("DNS_SERVER", Addresses, "from DHCP", "Name servers."),
    Network.row("SEARCH_DOMAIN", Domains, "from DHCP", "Domains in which short names are looked up."),
    Network.row("NET_DEVICE_METHOD", Text, "manual", "Method of the boot interface in /etc/network/interfaces."),
    Network.net(NetworkKey::Ip, "from the boot", "Addresses of the running system, as ip= on the kernel command line. An ip= for the same link is stronger; one that names no link, like ip=dhcp, yields to a NET_IP that names one, and one for a port yields to a NET_IP for the bond or bridge of NET_* that takes the port. Of the other NET_*, a bond, VLAN, bridge or route that was typed is stronger than the same one here, and the rest is added."),
    Network.net(NetworkKey::Bond, "", "Bonds, as bond=: NAME:PORTS:OPTIONS:MTU."),
    Network.net(NetworkKey::Vlan, "", "VLANs, as vlan=: NAME:DEVICE, with the number at the end of NAME."),
    Network.net(NetworkKey::Bridge, "", "Bridges, as bridge=: NAME:PORTS."),
    Network.net(NetworkKey::Route, "", "More routes, as rd.route=: NETWORK/PREFIX:GATEWAY:DEVICE."),
    Network.net(NetworkKey::Nameserver, "", "Name servers in front of those of DHCP and of routers, if none were typed."),
    Network.net(NetworkKey::IfName, "", "Names of ports, as ifname=: NAME:MAC."),
    Network.net(NetworkKey::Handover, "dhcp", "Who looks after the network: dhcp, the system renews the lease; static, the lease becomes an address that needs no server; unmanaged, the system keeps its hands off."),
    Network.row("SYSLOG_HOST", Hosts { word: None, ports: true }, "", "Where all log messages are sent too."),

    Time.row("TIMESERVER", Hosts { word: Some("auto"), ports: false }, "", "NTP servers, for timesyncd, chrony or ntpd; auto is SERVER."),
    Time.row("TIMEZONE", TimeZone, "the image's", "Time zone."),
    Time.row("HWCLOCK", OneOf(&["utc", "local", "localtime"]), "as the image has it", "What the hardware clock shows."),

    Commands.row("INIT_COMMAND_", ShellLine, "", "Shell commands, run in the root after names and modules, and before all other files."),
    Commands.row("PRE_INIT_", ShellLine, "", "The same as INIT_COMMAND_*."),
    Commands.row("PREINIT_", ShellLine, "", "Shell commands, run in the root last, right before its init."),
    Commands.row("POST_INIT_", ShellLine, "", "The same as PREINIT_*."),
    Commands.row("RCFILE_", ShellLine, "", "The end of /etc/rc.local."),
    Commands.row("CRONTAB_", CronLine, "", "Lines of /etc/cron.d/ltsp, with the user."),
    Commands.row("SHUTDOWN_TIME", TimeOfDay, "", "When the node powers itself off, every day."),

    Units.row("KEEP_SYSTEM_SERVICES", Services, "", "Services that stay, whatever else says they go."),
    Units.row("RM_SYSTEM_SERVICES", Services, "", "Services to remove, beside those that LTSP removes."),
    Units.row("RM_THIN_SYSTEM_SERVICES", Services, "", "The same, where LTSP_FATCLIENT is not true."),
    Units.row("RM_LOW_RAM_SERVICES", Services, "", "The same, where there is little memory as well."),
    Units.row("RM_RAM_THRESHOLD", Megabytes, "200", "Up to how much memory is little."),
    Units.row("MASK_SYSTEM_SERVICES", Services, "", "Services that nothing can start."),
    Units.row("DISABLE_SYSTEM_SERVICES", Services, "", "Services that do not start by themselves."),
    Units.row("ENABLE_SYSTEM_SERVICES", Services, "", "Services that start by themselves, as their [Install] says."),
    Units.row("LTSP_FATCLIENT", Boolean, "whether there is a desktop in the image", "Whether fewer services are removed."),
    Units.row("FAT_RAM_THRESHOLD", Megabytes, "300", "From how much memory on LTSP_FATCLIENT may be true by itself."),
    Units.row("DISABLE_GETTYS", Boolean, "true", "No logins on tty2 to tty6, where there is an /etc/inittab."),

    Mounts.row("FSTAB_", FstabLine, "", "Lines of /etc/fstab, instead of the image's. Mount points are made."),
    Mounts.row("CONFIGURE_FSTAB", Boolean, "true", "If false, the image's /etc/fstab stays as it is."),
    Mounts.row("NFS_HOME", NfsSource, "", "What is mounted on /home; SERVER, if no server is named."),
    Mounts.row("NFS_HOME_OPTIONS", MountOptions, "defaults", "Mount options of NFS_HOME."),
    Mounts.row("CONTAINER_DIRS", Value::ContainerDirs, "auto", "What is mounted on the directories of container engines, which cannot work on an overlay; auto is a tmpfs for each engine of the image that no FSTAB_ line provides for."),
    Mounts.row("IMAGE_FILES_", Paths, "", "Files of the image that stay in sight below a mount, as links to /rofs."),
    Mounts.row("LTSP_NBD_TO_RAM", Switch, "false", "The whole image is copied to memory before it is started. 1 and on mean true as well, here only."),

    Swap.row("USE_LOCAL_SWAP", Boolean, "false", "Swap partitions of local disks are used."),
    Swap.row("NBD_SWAP", BooleanOr(&["auto"]), "auto", "Swap over the network; auto: if memory is below NBD_SWAP_THRESHOLD."),
    Swap.row("NBD_SWAP_THRESHOLD", Megabytes, "800", "Up to how much memory NBD_SWAP=auto means yes; 2100 where LTSP_FATCLIENT is true."),
    Swap.row("NBD_SWAP_HOST", Host, "SERVER", "Who serves the export \"swap\"."),
    Swap.row("ENCRYPT_SWAP", Boolean, "whether the image has cryptsetup", "Swap is encrypted with a key that nobody knows."),
    Swap.row("ZRAM_SWAP", SizeOrShare, "off", "Compressed swap in memory, so large or such a share of the memory."),

    Files.row("FILE_", File, "", "A file, written after everything else. In content and append \\n is a new line, \\t a tab, \\s a blank, \\\\ a backslash."),
    Files.row("OVERLAY_DIR", Path, "/etc/ltsp/overlay-dir", "A directory of the image that is copied onto /."),
    Files.row("SSH_AUTHORIZED_KEYS_", SshKey, "", "Keys that may log in as USER, or as root."),
    Files.row("SSH_HOST_KEYS", Exactly("generate"), "", "Missing host keys are made before sshd starts."),

    System.row("MODULE_", Module, "", "Kernel modules, with their parameters."),
    System.row("SYSCTL_", Sysctl, "", "Kernel parameters, for /etc/sysctl.d."),
    System.row("XKBMODEL", Keyboard, "the image's", "Keyboard model."),
    System.row("XKBLAYOUT", Keyboard, "the image's", "Keyboard layouts, separated by commas."),
    System.row("XKBVARIANT", Keyboard, "the image's", "Their variants."),
    System.row("XKBOPTIONS", Keyboard, "the image's", "Keyboard options."),

    given("DEVICE", "The boot interface."),
    given("PROTO", "How it got its address: dhcp or none."),
    given("IPV4ADDR", "Its address."),
    given("IPV4NETMASK", "Its netmask."),
    given("IPV4BROADCAST", "Its broadcast address."),
    given("IPV4GATEWAY", "The first router."),
    given("IPV4DNS0", "The first name server."),
    given("IPV4DNS1", "The second one."),
    given("DNSDOMAIN", "The domain (option 15)."),
    given("DOMAINSEARCH", "The domains to search (option 119)."),
    given("NISDOMAIN", "The NIS domain (option 40)."),
    given("ROOTSERVER", "The boot server."),
    given("ROOTPATH", "The root path (option 17)."),
    given("filename", "The boot file (option 67)."),
    given("NTPSVR", "The time servers (option 42)."),
    given("TIMESVR", "The same."),
    given("DHCPLEASETIME", "How long the lease lasts, in seconds."),
    given("LTSP_CLIENT_MAC", "The MAC address of the boot interface."),
    given("NBD_ROOT_HOST", "Who serves the root, if root= says so."),
    given("NBD_ROOT_PORT", "At which port."),
    given("NBD_ROOT_NAME", "By which export."),

    ignored("PROCESS_LTS_CONF", "The file is read at every boot."),
    ignored("LTSP_CONFIG", "It had no effect in LTSP 5 either."),
    ignored("NBD_SWAP_PORT", "It had no effect in LTSP 5 either."),
    ignored("NBD_SWAP_SERVER", "It had no effect in LTSP 5 either; NBD_SWAP_HOST has."),
    ignored("KERNEL_DEVICE", LOCAL_KERNEL),
    ignored("KERNEL_NAME", LOCAL_KERNEL),
    ignored("INITRD_NAME", LOCAL_KERNEL),
    ignored("KERNEL_DIR", LOCAL_KERNEL),
    ignored("LTSP_RW_DIRS*", WRITABLE),
    ignored("LTSP_COPY_DIRS*", WRITABLE),
    ignored("LTSP_BINDFILES*", WRITABLE),
    ignored("LTSP_ROOT_WRITE_METHOD", WRITABLE),
    ignored("LTSP_NBD_TO_DRIVE", LOCAL_COPY),
    ignored("LTSP_NBD_TO_DRIVE_AUTOREFRESH", LOCAL_COPY),
    ignored("LTSP_DATA_DRIVE", LOCAL_COPY),
    ignored("LTSP_MOUNT_DATA_DRIVE", LOCAL_COPY),
    ignored("SCREEN_*", DESKTOP),
    ignored("LDM_*", DESKTOP),
    ignored("X_*", DESKTOP),
    ignored("XSERVER", DESKTOP),
    ignored("XRANDR_*", DESKTOP),
    ignored("XFS_*", DESKTOP),
    ignored("USE_XFS", DESKTOP),
    ignored("USE_TOUCH", DESKTOP),
    ignored("XDM_SERVER", DESKTOP),
    ignored("TELNET_HOST", DESKTOP),
    ignored("RDP_*", DESKTOP),
    ignored("DEFAULT_DISPLAY_MANAGER", DESKTOP),
    ignored("RM_SESSION_SERVICES", DESKTOP),
    ignored("KEEP_SESSION_SERVICES", DESKTOP),
    ignored("HOST_TO_USERNAME", DESKTOP),
    ignored("UDEV_SEAT_*", DESKTOP),
    ignored("LOCAL_APPS*", DESKTOP),
    ignored("CONSOLE_KEYMAP", "XKBLAYOUT is what the console follows, too."),
    ignored("SOUND*", DEVICES),
    ignored("*_VOLUME", DEVICES),
    ignored("LOCALDEV*", DEVICES),
    ignored("PRINTER_*", DEVICES),
    ignored("SCANNER", DEVICES),
];

const LOCAL_KERNEL: &str = "Kernels come from the boot server.";
const WRITABLE: &str = "The whole root is writable.";
const LOCAL_COPY: &str = "Images are not kept on local disks.";
const DESKTOP: &str = "Displays and sessions are the image's business.";
const DEVICES: &str = "Sound, printers and the like are the image's business.";

impl Topic {
    const fn row(
        self,
        name: &'static str,
        value: Value,
        default: &'static str,
        manual: &'static str,
    ) -> Known {
        Known { name, value, standing: Standing::Applied, topic: self, default, manual }
    }

    const fn net(self, key: NetworkKey, default: &'static str, manual: &'static str) -> Known {
        self.row(key.setting(), Value::Network(key), default, manual)
    }
}

/// What a node knows without being told (LTSP's variables of DHCP), of a lease that says it.
const fn given(name: &'static str, manual: &'static str) -> Known {
    let standing = Standing::Given;
    Known { name, value: Text, standing, topic: Topic::Given, default: "", manual }
}

const fn ignored(name: &'static str, why: &'static str) -> Known {
    let standing = Standing::Ignored(why);
    Known { name, value: Text, standing, topic: Topic::Ignored, default: "", manual: why }
}
