//! CONTAINER_DIRS: storage of containers that is not on the overlay.
//!
//! The kernel takes no overlay as the upper layer of another (C105), so docker, containerd and
//! their kin fail on the root that a network node has, or fall back to copying whole images. Their
//! directories get a file system of their own, in memory or on a device, as lines of the same fstab.
//!
//! No `nosuid`, `nodev` or `noexec`, unlike for most data: what lies here is the root of a
//! container with its programs, `su` among them, and volumes are bound into containers with the
//! flags of the mount that they come from; kubelet keeps device nodes of block volumes here.

use super::covered::{Covered, How};
use super::mounts::{Mounts, escaped, field, is_at_or_below};
use super::size::Size;
use super::tree::{Kind, TOO_LONG, is_too_long};
use super::units::{self, Unit};
use super::{Draft, Facts, View, overlay_dir, preinit};
use crate::config::Settings;
use crate::error::{Error, Result};

/// Of an image's directory that is copied to what is mounted on it, at every boot.
const MOST_BYTES: u64 = 64 << 20;
const SETTING: &str = "CONTAINER_DIRS";
/// Of the memory, as tmpfs understands it.
const USUAL_SIZE: &str = "50%";
/// A container runtime on a mode of its own choosing would change it at its start; these are what
/// the programs make themselves (containerd's since CVE-2024-25621).
const KNOWN: &[Storage] = &[
    Storage {
        path: "/var/lib/docker",
        programs: &["dockerd", "docker"],
        mode: "0710",
        units: &["docker.service"],
    },
    Storage {
        path: "/var/lib/containerd",
        programs: &["containerd"],
        mode: "0700",
        units: &["containerd.service"],
    },
    Storage {
        path: "/var/lib/kubelet",
        programs: &["kubelet"],
        mode: "0750",
        units: &["kubelet.service"],
    },
    Storage {
        path: "/var/lib/containers",
        programs: &["podman", "crio", "cri-o"],
        mode: "0755",
        units: &["crio.service", "podman.service"],
    },
    Storage {
        path: "/var/lib/rancher",
        programs: &["k3s", "rke2"],
        mode: "0755",
        units: &["k3s.service", "k3s-agent.service", "rke2-server.service", "rke2-agent.service"],
    },
];

struct Storage {
    path: &'static str,
    /// Any of them in the image asks for it.
    programs: &'static [&'static str],
    mode: &'static str,
    /// Must not start before it is mounted.
    units: &'static [&'static str],
}

/// What CONTAINER_DIRS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Auto,
    Off,
    Listed(Vec<Directory>),
}

/// A directory, and what is mounted on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    pub path: String,
    pub on: Backing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// tmpfs of at most this size.
    Memory { size: String },
    /// A block device as fstab names it; without options of the operator's own we have some.
    Device { source: String, options: Option<String> },
}

/// What becomes of them.
#[derive(Debug, Default)]
pub struct Containers {
    pub directories: Vec<Directory>,
    pub problems: Vec<(String, Error)>,
    auto: bool,
}

/// Something that may take memory while the node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InMemory {
    /// Its mount point.
    pub path: String,
    /// As tmpfs has it: `50%`, `2G`.
    pub size: String,
    /// The same; 0 where it is a share of a memory of unknown size.
    pub most_bytes: u64,
}

/// Reads the value of CONTAINER_DIRS.
///
/// # Errors
/// The first word that is none of `auto`, `off`, `PATH[=tmpfs[:SIZE]]` and `PATH=DEVICE[:OPTIONS]`.
pub fn parse(value: &str) -> Result<Wanted> {
    let words: Vec<_> = value.split_whitespace().collect();
    match words.as_slice() {
        [] => Ok(Wanted::Auto),
        [word] if word.eq_ignore_ascii_case("auto") => Ok(Wanted::Auto),
        [word] if word.eq_ignore_ascii_case("off") => Ok(Wanted::Off),
        words => {
            words.iter().map(|word| directory(word)).collect::<Result<_>>().map(Wanted::Listed)
        }
    }
}

/// Besides /lib, /lib64 and their kin.
const NOT_THERE: [&str; 8] = ["/proc", "/sys", "/dev", "/run", "/etc", "/usr", "/bin", "/sbin"];

fn directory(word: &str) -> Result<Directory> {
    let wrong = |why: &str| Error::invalid(format!("reading {word:?}"), why);
    let (path, backing) = word.split_once('=').unwrap_or((word, "tmpfs"));
    if is_too_long(path) {
        return Err(Error::invalid("reading a directory", TOO_LONG));
    }
    let names = || path.split('/').skip(1);
    if !path.starts_with('/') || names().any(|name| [".", ".."].contains(&name)) || path == "/" {
        return Err(wrong(
            "it is none of auto, off and a list of PATH[=tmpfs[:SIZE]] or PATH=DEVICE",
        )
        .with_hint("a path begins with /"));
    }
    let is_systems = NOT_THERE.iter().any(|above| is_at_or_below(path, above))
        || names().next().is_some_and(|first| first.starts_with("lib"));
    if is_systems {
        return Err(wrong("the system itself is there, and would be hidden"));
    }
    let on = match backing.split_once(':') {
        Some(("tmpfs", size)) => match Size::parse(size) {
            Some(size) => Backing::Memory { size: size.to_string() },
            None => return Err(wrong("its size is none like 8G, 512M or 50%")),
        },
        _ if backing == "tmpfs" => Backing::Memory { size: USUAL_SIZE.to_owned() },
        _ => device(backing).ok_or_else(|| {
            wrong("what is mounted there is neither tmpfs nor a device (/dev/…, LABEL=…, UUID=…)")
        })?,
    };
    Ok(Directory { path: path.trim_end_matches('/').to_owned(), on })
}

/// A device and its options. Names of devices have colons too (`/dev/disk/by-path/pci-0000:00:1f.2`),
/// but no option begins with a digit.
fn device(text: &str) -> Option<Backing> {
    const KINDS: [&str; 5] = ["/dev/", "LABEL=", "UUID=", "PARTLABEL=", "PARTUUID="];
    let (source, options) = match text.rsplit_once(':') {
        Some((source, options)) if options.starts_with(|c: char| c.is_ascii_lowercase()) => {
            (source, Some(options.to_owned()))
        }
        _ => (text, None),
    };
    let named = KINDS.iter().filter_map(|kind| source.strip_prefix(kind)).any(|n| !n.is_empty());
    named.then(|| Backing::Device { source: source.to_owned(), options })
}

/// What tmpfs takes for `size=`, and means something.
pub fn is_size(text: &str) -> bool {
    Size::parse(text).is_some()
}

/// Chooses the directories. `mounts` is what the rest of the fstab mounts.
pub fn decide(settings: &Settings, mounts: &Mounts, draft: &Draft<'_>) -> Containers {
    let mut decided = Containers::default();
    let wanted = parse(settings.get(SETTING).unwrap_or_default()).unwrap_or_else(|error| {
        decided.problems.push((SETTING.to_owned(), error));
        // Rather none than others than were meant.
        Wanted::Off
    });
    match wanted {
        Wanted::Off => {}
        Wanted::Auto => {
            decided.auto = true;
            let wanted = KNOWN.iter().filter(|storage| {
                storage.programs.iter().any(|program| has_program(program, draft))
                    && mounts.over(storage.path, draft).is_none()
                    && !has_unit(storage.path, draft)
            });
            for Storage { path, .. } in wanted {
                if let Some(why) = objection(path, settings, draft) {
                    let error = Error::refused(format!("mounting tmpfs on {path}"), why);
                    decided.problems.push((
                        SETTING.to_owned(),
                        error.with_hint(format!(
                            "{SETTING}={path} mounts it nevertheless, {SETTING}=off is silent"
                        )),
                    ));
                    continue;
                }
                decided.directories.push(Directory {
                    path: (*path).to_owned(),
                    on: Backing::Memory { size: USUAL_SIZE.to_owned() },
                });
            }
        }
        Wanted::Listed(directories) => {
            for directory in directories {
                let taken = mounts.over(&directory.path, draft);
                let again = decided.directories.iter().any(|other| other.path == directory.path);
                let why = match taken.filter(|mount| mount.at == directory.path) {
                    Some(mount) => format!("FSTAB_ mounts {} there already", mount.source),
                    None if again => "it is listed twice".to_owned(),
                    None => {
                        decided.directories.push(directory);
                        continue;
                    }
                };
                let doing = format!("mounting {}", directory.path);
                decided.problems.push((SETTING.to_owned(), Error::invalid(doing, why)));
            }
        }
    }
    decided
}

/// Why a mount on `path` that nobody has asked for would hide what somebody put there.
fn objection(path: &str, settings: &Settings, draft: &Draft<'_>) -> Option<String> {
    let overlay = overlay_dir::folder(settings);
    let too_much = [path.to_owned(), format!("{overlay}{path}")]
        .iter()
        .find_map(|path| contents(path, draft, MOST_BYTES).err());
    if let Some(error) = too_much {
        return Some(format!("what the image has there would be hidden: {error}"));
    }
    let commands = [preinit::early(settings), preinit::late(settings)].concat();
    commands.iter().any(|command| mentions(command, path)).then(|| {
        "a command that runs before (INIT_COMMAND_, PRE_INIT_, PREINIT_, POST_INIT_) names it, \
         and what it puts there would be hidden"
            .to_owned()
    })
}

/// Whether a text has `path` in it, or one below.
fn mentions(text: &str, path: &str) -> bool {
    text.match_indices(path).any(|(at, _)| {
        let rest = text.get(at.saturating_add(path.len())..).unwrap_or_default();
        !rest.starts_with(|c: char| c.is_alphanumeric() || "_-.".contains(c))
    })
}

fn has_program(name: &str, view: &dyn View) -> bool {
    const FOLDERS: [&str; 7] =
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/opt/bin"];
    FOLDERS.iter().any(|folder| view.is_executable(&format!("{folder}/{name}")))
}

/// An image may mount its own, without any fstab.
fn has_unit(path: &str, view: &dyn View) -> bool {
    let unit = format!("{}.mount", escaped(path));
    // Masked or not, the image has an opinion of it.
    !matches!(units::find(view, &unit), Ok(Unit::Missing))
}

impl Containers {
    /// Their lines of the fstab, and one that says where they come from.
    pub fn render(&self) -> String {
        if self.directories.is_empty() {
            return String::new();
        }
        let why = if self.auto { "auto: the image has programs that need it" } else { "as listed" };
        let lines: String =
            self.directories.iter().map(|dir| format!("{}\n", dir.line())).collect();
        format!("# {SETTING}, {why}.\n{lines}")
    }

    /// Puts what the root has in these directories, from the image or from OVERLAY_DIR, back onto
    /// what is mounted there in the running system.
    pub fn restore(&mut self, covered: &mut Covered, draft: &Draft<'_>) {
        // Chosen by us, it was small enough, in the image and in OVERLAY_DIR.
        let most = if self.auto { 2 * MOST_BYTES } else { MOST_BYTES };
        for directory in &self.directories {
            let restored = contents(&directory.path, draft, most).and_then(|names| {
                names.iter().try_for_each(|name| {
                    let path = format!("{}/{name}", directory.path);
                    covered.bring(&path, How::Copy, draft)
                })
            });
            if let Err(error) = restored {
                self.problems.push((SETTING.to_owned(), error));
            }
        }
    }

    /// Which of them are in memory.
    pub fn in_memory(&self, facts: &Facts) -> Vec<InMemory> {
        let memory = facts.memory_kib.saturating_mul(1024);
        let of = |directory: &Directory| match &directory.on {
            Backing::Memory { size } => Some(InMemory {
                path: directory.path.clone(),
                size: size.clone(),
                most_bytes: Size::parse(size)
                    .and_then(|size| size.bytes(memory))
                    .unwrap_or_default(),
            }),
            Backing::Device { .. } => None,
        };
        self.directories.iter().filter_map(of).collect()
    }

    /// For the console's summary; nothing if there is nothing to say.
    pub fn summary(&self, facts: &Facts) -> Option<String> {
        let in_memory = self.in_memory(facts);
        let all = self.directories.len();
        let most = in_memory.iter().fold(0, |sum: u64, each| sum.saturating_add(each.most_bytes));
        let mib = |bytes: u64| bytes >> 20;
        let of_memory = match (in_memory.len(), most) {
            (0, _) => String::new(),
            (count, 0) => format!(", {count} in memory"),
            (count, most) => format!(
                ", {count} in memory with up to {} of {} MiB",
                mib(most),
                facts.memory_kib >> 10
            ),
        };
        let noun = if all == 1 { "container directory" } else { "container directories" };
        (all > 0).then(|| format!("{all} {noun}{of_memory}"))
    }
}

impl Directory {
    fn line(&self) -> String {
        let known = KNOWN.iter().find(|storage| storage.path == self.path);
        let path = field(&self.path);
        match &self.on {
            Backing::Memory { size } => {
                let mode = known.map_or("0755", |storage| storage.mode);
                format!("tmpfs {path} tmpfs mode={mode},size={size} 0 0")
            }
            Backing::Device { source, options: Some(options) } => {
                format!("{} {path} auto {} 0 0", field(source), field(options))
            }
            // A disk that is gone must not leave the node in systemd's emergency shell; but with
            // nofail nothing waits for a disk that is merely slow, unless it is told to.
            Backing::Device { source, options: None } => {
                let units = known.map_or(&[][..], |storage| storage.units).iter();
                let before: String =
                    units.map(|unit| format!(",x-systemd.before={unit}")).collect();
                format!("{} {path} auto nofail,noatime{before} 0 0", field(source))
            }
        }
    }
}

/// The names in a directory of the image, if what they are is little enough to be copied at every
/// boot.
fn contents(path: &str, view: &dyn View, most: u64) -> Result<Vec<String>> {
    const MOST_ENTRIES: usize = 10_000;
    let too_much = |what: String| {
        Error::refused(format!("copying {path} of the image to what is mounted there"), what)
            .with_hint(format!("it stays readable at /rofs{path}"))
    };
    let mut names = view.names(path)?;
    names.sort();
    let mut size: u64 = 0;
    let mut entries: usize = 0;
    let mut pending: Vec<_> = names.iter().map(|name| format!("{path}/{name}")).collect();
    while let Some(path) = pending.pop() {
        entries = entries.saturating_add(1);
        if entries > MOST_ENTRIES {
            return Err(too_much(format!("it has more than {MOST_ENTRIES} files")));
        }
        match view.kind(&path)? {
            Some(Kind::Directory) => {
                let inside = view.names(&path)?.into_iter();
                pending.extend(inside.map(|name| format!("{path}/{name}")));
            }
            Some(Kind::File { .. }) => size = size.saturating_add(view.length(&path)?),
            _ => {}
        }
        if size > most {
            return Err(too_much(format!("it is larger than {} MiB", most >> 20)));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directives::Tree;
    use crate::directives::draft::on;
    use crate::directives::fstab;

    #[test]
    #[rustfmt::skip]
    fn directories_are_said_as_paths_with_what_is_mounted_there() {
        let memory = |path: &str, size: &str| Directory { path: path.into(), on: Backing::Memory { size: size.into() } };
        let device = |path: &str, source: &str, options: Option<&str>| Directory {
            path: path.into(),
            on: Backing::Device { source: source.into(), options: options.map(str::to_owned) },
        };
        let cases = [
            ("",                             Some(Wanted::Auto)),
            ("auto",                         Some(Wanted::Auto)),
            (" Off ",                        Some(Wanted::Off)),
            ("/a /b/=tmpfs /c=tmpfs:8G",     Some(Wanted::Listed(vec![memory("/a", "50%"), memory("/b", "50%"), memory("/c", "8G")]))),
            ("/a=/dev/sdb1",                 Some(Wanted::Listed(vec![device("/a", "/dev/sdb1", None)]))),
            ("/a=LABEL=c:noatime,discard",   Some(Wanted::Listed(vec![device("/a", "LABEL=c", Some("noatime,discard"))]))),
            ("/a=UUID=1-2:ro",               Some(Wanted::Listed(vec![device("/a", "UUID=1-2", Some("ro"))]))),
            ("/a=/dev/disk/by-path/pci-0000:00:1f.2-ata-1", Some(Wanted::Listed(vec![device("/a", "/dev/disk/by-path/pci-0000:00:1f.2-ata-1", None)]))),
            ("/a=/dev/disk/by-path/pci-0000:00:1f.2-ata-1:noatime", Some(Wanted::Listed(vec![device("/a", "/dev/disk/by-path/pci-0000:00:1f.2-ata-1", Some("noatime"))]))),
            ("auto /a",                      None),
            ("no",                           None),
            ("var/lib/docker",               None),
            ("/",                            None),
            ("/a/../b",                      None),
            ("/etc/x",                       None),
            ("/lib64",                       None),
            ("/usr",                         None),
            ("/a=tmpfs:010G",                Some(Wanted::Listed(vec![memory("/a", "10G")]))), // octal to the kernel
            ("/a=tmpfs:1T",                  Some(Wanted::Listed(vec![memory("/a", "1T")]))),
            ("/a=tmpfs:0",                   None), // no bound at all
            ("/a=tmpfs:much",                None),
            ("/a=tmpfs:8G,mode=0777",        None),
            ("/a=ext4",                      None),
            ("/a=LABEL=",                    None),
        ];
        for (value, expected) in cases {
            assert_eq!(parse(value).ok(), expected, "{value:?}");
        }
    }

    /// The fstab that a root with `files` gets for `values`, without its first two lines; then what
    /// was wrong.
    fn written(files: &[&str], values: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        for path in files {
            tree.write(path, "", 0o755).unwrap();
        }
        let settings = Settings::of(values);
        let written =
            on(&tree, |draft| fstab::apply(&settings, &Facts::default(), draft)).unwrap().unwrap();
        let text = tree.read_text("/etc/fstab").unwrap().unwrap();
        let problems = written.problems.iter().chain(&written.containers.problems);
        (
            text.lines().skip(2).map(str::to_owned).collect(),
            problems.map(|(name, error)| format!("{name}: {error}")).collect(),
        )
    }

    /// What somebody put there must not be hidden by a mount that nobody asked for.
    #[test]
    fn nothing_of_a_site_is_hidden_unasked() {
        let dockerd = &["/usr/bin/dockerd"];
        for (command, skipped) in [
            ("tar x -C /var/lib/docker", true),
            ("cp x /var/lib/docker/x", true),
            ("ls /var/lib/docker2 /var/lib/docker-x", false),
        ] {
            for name in ["PREINIT_1", "POST_INIT_1", "INIT_COMMAND_1", "PRE_INIT_1"] {
                let (lines, problems) = written(dockerd, &[(name, command)]);
                assert_eq!(lines.is_empty(), skipped, "{name}={command}");
                assert_eq!(problems.len(), usize::from(skipped), "{problems:?}");
                let asked = ("CONTAINER_DIRS", "/var/lib/docker");
                assert_eq!(written(dockerd, &[(name, command), asked]).0.len(), 2);
            }
        }
        for at in ["var/lib/docker/large", "etc/ltsp/overlay-dir/var/lib/docker/large"] {
            let folder = tempfile::tempdir().unwrap();
            let tree = Tree::open(folder.path()).unwrap();
            tree.write("/usr/bin/dockerd", "", 0o755).unwrap();
            let large = folder.path().join(at);
            std::fs::create_dir_all(large.parent().unwrap()).unwrap();
            std::fs::File::create(large).unwrap().set_len(MOST_BYTES + 1).unwrap();
            let decided = decide(&Settings::default(), &Mounts::default(), &Draft::over(&tree));
            assert!(decided.directories.is_empty(), "{at}");
            let [(_, error)] = decided.problems.as_slice() else { panic!("{at}") };
            assert!(error.hint().unwrap().contains("CONTAINER_DIRS=/var/lib/docker"), "{error}");
        }
    }

    const AUTO: &str = "# CONTAINER_DIRS, auto: the image has programs that need it.";
    const DOCKER: &str = "tmpfs /var/lib/docker tmpfs mode=0710,size=50% 0 0";

    /// R14: the storage of every program that is in the image is off the overlay, and nothing else.
    #[test]
    #[rustfmt::skip]
    fn storage_of_containers_is_not_on_the_overlay_c105_r14() {
        let data = ("FSTAB_03_DOCKER", "/dev/data/docker /var/lib/docker ext4 nofail 0 0");
        let all = ["/usr/bin/containerd", "/usr/sbin/dockerd", "/usr/bin/kubelet", "/usr/bin/podman", "/usr/local/bin/k3s"];
        let cases: &[(&[&str], &[(&str, &str)], &[&str])] = &[
            (&[],                   &[],                          &[]),
            (&["/usr/sbin/dockerd"], &[],                         &[AUTO, DOCKER]),
            (&["/usr/sbin/dockerd"], &[("CONTAINER_DIRS", "off")], &[]),
            (&["/usr/sbin/dockerd"], &[data],                     &[data.1]),
            (&["/usr/sbin/dockerd"], &[("FSTAB_1", "/dev/x /var ext4 rw 0 0")],
                                                                  &["/dev/x /var ext4 rw 0 0"]),
            (&["/usr/sbin/dockerd"], &[("FSTAB_1", "/dev/x / ext4 rw 0 0")], // no mount of ours
                                                                  &["/dev/x / ext4 rw 0 0", AUTO, DOCKER]),
            (&["/usr/sbin/dockerd"], &[("FSTAB_1", "/dev/x /var/lib/docker/volumes ext4 rw 0 0")],
                                                                  &["/dev/x /var/lib/docker/volumes ext4 rw 0 0", AUTO, DOCKER]),
            (&["/usr/sbin/dockerd", "/etc/systemd/system/var-lib-docker.mount"], &[], &[]),
            (&all, &[], &[
                AUTO,
                DOCKER,
                "tmpfs /var/lib/containerd tmpfs mode=0700,size=50% 0 0",
                "tmpfs /var/lib/kubelet tmpfs mode=0750,size=50% 0 0",
                "tmpfs /var/lib/containers tmpfs mode=0755,size=50% 0 0",
                "tmpfs /var/lib/rancher tmpfs mode=0755,size=50% 0 0",
            ]),
            (&[], &[("CONTAINER_DIRS", "/var/lib/docker=LABEL=docker /srv/x=tmpfs:1G /srv/y=/dev/sdb:noatime")], &[
                "# CONTAINER_DIRS, as listed.",
                "LABEL=docker /var/lib/docker auto nofail,noatime,x-systemd.before=docker.service 0 0",
                "tmpfs /srv/x tmpfs mode=0755,size=1G 0 0",
                "/dev/sdb /srv/y auto noatime 0 0",
            ]),
        ];
        for (files, values, expected) in cases {
            let (lines, problems) = written(files, values);
            assert_eq!(lines, *expected, "{files:?} {values:?}");
            assert!(problems.is_empty(), "{files:?} {values:?}: {problems:?}");
            let forbidden = lines.iter().filter(|line| line.contains("CONTAINER") || line.starts_with("tmpfs"));
            for line in forbidden {
                assert!(!["nosuid", "nodev", "noexec"].iter().any(|word| line.contains(word)), "{line}");
            }
        }
    }

    #[test]
    #[rustfmt::skip]
    fn what_cannot_be_mounted_is_said() {
        let data = ("FSTAB_1", "/dev/x /var/lib/docker ext4 rw 0 0");
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[data, ("CONTAINER_DIRS", "/var/lib/docker")], "FSTAB_ mounts /dev/x there already"),
            (&[("CONTAINER_DIRS", "/a /a=/dev/sdb")],        "listed twice"),
            (&[("CONTAINER_DIRS", "yes")],                   "none of auto, off"),
        ];
        for (values, why) in cases {
            let (_, problems) = written(&["/usr/bin/dockerd"], values);
            let [problem] = problems.as_slice() else { panic!("{values:?}: {problems:?}") };
            assert!(problem.starts_with("CONTAINER_DIRS: ") && problem.contains(why), "{problem}");
        }
    }

    /// A node that joins by the image's own configuration of kubelet must find it.
    #[test]
    fn what_the_image_has_there_is_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.write("/usr/lib/systemd/systemd", "", 0o755).unwrap();
        tree.write("/var/lib/kubelet/config.yaml", "kind: x", 0o644).unwrap();
        tree.write("/var/lib/kubelet/pki/a", "key", 0o600).unwrap();
        tree.make_directory("/var/lib/docker", 0o710, None).unwrap();
        let large = folder.path().join("var/lib/rancher/images/large");
        std::fs::create_dir_all(large.parent().unwrap()).unwrap();
        // Sparse: reading it would take as long as copying.
        std::fs::File::create(large).unwrap().set_len((64 << 20) + 1).unwrap();
        let directory = |path: &str| Directory {
            path: path.into(),
            on: Backing::Memory { size: "50%".into() },
        };
        let mut containers = Containers {
            directories: ["/var/lib/docker", "/var/lib/kubelet", "/var/lib/rancher", "/nowhere"]
                .map(directory)
                .into(),
            ..Containers::default()
        };
        let mut covered = Covered::under(Mounts::of(&containers.render(), &tree));
        on(&tree, |draft| {
            containers.restore(&mut covered, draft);
            covered.decide(draft).unwrap();
        });
        assert_eq!(
            tree.read_text("/etc/landfall/files/var-lib-kubelet.conf").unwrap().unwrap(),
            "# Written by landfall at boot, see tmpfiles.d(5).\n\
             C \"/var/lib/kubelet/config.yaml\" - - - - /rofs/var/lib/kubelet/config.yaml\n\
             C \"/var/lib/kubelet/pki\" - - - - /rofs/var/lib/kubelet/pki\n"
        );
        assert_eq!(tree.names("/etc/landfall/files").unwrap(), ["var-lib-kubelet.conf"]);
        let [(_, error)] = containers.problems.as_slice() else {
            panic!("{:?}", containers.problems)
        };
        assert_eq!(
            error.to_string(),
            "copying /var/lib/rancher of the image to what is mounted there: refused: \
             it is larger than 64 MiB"
        );
        assert_eq!(error.hint(), Some("it stays readable at /rofs/var/lib/rancher"));
    }

    #[test]
    fn the_memory_that_they_may_take_is_known_beforehand() {
        let directory = |path: &str, on| Directory { path: path.into(), on };
        let containers = Containers {
            directories: vec![
                directory("/a", Backing::Memory { size: "50%".into() }),
                directory("/b", Backing::Memory { size: "512m".into() }),
                directory("/c", Backing::Device { source: "LABEL=x".into(), options: None }),
            ],
            ..Containers::default()
        };
        let facts = Facts { memory_kib: 4 << 20, ..Facts::default() };
        let most: Vec<_> =
            containers.in_memory(&facts).into_iter().map(|each| each.most_bytes >> 20).collect();
        assert_eq!(most, [2048, 512]);
        assert_eq!(
            containers.summary(&facts).as_deref(),
            Some("3 container directories, 2 in memory with up to 2560 of 4096 MiB")
        );
        assert_eq!(Containers::default().summary(&facts), None);
    }
}
