//! The boot as a list of stages. Each takes what earlier ones proved and returns a proof of its
//! own, so a boot that skips a step does not compile; [`Boot::stage`] does the timing, the break
//! points and the naming for all of them.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cmdline::words;
use crate::config::Configuration;
use crate::console;
use crate::directives::{self, Facts};
use crate::error::{Error, Result};
use crate::handover::{self, Handover, Timestamps};
use crate::keeper::Keeper;
use crate::keeper::network::orders::NetworkOrders;
use crate::keeper::orders::Order;
use crate::machine::{self, Machine, Role};
use crate::net::{self, Network, NetworkPlan};
use crate::overlay::{self, NewRoot};
use crate::plan::{Plan, RootOffer};
use crate::report::{Report, rounded};
use crate::root::{self, RootImage};
use crate::sys::clock::Moment;

/// Where the new root is put together.
const SYSROOT: &str = "/sysroot";

/// Takes the machine through a whole boot, which began with the agent's first instruction. Returns
/// only when a stage has failed.
pub fn run(first_instruction: Moment) -> Result<Infallible, Box<Failure>> {
    let mut boot = Boot::begin();
    let machine = boot.stage(Stage::Machine, || machine::start(Role::Init))?;
    let plan = boot.decide(&machine, Role::Init);
    let (new_root, network) = boot.put_together(&machine, &plan, Role::Init, Path::new(SYSROOT))?;
    let tells = machine.request.initrd_time.unwrap_or(true);
    let timestamps = tells.then(|| Timestamps::new(first_instruction)).and_then(Result::ok);
    boot.last_stage(Handover::new(new_root, network, machine, &plan), timestamps)
}

/// The same for the init of somebody else's initramfs, which has started us to mount the root at
/// `target` and goes on from there; gives the path of the init to start in it.
pub fn mount_root(target: &Path) -> Result<PathBuf, Box<Failure>> {
    let mut boot = Boot::begin();
    let machine = boot.stage(Stage::Machine, || machine::start(Role::RootHandler))?;
    if machine.request.off {
        let doing = format!("mounting the root at {}", target.display());
        return Err(Box::new(Failure::before_all(Error::refused(doing, "landfall=off"))));
    }
    let plan = boot.decide(&machine, Role::RootHandler);
    match boot.put_together(&machine, &plan, Role::RootHandler, target) {
        Ok((new_root, network)) => boot.hand_back(Handover::new(new_root, network, machine, &plan)),
        Err(failure) => {
            // It has the root's device open.
            if let Some(keeper) = boot.keeper.take() {
                keeper.dismiss();
            }
            Err(failure)
        }
    }
}

/// A stage of the boot, in order; `break=` and the report use these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Machine,
    Network,
    Config,
    Root,
    Overlay,
    Directives,
    Handover,
}

/// A boot that could not go on.
pub struct Failure {
    stage: Stage,
    after: Duration,
    error: Error,
}

struct Boot {
    began: Instant,
    report: Report,
    breaks: Vec<Stage>,
    /// Of the root, as soon as there is one.
    keeper: Option<Keeper>,
}

impl Boot {
    fn begin() -> Self {
        let report = Report { version: env!("CARGO_PKG_VERSION"), ..Report::default() };
        Self { began: Instant::now(), report, breaks: Vec::new(), keeper: None }
    }

    /// Everything between the machine and the handover: a complete root at `sysroot`.
    fn put_together(
        &mut self,
        machine: &Machine,
        plan: &Plan,
        role: Role,
        sysroot: &Path,
    ) -> Result<(NewRoot, Network), Box<Failure>> {
        let network = self.stage(Stage::Network, || {
            load_for_links(machine, &plan.network);
            net::bring_up(&plan.network)
        })?;
        let (config, network) = self.stage(Stage::Config, || {
            let config = Configuration::obtain(plan, machine, &network);
            let network = match config.network_plan(network.plan()) {
                // While there is no root yet that a moment without network could hurt.
                Some(plan) => {
                    load_for_links(machine, &plan);
                    network.rebuilt(&plan)?
                }
                None => network,
            };
            Ok((config, network))
        })?;
        let resolve = |host: &str| network.resolve(host);
        let load =
            |module: &str, options: &[(&str, &str)]| machine.drivers.require_with(module, options);
        let (image, keeper) = self.stage(Stage::Root, || {
            let boot_server = network.boot_server();
            let root_path = network.leases().root_path();
            let boot_server = boot_server.as_deref();
            let offer = RootOffer { root_path, boot_server, mac: Some(network.mac()) };
            let plan = plan.root(offer, config.settings())?;
            // Before the root: what holds requests back is only for who has a keeper.
            let keeper = start_keeper(machine.request.debug);
            let image = root::attach(&plan, &resolve, &load, keeper.is_some())?;
            let keeper = keeper.and_then(|keeper| keep(keeper, &image));
            Ok((image, keeper))
        })?;
        self.keeper = keeper;
        let new_root =
            self.stage(Stage::Overlay, || overlay::mount(image, &plan.overlay(), sysroot, &load))?;
        let mut config = config.or_from_root(new_root.path(), &resolve);
        self.stage(Stage::Directives, || {
            let _waiting = new_root.waiting();
            handover::bind_api_mounts(&new_root)?;
            config.substitute(&mut directives::shell_of(new_root.path()));
            // First of all files, so that PREINIT commands may have the last word on these, too.
            let wishes = directives::wishes(config.settings(), machine.memory_kib);
            let mode = machine.request.handover.or(config.handover()).unwrap_or_default();
            network.leave_to(new_root.path(), wishes, mode);
            let facts = facts(machine, &network, &config);
            let load_with = |module: &str, parameters: &str| {
                // A bare parameter is a switch, and 1 is how the kernel writes it.
                let options = words(parameters).into_iter();
                let options: Vec<_> =
                    options.map(|word| (word.key, word.value.unwrap_or("1"))).collect();
                machine.drivers.require_with(module, &options)
            };
            // Before the commands, which may want to read it.
            if let Err(error) = directives::leave_environment(config.settings(), Path::new("/run"))
            {
                log::warn!(target: "directives", "{error}");
            }
            let swap = directives::apply(config.settings(), &facts, new_root.path(), &load_with);
            if let Some(swap) = swap {
                // By the path that stays: a host moves its own /dev, and ours over it goes.
                let through = match role {
                    Role::Init => new_root.path(),
                    Role::RootHandler => Path::new("/"),
                };
                root::attach_swap(&swap, &resolve, &load, through);
            }
            Ok(())
        })?;
        self.note_choices(&config, &network, &new_root);
        Ok((new_root, network))
    }

    /// Makes the plan and says what of the command line has no effect.
    fn decide(&mut self, machine: &Machine, role: Role) -> Plan {
        if machine.request.off && role == Role::Init {
            log::warn!(target: "command line", "landfall=off: there is nobody else to boot this machine; ignored");
        }
        let plan = Plan::decide(machine.request.clone(), &machine.identity);
        for problem in &plan.problems {
            let end = if problem.is_in_force { "" } else { "; ignored" };
            log::warn!(target: "command line", "{problem}{end}");
        }
        if role == Role::Init {
            console::set_policy(plan.policy);
            // Another init has break points of its own, with the same names.
            self.breaks.clone_from(&plan.breaks);
        }
        plan
    }

    fn stage<T>(
        &mut self,
        stage: Stage,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T, Box<Failure>> {
        self.stop_before(stage);
        let began = Instant::now();
        let result = act();
        let took = began.elapsed();
        self.report.add_stage(stage.name(), took);
        log::debug!(target: "landfall", "stage {} took {:.3} s", stage.name(), took.as_secs_f64());
        result.map_err(|error| Box::new(Failure { stage, after: took, error }))
    }

    /// The handover reports the boot itself: whoever reads the report is in the system it starts.
    fn last_stage(
        mut self,
        handover: Handover<'_>,
        timestamps: Option<Timestamps>,
    ) -> Result<Infallible, Box<Failure>> {
        self.stop_before(Stage::Handover);
        let began = Instant::now();
        let fail =
            |error| Box::new(Failure { stage: Stage::Handover, after: began.elapsed(), error });
        let mut ready = handover.prepare(&mut self.report).map_err(fail)?;
        self.let_keeper_go(ready.network.take());
        self.report.add_stage(Stage::Handover.name(), began.elapsed());
        self.report.seconds = rounded(self.began.elapsed());
        self.report.warnings = console::warnings();
        ready.exec(&self.report, timestamps).map_err(fail)
    }

    fn hand_back(mut self, handover: Handover<'_>) -> Result<PathBuf, Box<Failure>> {
        let began = Instant::now();
        let fail =
            |error| Box::new(Failure { stage: Stage::Handover, after: began.elapsed(), error });
        let ready = handover.prepare(&mut self.report).map_err(fail)?;
        let mut ready = ready.withdraw().map_err(fail)?;
        self.let_keeper_go(ready.network.take());
        self.report.add_stage(Stage::Handover.name(), began.elapsed());
        self.report.seconds = rounded(self.began.elapsed());
        self.report.warnings = console::warnings();
        Ok(ready.hand_back(&self.report))
    }

    /// Its work goes on; the agent's ends here.
    fn let_keeper_go(&mut self, network: Option<NetworkOrders>) {
        let Some(mut keeper) = self.keeper.take() else { return };
        let network = network.map(|orders| Order::Network(Box::new(orders)));
        for order in network.into_iter().chain([Order::HandedOver]) {
            if let Err(error) = keeper.tell(&order) {
                return log::warn!(target: "root", "{error}");
            }
        }
    }

    fn note_choices(&mut self, config: &Configuration, network: &Network, root: &NewRoot) {
        let image = root.image();
        self.report.add_choice("link", network.link());
        if let Some((address, prefix)) = network.leases().network_address() {
            self.report.add_choice("address", format!("{address}/{prefix}"));
        }
        self.report.add_choice("config", config.source());
        self.report.add_choice("root", format!("\"{}\" of {}", image.export(), image.server()));
        self.report.add_choice("filesystem", image.description());
        self.report.add_choice("memory", if image.is_in_ram() { "copied" } else { "streamed" });
    }

    fn stop_before(&self, stage: Stage) {
        if !self.breaks.contains(&stage) {
            return;
        }
        let why = format!("before stage {} (break=); leaving this shell goes on", stage.name());
        if let Err(error) = console::rescue_shell(&why) {
            log::warn!(target: "landfall", "{error}; going on");
        }
    }
}

impl Failure {
    /// Of the first moments, before there is a boot.
    pub fn before_all(error: Error) -> Self {
        Self { stage: Stage::Machine, after: Duration::ZERO, error }
    }

    /// Shows the failure screen and never returns.
    pub fn end(self) -> ! {
        console::give_up(self.stage.name(), self.after, &self.error)
    }

    /// Shows the failure, and leaves the rest to who started us.
    pub fn show(&self) {
        console::show_failure(self.stage.name(), self.after, &self.error);
    }
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Network => "network",
            Self::Config => "config",
            Self::Root => "root",
            Self::Overlay => "overlay",
            Self::Directives => "directives",
            Self::Handover => "handover",
        }
    }

    /// Our own names, and those of initramfs-tools for people whose fingers know them.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "network" | "top" | "modules" | "premount" => Self::Network,
            "config" => Self::Config,
            "root" | "mount" | "mountroot" => Self::Root,
            "overlay" => Self::Overlay,
            "directives" | "bottom" => Self::Directives,
            "handover" | "init" => Self::Handover,
            _ => return None,
        })
    }
}

/// Modules for bonds, VLANs and bridges: the kernel would call modprobe for them, which is not here.
fn load_for_links(machine: &Machine, plan: &NetworkPlan) {
    for (module, options) in net::modules(plan) {
        if let Err(error) = machine.drivers.require_with(module, options) {
            log::warn!(target: "network", "{error}");
        }
    }
}

/// Starts the keeper; a boot does not fail for it.
fn start_keeper(debug: bool) -> Option<Keeper> {
    let started = Keeper::start(debug);
    started.map_err(|error| log::warn!(target: "root", "{error}; {WITHOUT_KEEPER}")).ok()
}

/// Has it keep the root from now on: a server may be lost while the root is put together.
fn keep(mut keeper: Keeper, image: &RootImage) -> Option<Keeper> {
    match keeper.tell(&Order::Root(Box::new(image.orders().clone()))) {
        Ok(()) => Some(keeper),
        Err(error) => {
            log::warn!(target: "root", "{error}; {WITHOUT_KEEPER}");
            keeper.dismiss();
            None
        }
    }
}

const WITHOUT_KEEPER: &str = "a root that loses its server will not get it back";

/// What the directives need to know of earlier stages.
fn facts(machine: &Machine, network: &Network, config: &Configuration) -> Facts {
    Facts {
        server: network.boot_server(),
        device: Some(network.link().to_owned()),
        leases: network.leases().clone(),
        mac: Some(network.mac()),
        uuid: machine.identity.uuid,
        memory_kib: machine.memory_kib,
        configured: config.is_there(),
        lts_conf: config.text_for_root(),
    }
}
