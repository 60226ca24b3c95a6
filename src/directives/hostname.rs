//! HOSTNAME, HOSTNAME_BASE, HOSTNAME_EXTRA: what the node is called.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Draft, Facts};
use crate::config::Settings;
use crate::error::{Error, Result};

/// The kernel takes no longer one (`__NEW_UTS_LEN`).
const LONGEST: usize = 64;

/// The node's name: set, else from DHCP or `ip=`, else made of the address as LTSP made it.
/// `None` if nothing is known that a name could be made of.
pub fn choose(settings: &Settings, facts: &Facts) -> Option<String> {
    let given = settings
        .filled("HOSTNAME")
        .or_else(|| facts.leases.hostname())
        // LTSP cuts at the first blank.
        .and_then(|name| name.split_whitespace().next());
    if let Some(name) = given {
        return Some(name.to_owned());
    }
    let base = settings.get("HOSTNAME_BASE").unwrap_or("ltsp");
    let extra = match settings.get("HOSTNAME_EXTRA").unwrap_or("ip") {
        "mac" => facts.mac?.dashed(),
        "ip" => match &facts.leases.ipv4 {
            Some(lease) => host_part(lease.address, lease.prefix).to_string(),
            // LTSP knew of nothing else. Half of an IPv6 address is the same, or a random number.
            None => facts.leases.ipv6.as_ref().and(facts.mac)?.dashed(),
        },
        literal => literal.to_owned(),
    };
    Some(format!("{base}{extra}").split_whitespace().collect())
}

/// The bits of `address` that the prefix leaves to the host, as one number.
fn host_part(address: Ipv4Addr, prefix: u8) -> u32 {
    let mask = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    address.to_bits() & mask
}

/// Checks what the kernel and `/etc/hostname` would make a mess of.
pub fn check(name: &str) -> Result<()> {
    let doing = || format!("naming this machine {name:?}");
    if name.len() > LONGEST {
        return Err(Error::invalid(doing(), format!("a host name has at most {LONGEST} bytes")));
    }
    if !is_name(name) {
        let why = "a host name is made of letters, digits, \"-\" and dots";
        return Err(Error::invalid(doing(), why));
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// Whether some other machine can be named so: by a name, or by an address of either kind.
pub fn is_host(text: &str) -> bool {
    is_name(text) || text.parse::<Ipv6Addr>().is_ok()
}

pub fn apply(name: &str, draft: &mut Draft<'_>) {
    draft.write("/etc/hostname", format!("{name}\n"), 0o644);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;
    use crate::directives::tests::lease;
    use crate::net::{Lease6, Leases};

    #[test]
    #[rustfmt::skip]
    fn a_node_is_called_as_ltsp_called_it() {
        let settings = |values: &[(&str, &str)]| {
            let mut settings = Settings::default();
            for (name, value) in values {
                settings.insert(*name, *value, Origin::Agent);
            }
            settings
        };
        let cases: &[(&str, &[(&str, &str)], [u8; 4], u8, &str)] = &[
            ("C63", &[],                               [10, 9, 200, 5],    16, "ltsp51205"),
            ("C63", &[],                               [192, 168, 67, 20], 24, "ltsp20"),
            ("C63", &[],                               [10, 1, 2, 200],    25, "ltsp72"),
            ("C63", &[],                               [172, 16, 5, 9],    22, "ltsp265"),
            ("",    &[],                               [10, 0, 0, 9],      32, "ltsp0"),
            ("C64", &[("HOSTNAME_BASE", "n"), ("HOSTNAME_EXTRA", "mac")], [10, 0, 0, 5], 24, "n52-54-00-aa-bb-cc"),
            ("2.1", &[("HOSTNAME_EXTRA", "-a")],       [10, 0, 0, 5],      24, "ltsp-a"),
            ("C65", &[("HOSTNAME", "node7")],          [10, 0, 0, 5],      24, "node7"),
            ("2.1", &[("HOSTNAME", "node7 or 8")],     [10, 0, 0, 5],      24, "node7"),
            ("2.1", &[("HOSTNAME", "")],               [10, 0, 0, 5],      24, "ltsp5"),
        ];
        for (row, values, address, prefix, expected) in cases {
            let facts = Facts {
                leases: Leases::of_ipv4(lease(*address, *prefix)),
                mac: "52:54:00:aa:bb:cc".parse().ok(),
                ..Facts::default()
            };
            let name = choose(&settings(values), &facts);
            assert_eq!(name.as_deref(), Some(*expected), "{row}: {values:?}");
            assert!(check(expected).is_ok(), "{row}: {expected}");
        }
        let leases = Leases { ipv4: None, ipv6: Some(Lease6::default()) };
        let mac = "52:54:00:aa:bb:cc".parse().ok();
        let name = choose(&Settings::default(), &Facts { leases, mac, ..Facts::default() });
        assert_eq!(name.as_deref(), Some("ltsp52-54-00-aa-bb-cc"), "IPv6 only");
        assert_eq!(choose(&Settings::default(), &Facts::default()), None);
        for wrong in ["", "a/b", "a b", "uzel-č", &"x".repeat(65)] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }
}
