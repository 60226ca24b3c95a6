//! What systemd and administrators do to all processes, and the end of the running system, in every
//! state of the root that `shutdown.rs` and those of a streamed root do not have: half copied and in
//! memory, with a server that is dead, and with processes that cannot be killed because they wait for
//! it.
//!
//! Orders go to systemd as signals (systemd(1), "signals"): a program that gives them would have to
//! be read from a dead root.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use landfall_tests::{Kernel, Machine, Nbd, NbdKind, Node, Reader};

use crate::exitrd::{LONGEST, stamp};
use crate::kept::{Room, TO_NOTICE, through, wait};

/// For the whole of a shutdown on an emulated machine: systemd waits for services that cannot end,
/// and then for processes that cannot be killed, before it is anybody else's turn.
const LIVING: Duration = Duration::from_secs(90);
const DEAD: Duration = Duration::from_secs(240);

/// For every process but PID 1 and the reader.
const STOPPED: Duration = Duration::from_secs(3);

#[derive(Clone, Copy)]
enum End {
    PowerOff,
    Reboot,
}

impl End {
    fn signal(self) -> i32 {
        match self {
            Self::PowerOff => SIGRTMIN + 4,
            Self::Reboot => SIGRTMIN + 5,
        }
    }

    fn last_line(self) -> &'static str {
        match self {
            Self::PowerOff => "Power down",
            Self::Reboot => "Restarting system",
        }
    }
}

/// As the C library of systemd counts.
const SIGRTMIN: i32 = 34;

/// All processes end, the root stays mounted, and systemd starts it anew.
const SOFT_REBOOT: i32 = SIGRTMIN + 7;

/// systemd starts itself anew, and nobody else: daemon-reexec.
const REEXEC: i32 = 15;

/// Through the layer for changes, and not below it: a soft reboot may unmount `/rofs`.
const PROGRAMS: [&str; 3] = ["sh", "-c", "cat /usr/bin/* /usr/sbin/* 2>/dev/null | sha256sum"];

/// How far the root is on its way from the server to memory.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Streamed,
    HalfCopied,
    InMemory,
}

impl State {
    fn words(self) -> &'static str {
        match self {
            Self::Streamed => "",
            Self::HalfCopied => "landfall.ram=lazy landfall.ram.rate=256K",
            Self::InMemory => "landfall.ram=lazy",
        }
    }

    fn reach(self, reader: &Reader<'_>) -> Result<()> {
        match self {
            Self::Streamed => Ok(()),
            Self::HalfCopied => reader.copied_to(0.05).map(drop),
            Self::InMemory => reader.copied_to(1.0).map(drop),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Server {
    Lives,
    /// Before anything happens if nobody needs it any more, else before each thing that happens.
    Dies,
}

/// Whether userspace is started anew once before the end.
#[derive(Clone, Copy, PartialEq)]
enum Soft {
    No,
    Rebooted,
}

/// A machine in a state, and what is done to it there.
struct Case {
    test: &'static str,
    root: (&'static str, Kernel),
    state: State,
    server: Server,
    soft_reboot: Soft,
    end: End,
}

impl Case {
    fn run(&self) -> Result<()> {
        let (root, kernel) = self.root;
        let room = Room::new(self.test, root)?;
        let mut server = room.server(NbdKind::NbdServer).start()?;
        let mut machine = room.boot(kernel, "10.77.0.1", self.state.words())?;
        let programs;
        {
            let reader = machine.reader(&room.image)?;
            let node = machine.node()?;
            self.state.reach(&reader)?;
            if self.server == Server::Dies && !self.root_dies() {
                server.kill();
            }
            through(&reader, "all processes stopped", TO_NOTICE, || {
                reader.freeze(STOPPED)?;
                node.output(&["systemctl", "daemon-reexec"]).map(drop)
            })?;
            if self.root_dies() {
                through(&reader, "all processes stopped without a root", TO_NOTICE, || {
                    lose(&mut server);
                    reader.freeze(STOPPED)?;
                    reader.signal_init(REEXEC)?;
                    wait(2);
                    server.start_again()
                })?;
                takes_orders(&node)?;
            }
            programs = node.output(&PROGRAMS)?;
            if self.state == State::HalfCopied {
                ensure!(reader.copied()? < 0.9, "the copy is over too soon for this test");
            }
            if self.root_dies() {
                lose(&mut server);
            }
            reader.signal_init(match self.soft_reboot {
                Soft::Rebooted => SOFT_REBOOT,
                Soft::No => self.end.signal(),
            })?;
        }
        if self.soft_reboot == Soft::Rebooted {
            if self.root_dies() {
                // It comes as far as it can with what is in memory.
                wait(10);
                server.start_again()?;
            }
            // The probe of the system that was started anew.
            let node = machine.node()?;
            node.drop_caches()?;
            ensure!(node.output(&PROGRAMS)? == programs, "the root is not what it was");
            // Whoever gives the order is in memory when the root dies.
            node.begin(&["sh", "-c", &format!("sleep 6; kill -{} 1", self.end.signal())])?;
            if self.root_dies() {
                wait(2);
                lose(&mut server);
            }
        }
        let patience = if self.server == Server::Dies { DEAD } else { LIVING };
        machine.ended_by(self.end.last_line(), patience)?;
        self.was_let_go_in_time(&machine)
    }

    /// Rather than a server that nobody needs any more.
    fn root_dies(&self) -> bool {
        self.server == Server::Dies && self.state != State::InMemory
    }

    /// From the first line of the last program to the kernel's last, by their own stamps. A root
    /// that is dead may keep systemd from getting so far, and then it is the keeper that ends the
    /// machine.
    fn was_let_go_in_time(&self, machine: &Machine) -> Result<()> {
        let lines = machine.console();
        let said = |words: &str| lines.iter().rev().find(|line| line.contains(words));
        let last = said(self.end.last_line()).context("the kernel's last line")?;
        let by_keeper = || said("ending the machine").filter(|_| self.root_dies());
        let first = said("letting go of the root").or_else(by_keeper);
        let first = first.context("nobody has let go of the root")?;
        let took = stamp(last)? - stamp(first)?;
        eprintln!("{}: {took:.2} s from {first:?}", self.test);
        ensure!(took < LONGEST, "{took:.2} s from {first:?} to {last:?}");
        Ok(())
    }
}

/// Waits until systemd has started itself anew: it says so by hanging up, or by not being there.
fn takes_orders(node: &Node<'_>) -> Result<()> {
    const ANEW: Duration = Duration::from_secs(60);
    let began = Instant::now();
    loop {
        match node.output(&["systemctl", "show", "--property=Version"]) {
            Err(error) if began.elapsed() > ANEW => return Err(error),
            Err(_) => wait(1),
            Ok(_) => return Ok(()),
        }
    }
}

/// Until everybody has noticed and stands still.
fn lose(server: &mut Nbd) {
    server.kill();
    wait(3);
}

/// With systemd 257, which alone knows the soft reboot.
const TRIXIE: (&str, Kernel) = ("trixie", Kernel::V6_12);
/// With systemd 252.
const BOOKWORM: (&str, Kernel) = ("networkd", Kernel::V6_1);

/// One test for each row, so that they run side by side and fail by name.
macro_rules! ends {
    ($($name:ident: $root:ident, $state:ident, $server:ident, $soft:ident, $end:ident;)*) => {
        $(
            #[test]
            #[ignore = "boots a virtual machine"]
            fn $name() -> Result<()> {
                let case = Case {
                    test: concat!("ends-", stringify!($name)),
                    root: $root,
                    state: State::$state,
                    server: Server::$server,
                    soft_reboot: Soft::$soft,
                    end: End::$end,
                };
                case.run()
            }
        )*
    };
}

// Streamed from a server that is alive is `exitrd.rs`.
ends! {
    streamed_from_a_dead_server:                 BOOKWORM, Streamed,   Dies,  No,       Reboot;
    streamed_from_a_dead_server_started_anew:    TRIXIE,   Streamed,   Dies,  Rebooted, PowerOff;
    half_copied:                                 BOOKWORM, HalfCopied, Lives, No,       PowerOff;
    half_copied_started_anew:                    TRIXIE,   HalfCopied, Lives, Rebooted, Reboot;
    half_copied_from_a_dead_server:              BOOKWORM, HalfCopied, Dies,  No,       Reboot;
    half_copied_from_a_dead_server_started_anew: TRIXIE,   HalfCopied, Dies,  Rebooted, PowerOff;
    in_memory:                                   BOOKWORM, InMemory,   Lives, No,       Reboot;
    in_memory_started_anew:                      TRIXIE,   InMemory,   Lives, Rebooted, PowerOff;
    in_memory_with_the_server_dead:              BOOKWORM, InMemory,   Dies,  No,       PowerOff;
    in_memory_with_the_server_dead_started_anew: TRIXIE,   InMemory,   Dies,  Rebooted, Reboot;
}
