//! What is to be let go of, and in which order. Pure: what there is comes in as text and numbers.

use std::path::PathBuf;

use crate::sys::mount::Mount;
use crate::sys::reboot::Verb;

/// Where systemd-shutdown has left the root that it came from.
pub const OLD_ROOT: &str = "/oldroot";

/// What is there when the last program has taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    pub mounts: Vec<Mount>,
    pub processes: Vec<Process>,
    pub devices: Devices,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// Its own name for itself; a thread of the kernel has none.
    pub name: String,
}

/// Block devices that hold on to something else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Device-mapper devices of ours, those that lie on others first.
    pub mappings: Vec<String>,
    pub loops: Vec<u32>,
    /// Devices that have a server, or had one.
    pub nbds: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Restart by hardware should all of this not do it.
    WindUpWatchdog,
    Kill(Vec<i32>),
    /// To those who look after a root: look who is PID 1 now, and let go.
    Tell(Vec<i32>),
    Unmount(Vec<Unmount>),
    /// Makes device-mapper fail what it holds back for want of a server.
    Fail(String),
    Disconnect(u32),
    Remove(String),
    Detach(u32),
    End(Verb),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmount {
    pub target: PathBuf,
    pub way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It may have something to write, which takes its time.
    Written,
    /// It has nothing to write, and lies on a device that is to be free.
    Clean,
    /// There is nothing to lose, or nobody left to give it to.
    Lazy,
}

/// Everything that there is to do, in its order.
///
/// What serves a mount outlives it, and the watcher over the root outlives the root: until then it
/// would see to a server that comes back, and restart the machine should we not. Only then may the
/// root's own devices fail what still waits for them. Waiting processes end with that, and their
/// hold on the devices with them.
pub fn steps(situation: &Situation, verb: Verb) -> Vec<Step> {
    let Situation { mounts, processes, devices } = situation;
    let mut steps = Vec::new();
    if verb == Verb::Reboot {
        steps.push(Step::WindUpWatchdog);
    }
    let (serving, others): (Vec<_>, Vec<_>) =
        processes.iter().filter(|process| process.pid != 1).partition(|process| process.serves());
    let pids =
        |processes: Vec<&Process>| processes.into_iter().map(|process| process.pid).collect();
    let (serving, others): (Vec<i32>, Vec<i32>) = (pids(serving), pids(others));
    if !others.is_empty() {
        steps.push(Step::Kill(others));
    }
    if !serving.is_empty() {
        steps.push(Step::Tell(serving.clone()));
    }
    let unmounts = unmounts(mounts);
    if !unmounts.is_empty() {
        steps.push(Step::Unmount(unmounts));
    }
    if !serving.is_empty() {
        steps.push(Step::Kill(serving));
    }
    steps.extend(devices.mappings.iter().cloned().map(Step::Fail));
    steps.extend(devices.nbds.iter().copied().map(Step::Disconnect));
    steps.extend(devices.mappings.iter().cloned().map(Step::Remove));
    steps.extend(devices.loops.iter().copied().map(Step::Detach));
    steps.push(Step::End(verb));
    steps
}

impl Step {
    /// Whether it is done even when time is up: what takes the kernel next to no time, and frees
    /// the server of a connection or the machine of what could stop its end.
    pub fn may_be_late(&self) -> bool {
        match self {
            Self::WindUpWatchdog
            | Self::Kill(_)
            | Self::Fail(_)
            | Self::Disconnect(_)
            | Self::Remove(_)
            | Self::End(_) => true,
            // Each mount may have the kernel wait for somebody else, and a file in memory ends with
            // the machine.
            Self::Tell(_) | Self::Unmount(_) | Self::Detach(_) => false,
        }
    }
}

impl Process {
    /// Storage daemons of a root mark themselves so that they are not killed before their mounts
    /// (systemd's `ROOT_STORAGE_DAEMONS`); ours is one of them.
    fn serves(&self) -> bool {
        self.name.starts_with('@')
    }
}

/// What is mounted below the old root, deepest first, and of two on one place the upper one.
fn unmounts(mounts: &[Mount]) -> Vec<Unmount> {
    let mut below: Vec<_> = mounts
        .iter()
        .enumerate()
        .filter(|(_, mount)| mount.target.starts_with(OLD_ROOT))
        .map(|(place, mount)| (mount.target.components().count(), place, mount))
        .collect();
    below.sort_by_key(|&(depth, place, _)| std::cmp::Reverse((depth, place)));
    let unmount = |mount: &Mount| Unmount { target: mount.target.clone(), way: way(&mount.fstype) };
    below.into_iter().map(|(_, _, mount)| unmount(mount)).collect()
}

/// How a file system of that type is let go of.
fn way(fstype: &str) -> Way {
    /// The kernel's own, of which we have another view, and those in memory; and those of
    /// servers, which may be gone: the running system has said goodbye while it could.
    const NOTHING_TO_LOSE: [&str; 25] = [
        "9p",
        "afs",
        "autofs",
        "binfmt_misc",
        "bpf",
        "ceph",
        "cgroup",
        "cgroup2",
        "cifs",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "hugetlbfs",
        "mqueue",
        "nfs",
        "nfs4",
        "proc",
        "pstore",
        "securityfs",
        "smb3",
        "sysfs",
        "tmpfs",
        "tracefs",
    ];
    match fstype {
        fstype if NOTHING_TO_LOSE.contains(&fstype) => Way::Lazy,
        // A file system in user space, whose program is dead by now.
        fstype if fstype == "fuse" || fstype.starts_with("fuse.") => Way::Lazy,
        "erofs" | "iso9660" | "overlay" | "squashfs" => Way::Clean,
        _ => Way::Written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mount::listed;

    /// As systemd-shutdown leaves it on a node with a disk of its own and a share of a server.
    const MOUNTINFO: &str = r"
61 1 0:24 /initramfs / rw,relatime - tmpfs tmpfs rw,size=196608k
62 61 0:5 / /dev rw - devtmpfs devtmpfs rw
63 61 0:22 / /proc rw - proc proc rw
22 61 0:30 / /oldroot rw - overlay overlay rw,lowerdir=/rofs
23 22 0:22 / /oldroot/proc rw - proc proc rw
24 22 253:0 / /oldroot/rofs ro - squashfs /dev/dm-0 ro
25 22 0:29 / /oldroot/cow rw - tmpfs cow rw
40 22 254:0 / /oldroot/var/lib/data\040base rw shared:3 - ext4 /dev/vda rw
41 40 0:50 / /oldroot/var/lib/data\040base/share rw - nfs4 10.0.0.9:/x rw
42 22 0:51 / /oldroot/mnt rw - fuse.sshfs x rw
43 42 254:1 / /oldroot/mnt rw - xfs /dev/vdb rw
not a mount
";

    fn situation(names: &[&str]) -> Situation {
        let process =
            |(at, name): (usize, &&str)| Process { pid: at as i32 + 1, name: (*name).to_owned() };
        Situation {
            mounts: listed(MOUNTINFO),
            processes: names.iter().enumerate().map(process).collect(),
            devices: Devices {
                mappings: vec!["landfall-verity".into(), "landfall-root".into()],
                loops: vec![3],
                nbds: vec![0, 1],
            },
        }
    }

    #[test]
    #[rustfmt::skip]
    fn the_deepest_goes_first_and_what_nobody_can_lose_goes_lazily() {
        let got: Vec<_> = unmounts(&listed(MOUNTINFO))
            .into_iter()
            .map(|unmount| (unmount.target.to_str().unwrap().to_owned(), unmount.way))
            .collect();
        let expected = [
            ("/oldroot/var/lib/data base/share", Way::Lazy), // its server may be gone
            ("/oldroot/var/lib/data base",       Way::Written),
            ("/oldroot/mnt",                     Way::Written), // the upper of two
            ("/oldroot/mnt",                     Way::Lazy),
            ("/oldroot/cow",                     Way::Lazy),
            ("/oldroot/rofs",                    Way::Clean),
            ("/oldroot/proc",                    Way::Lazy),
            ("/oldroot",                         Way::Clean),
        ];
        let expected = expected.map(|(target, way)| (target.to_owned(), way));
        assert_eq!(got, expected);
    }

    #[test]
    fn the_watcher_over_the_root_goes_after_the_root_and_before_its_devices() {
        let steps = steps(&situation(&["/shutdown", "sshd", "@landfall", "@mdmon"]), Verb::Reboot);
        let [
            Step::WindUpWatchdog,
            Step::Kill(first),
            Step::Tell(told),
            Step::Unmount(_),
            Step::Kill(last),
            rest @ ..,
        ] = steps.as_slice()
        else {
            panic!("{steps:?}");
        };
        assert_eq!(
            (first.as_slice(), told.as_slice(), last.as_slice()),
            (&[2][..], &[3, 4][..], &[3, 4][..])
        );
        let of = |name: &str| name.to_owned();
        let expected = [
            Step::Fail(of("landfall-verity")),
            Step::Fail(of("landfall-root")),
            Step::Disconnect(0),
            Step::Disconnect(1),
            Step::Remove(of("landfall-verity")),
            Step::Remove(of("landfall-root")),
            Step::Detach(3),
            Step::End(Verb::Reboot),
        ];
        assert_eq!(rest, expected);
    }

    #[test]
    fn servers_are_let_go_of_even_when_time_is_up() {
        let steps = steps(&situation(&["/shutdown", "sshd", "@landfall"]), Verb::Reboot);
        let late: Vec<_> = steps.into_iter().filter(Step::may_be_late).collect();
        let of = |name: &str| name.to_owned();
        let expected = [
            Step::WindUpWatchdog,
            Step::Kill(vec![2]),
            Step::Kill(vec![3]),
            Step::Fail(of("landfall-verity")),
            Step::Fail(of("landfall-root")),
            Step::Disconnect(0),
            Step::Disconnect(1),
            Step::Remove(of("landfall-verity")),
            Step::Remove(of("landfall-root")),
            Step::End(Verb::Reboot),
        ];
        assert_eq!(late, expected);
    }

    #[test]
    #[rustfmt::skip]
    fn a_machine_with_nothing_left_just_ends() {
        let watched = |verb| vec![Step::WindUpWatchdog, Step::End(verb)];
        let plainly = |verb| vec![Step::End(verb)];
        let cases = [
            (Verb::Reboot,   watched(Verb::Reboot)),
            (Verb::PowerOff, plainly(Verb::PowerOff)), // it would switch the machine on again
            (Verb::Halt,     plainly(Verb::Halt)),
            (Verb::Kexec,    plainly(Verb::Kexec)),    // it would run out in the next kernel
        ];
        for (verb, expected) in cases {
            assert_eq!(steps(&Situation::default(), verb), expected, "{verb:?}");
        }
    }
}
