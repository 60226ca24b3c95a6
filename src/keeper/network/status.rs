//! The network's part of `landfall status`.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::keeper::status::duration;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkStatus {
    /// The link that the root is behind, by its name of now.
    pub link: String,
    pub leases: Vec<LeaseStatus>,
    pub heal: HealStatus,
}

/// Times are seconds since the kernel's start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeaseStatus {
    pub link: String,
    pub address: String,
    pub server: Option<String>,
    /// Who renews it: the keeper, or somebody in the running system, of whom the rest of this is not
    /// known then.
    pub renewed_by: RenewedBy,
    /// How often the keeper has.
    pub renewals: u32,
    /// When it was granted or last extended.
    pub granted: f64,
    /// `None`: it has no end.
    pub renew: Option<f64>,
    pub end: Option<f64>,
    /// What is wrong at the moment.
    pub trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RenewedBy {
    #[default]
    Keeper,
    RunningSystem,
    /// The machine does not have the address any more, and the lease is left to its end.
    Nobody,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealStatus {
    /// `landfall.heal=`
    pub on: bool,
    /// How often something was put back.
    pub times: u32,
    pub last: Option<LastHeal>,
    /// Somebody keeps removing it, and it is tried again only once a minute.
    pub stands_aside: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastHeal {
    /// Seconds since the kernel's start.
    pub at: f64,
    /// What was put back, and who is suspected.
    pub what: String,
}

impl NetworkStatus {
    /// A few lines for people. `now`: seconds since the kernel's start.
    pub fn text(&self, now: f64) -> String {
        let mut text = String::new();
        for (n, lease) in self.leases.iter().enumerate() {
            let name = if n == 0 { "leases" } else { "" };
            let LeaseStatus { address, link, .. } = lease;
            let _ = write!(text, "{name:<10} {address} on {link}: ");
            let server = lease.server.as_deref().unwrap_or("an unknown server");
            let _ = match (lease.renewed_by, lease.renew, lease.end) {
                (RenewedBy::Nobody, ..) => {
                    write!(text, "not on this machine any more, and renewed no more")
                }
                (RenewedBy::RunningSystem, ..) => write!(text, "renewed by the running system"),
                (_, Some(renew), Some(end)) if end > now => write!(
                    text,
                    "of {server}, renewed here {} times, again in {}, ends in {}",
                    lease.renewals,
                    duration(renew - now),
                    duration(end - now)
                ),
                (_, _, Some(end)) => {
                    write!(
                        text,
                        "of {server}, ENDED {} ago; kept nevertheless",
                        duration(now - end)
                    )
                }
                _ => write!(text, "of {server}, for ever"),
            };
            if let Some(trouble) = &lease.trouble {
                let _ = write!(text, " ({trouble})");
            }
            text.push('\n');
        }
        if let Some(last) = &self.heal.last {
            let (times, ago) = (self.heal.times, duration(now - last.at));
            let _ = writeln!(text, "repairs    {times}, the last {ago} ago: {}", last.what);
        }
        if self.heal.stands_aside {
            text.push_str("           somebody keeps removing it; put back once a minute\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn an_operator_reads_how_long_it_goes_well() {
        let lease = |renewed_by, renew, end| LeaseStatus {
            link: "ens3".into(),
            address: "10.0.0.5".into(),
            server: Some("10.0.0.1".into()),
            renewed_by,
            renewals: 3,
            renew,
            end,
            ..LeaseStatus::default()
        };
        use RenewedBy::{Keeper, Nobody, RunningSystem};
        let cases = [
            (Keeper,        Some(130.0), Some(190.0), "leases     10.0.0.5 on ens3: of 10.0.0.1, renewed here 3 times, again in 30 s, ends in 90 s\n"),
            (Keeper,        Some(10.0),  Some(70.0),  "leases     10.0.0.5 on ens3: of 10.0.0.1, ENDED 30 s ago; kept nevertheless\n"),
            (Keeper,        None,        None,        "leases     10.0.0.5 on ens3: of 10.0.0.1, for ever\n"),
            (RunningSystem, Some(130.0), Some(190.0), "leases     10.0.0.5 on ens3: renewed by the running system\n"),
            (Nobody,        Some(130.0), Some(190.0), "leases     10.0.0.5 on ens3: not on this machine any more, and renewed no more\n"),
        ];
        for (who, renew, end, expected) in cases {
            let status = NetworkStatus { leases: vec![lease(who, renew, end)], ..NetworkStatus::default() };
            assert_eq!(status.text(100.0), expected);
        }
        let last = Some(LastHeal { at: 95.0, what: "ens3: put back".into() });
        let heal = HealStatus { on: true, times: 2, last, stands_aside: false };
        let status = NetworkStatus { heal, ..NetworkStatus::default() };
        assert_eq!(status.text(100.0), "repairs    2, the last 5.0 s ago: ens3: put back\n");
    }
}
