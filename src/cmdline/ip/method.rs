//! The words for how a link gets its addresses.

use crate::net::description::{Ipv6Method, Needs};

/// What field 7, or field 2 behind a link, says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    Unsaid,
    /// `off`, `none`, `static`
    Fixed,
    Asked {
        ipv4: bool,
        ipv6: Ipv6Method,
        needs: Needs,
        client_id: Option<(u8, Vec<u8>)>,
    },
}

pub const METHODS: &str = "dhcp, dhcp6, auto6, either6, link6, on, any, off, none or static";

/// `None`: no method at all.
///
/// BOOTP and RARP live on as words only: every server of today answers DHCP.
pub fn method(text: &str) -> Result<Option<Method>, String> {
    if let Some((number, id)) = text.strip_prefix("dhcp,").and_then(|rest| rest.split_once(','))
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
    {
        return client_id(number, id).map(Some);
    }
    let mut asked: Option<(bool, Ipv6Method, Needs)> = None;
    let is_alone = !text.contains(',');
    for word in text.split(',') {
        let (ipv4, ipv6, needs) = match word {
            "" if is_alone => return Ok(Some(Method::Unsaid)),
            "off" | "none" | "static" if is_alone => return Ok(Some(Method::Fixed)),
            "on" | "any" | "all" if is_alone => (true, Ipv6Method::Auto, Needs::Either),
            "ibft" => {
                return Err("the firmware's iSCSI table (ibft) is not read here; \
                            write the address: ip=ADDRESS::GATEWAY:NETMASK::DEVICE:none"
                    .into());
            }
            "dhcp" | "dhcp4" | "single-dhcp" | "both" | "bootp" | "rarp" => {
                (true, Ipv6Method::Off, Needs::Ipv4)
            }
            "dhcp6" => (false, Ipv6Method::Dhcp, Needs::Ipv6),
            "auto6" | "either6" => (false, Ipv6Method::Auto, Needs::Ipv6),
            "link6" | "link-local" => (false, Ipv6Method::LinkLocal, Needs::Ipv6),
            _ => return Ok(None),
        };
        asked = Some(match asked {
            None => (ipv4, ipv6, needs),
            Some((known4, known6, _)) => {
                let ipv6 = match (known6, ipv6) {
                    (Ipv6Method::Off, ipv6) => ipv6,
                    (known6, Ipv6Method::Off) => known6,
                    _ => return Err(format!("\"{text}\" has two methods of one family")),
                };
                if known4 && ipv4 {
                    return Err(format!("\"{text}\" has two methods of one family"));
                }
                (true, ipv6, Needs::Both)
            }
        });
    }
    let method = |(ipv4, ipv6, needs)| Method::Asked { ipv4, ipv6, needs, client_id: None };
    Ok(asked.map(method))
}

/// `dhcp,TYPE,TEXT`: option 61, as the kernel's own client takes it (`CONFIG_IP_PNP_DHCP`).
fn client_id(number: &str, text: &str) -> Result<Method, String> {
    let kind = number
        .parse()
        .map_err(|_| format!("the type of the client identifier is \"{number}\", not 0 to 255"))?;
    // The length of an option is one byte, and the type is the first of what it counts.
    if text.is_empty() || text.len() > 254 {
        return Err("the client identifier behind dhcp,TYPE, has 1 to 254 bytes".into());
    }
    Ok(Method::Asked {
        ipv4: true,
        ipv6: Ipv6Method::Off,
        needs: Needs::Ipv4,
        client_id: Some((kind, text.as_bytes().to_vec())),
    })
}
