//! What is left in `/run` for the machine's end: this program, which systemd-shutdown becomes when
//! it finds it as `/run/initramfs/shutdown` ([`crate::exitrd`]), and which operators call meanwhile
//! as `/run/landfall/landfall`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;

use crate::error::{Error, Result, WhileDoing};
use crate::sys::reboot::Verb;

/// Mount points that systemd-shutdown wants in its new root, and the file by which systemd's
/// programs know what they run in.
const FOLDERS: [&str; 7] = ["dev", "proc", "sys", "run", "oldroot", "etc", "bin"];
/// By which others who would put a last program here, out of files of the root, see that there is
/// one (finalrd, dracut's dracut-initramfs-restore). Nobody executes it.
const SIGN: &str = "bin/sh";
const RELEASE: &str = "NAME=Landfall\nID=landfall\nPRETTY_NAME=\"Landfall, letting go\"\n";

/// One unit for each way to end a machine: systemd stops it, and removes its FIFO, in the moment
/// when it is asked for that. It needs neither a program nor a file of the root for it, which may be
/// dead, and leaves no other trace in `/run` when it begins to go down. The keeper looks at the
/// FIFOs ([`crate::keeper`]). Naming the targets also keeps them loaded. In a slice of their own
/// all would stop with the slice, whatever was asked for.
const UNIT: &str = "\
[Unit]
Description=Until somebody asks for %i
DefaultDependencies=no
IgnoreOnIsolate=yes
Conflicts=%i.target

[Socket]
Slice=-.slice
ListenFIFO=/run/landfall/until-%i
SocketMode=0600
RemoveOnStop=yes
Service=landfall-end.service
FlushPending=yes
TriggerLimitIntervalSec=0
";
const UNIT_NAME: &str = "landfall-end@.socket";

/// A socket must have one; this is what comes of writing into the FIFO.
const SERVICE: &str = "\
[Unit]
Description=What keeps the root says how it is
DefaultDependencies=no
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/run/landfall/landfall status
";
const SERVICE_NAME: &str = "landfall-end.service";

/// The FIFO that is there until a machine is to end so.
pub fn until(verb: Verb) -> PathBuf {
    PathBuf::from(format!("/run/landfall/until-{}", verb.name()))
}

/// Leaves a copy of this program in the running system's `/run`, where the machine's end looks for
/// it. Without it the machine ends as it would have without us; that is a warning, once.
pub fn leave() {
    let left = leave_units(Path::new("/run/systemd/system"));
    if let Err(error) = left.while_doing(|| format!("leaving {UNIT_NAME} for systemd")) {
        log::warn!(target: "handover", "{error}");
    }
    match leave_in(Path::new("/run"), Path::new("/proc/self/exe")) {
        Ok(Left::Ours | Left::There) => {}
        Ok(Left::Others(path)) => {
            log::info!(target: "handover", "{} is somebody else's; the machine ends their way", path.display());
        }
        Err(error) => {
            log::warn!(target: "handover", "{error}; a shutdown without the server may take long");
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Left {
    Ours,
    /// By an earlier call, in an initramfs that goes on when it has failed.
    There,
    /// The host has a last program of its own.
    Others(PathBuf),
}

fn leave_in(run: &Path, program: &Path) -> Result<Left> {
    let place = run.join("initramfs/shutdown");
    let command = run.join("landfall/landfall");
    let doing = || format!("leaving the last program in {}", place.display());
    if let Ok(there) = fs::symlink_metadata(&place) {
        let ours = fs::symlink_metadata(&command);
        let same = ours.is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()));
        return Ok(if same { Left::There } else { Left::Others(place) });
    }
    let mount = rustix::fs::statvfs(run).while_doing(doing)?;
    if mount.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(Error::refused(doing(), "programs on it cannot be executed (noexec)"));
    }
    let copied = copy(run, program, &place, &command);
    if copied.is_err() {
        // A /run that is full has better uses for half a program.
        let _ = fs::remove_file(unfinished(&place));
        let _ = fs::remove_file(&place);
    }
    copied.while_doing(doing)?;
    Ok(Left::Ours)
}

fn copy(run: &Path, program: &Path, place: &Path, command: &Path) -> io::Result<()> {
    let home = run.join("initramfs");
    for folder in FOLDERS {
        fs::create_dir_all(home.join(folder))?;
    }
    fs::create_dir_all(run.join("landfall"))?;
    fs::write(home.join("etc/initrd-release"), RELEASE)?;
    match symlink("../shutdown", home.join(SIGN)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Under another name until it is whole: half of it would be executed, too.
    let unfinished = unfinished(place);
    let _ = fs::remove_file(&unfinished);
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&unfinished)?;
    io::copy(&mut File::open(program)?, &mut to)?;
    drop(to);
    fs::rename(&unfinished, place)?;
    let _ = fs::remove_file(command);
    // One file with two names, so that it takes its memory once.
    fs::hard_link(place, command)
}

/// For another init they are files that nobody reads.
fn leave_units(units: &Path) -> io::Result<()> {
    let wants = units.join("sysinit.target.wants");
    fs::create_dir_all(&wants)?;
    fs::write(units.join(UNIT_NAME), UNIT)?;
    fs::write(units.join(SERVICE_NAME), SERVICE)?;
    for verb in Verb::ALL {
        let instance = UNIT_NAME.replace('@', &format!("@{}", verb.name()));
        match symlink(Path::new("..").join(UNIT_NAME), wants.join(instance)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn unfinished(place: &Path) -> PathBuf {
    place.with_extension("new")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_there_once_under_two_names() {
        let run = tempfile::tempdir().unwrap();
        let program = run.path().join("program");
        fs::write(&program, "us").unwrap();
        assert_eq!(leave_in(run.path(), &program).unwrap(), Left::Ours);
        let [place, command] =
            ["initramfs/shutdown", "landfall/landfall"].map(|path| run.path().join(path));
        let placed = fs::metadata(&place).unwrap();
        assert_eq!(placed.permissions().mode() & 0o777, 0o755);
        assert_eq!(placed.ino(), fs::metadata(&command).unwrap().ino());
        assert_eq!(fs::read_to_string(&place).unwrap(), "us");
        for folder in FOLDERS {
            assert!(run.path().join("initramfs").join(folder).is_dir(), "{folder}");
        }
        assert!(run.path().join("initramfs/etc/initrd-release").is_file());
        let sign = fs::metadata(run.path().join("initramfs").join(SIGN)).unwrap();
        assert_eq!(sign.permissions().mode() & 0o111, 0o111, "test -x is how it is looked for");
        assert_eq!(leave_in(run.path(), &program).unwrap(), Left::There, "another try");
    }

    #[test]
    fn that_of_a_host_stays() {
        let run = tempfile::tempdir().unwrap();
        let place = run.path().join("initramfs/shutdown");
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, "#!/bin/sh\n").unwrap();
        let left = leave_in(run.path(), Path::new("/proc/self/exe")).unwrap();
        assert_eq!(left, Left::Others(place.clone()));
        assert_eq!(fs::read_to_string(&place).unwrap(), "#!/bin/sh\n");
        assert!(!run.path().join("landfall").exists());
    }

    #[test]
    fn each_way_to_end_has_a_unit_that_systemd_stops_for_it() {
        let units = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            leave_units(units.path()).unwrap();
        }
        let wants = units.path().join("sysinit.target.wants");
        for verb in Verb::ALL {
            let unit = wants.join(format!("landfall-end@{}.socket", verb.name()));
            assert_eq!(fs::read_to_string(unit).unwrap(), UNIT);
            let fifo = UNIT.replace("%i", verb.name());
            assert!(fifo.contains(&format!("\nListenFIFO={}\n", until(verb).display())));
        }
    }

    #[test]
    fn half_a_program_is_not_left() {
        let run = tempfile::tempdir().unwrap();
        assert!(leave_in(run.path(), Path::new("/nowhere")).is_err());
        assert!(!run.path().join("initramfs/shutdown").exists());
        assert!(!run.path().join("initramfs/shutdown.new").exists());
    }
}
