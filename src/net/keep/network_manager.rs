//! NetworkManager: told to leave the port alone.
//!
//! It would adopt a configured link as "external" anyway (1.42), but what it does with it later
//! depends on profiles in the image.

use super::Port;

/// Below `/run`.
pub const PATH: &str = "NetworkManager/conf.d/10-landfall.conf";

/// `[device]` sections add up, where `unmanaged-devices` of an image would replace ours.
///
/// `dns=none`: it knows of no name server here, and would say so in a new `/etc/resolv.conf`.
pub fn render(port: &Port<'_>) -> String {
    let mut devices = format!("mac:{}", port.mac);
    if port.is_composed() {
        devices = format!("interface-name:={}", port.link);
        devices.extend(port.beneath.iter().map(|mac| format!(",mac:{mac}")));
    }
    format!(
        "# Written by landfall at boot: the root file system is behind this link.\n\
         [main]\ndns=none\n\n\
         [device-landfall]\nmatch-device={devices}\nmanaged=0\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::keep::tests::port;
    use crate::net::lease::tests::lease;
    use crate::net::plan::tests::plan;

    #[test]
    fn the_port_is_left_alone() {
        assert!(
            render(&port(&plan(), &lease("10.0.0.5/24")))
                .ends_with("match-device=mac:52:54:00:aa:bb:cc\nmanaged=0\n")
        );
    }
}
