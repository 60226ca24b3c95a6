//! `root=`, `nbdroot=`, `netroot=` and DHCP's root-path: every spelling of an NBD export that
//! dracut, nbd-client's initramfs script, LTSP and the NBD URI specification have in use.
//!
//! Nothing here resolves or connects; who fills in a missing server is decided in `plan`.

use crate::net::dial::Literal;

/// What a root key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootRequest {
    Nbd(NbdRequest),
    /// `root=dhcp`, an empty `nbdroot=`: the root-path of the lease.
    Dhcp,
    /// `root=/dev/nbdN[pM]`: the device only; the export comes from `nbdroot=` or from DHCP.
    Device {
        partition: Option<u32>,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NbdRequest {
    /// `None`: the boot server.
    pub host: Option<String>,
    pub port: Option<u16>,
    /// Further servers of the same image, each with its own port or that of all.
    pub more: Vec<(String, Option<u16>)>,
    /// Export names to try, in order. `None`: the root-path of the lease, or the default export.
    pub names: Option<Vec<String>>,
    pub fstype: Option<String>,
    pub flags: Option<String>,
}

/// Whether `root=` or `netroot=` asks for a root that we bring, be it with typing errors.
pub fn is_ours(value: &str) -> bool {
    let ours = ["landfall:", "nbd:", "nbds:", "/dev/nbd"];
    matches!(value, "landfall" | "dhcp" | "dhcp4")
        || ours.iter().any(|prefix| value.starts_with(prefix))
}

/// Reads the value of `root=` or `netroot=`.
pub fn root(value: &str) -> Result<RootRequest, String> {
    // dracut, and boot loaders that insist on a root=, want to know whose it is.
    let value = match value.strip_prefix("landfall:") {
        Some("") => "dhcp",
        Some(rest) => rest,
        None if value == "landfall" => "dhcp",
        None => value,
    };
    if let Some(device) = value.strip_prefix("/dev/nbd") {
        let (number, partition) = match device.split_once('p') {
            Some((number, partition)) => (number, Some(partition)),
            None => (device, None),
        };
        let wrong = || format!("\"{value}\" is not a device like /dev/nbd0 or /dev/nbd0p1");
        number.parse::<u32>().map_err(|_| wrong())?;
        let partition = partition.map(str::parse).transpose().map_err(|_| wrong())?;
        return Ok(RootRequest::Device { partition });
    }
    match value {
        "dhcp" | "dhcp4" => Ok(RootRequest::Dhcp),
        _ if value.starts_with("nbd:") || value.starts_with("nbds:") => {
            nbd(value).map(RootRequest::Nbd)
        }
        _ => Err("only NBD roots are served: nbd:HOST:EXPORT, nbd://HOST/EXPORT, dhcp, \
                  or /dev/nbd0 with nbdroot= or DHCP's root-path"
            .into()),
    }
}

/// Reads `nbd://HOST[:PORT]/EXPORT` (the NBD URI specification) or `nbd:…` (dracut.cmdline(7)).
fn nbd(value: &str) -> Result<NbdRequest, String> {
    if value.starts_with("nbds:") {
        return Err("NBD over TLS (nbds://) is not supported yet".into());
    }
    if let Some(rest) = value.strip_prefix("nbd://") {
        let (authorities, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut servers = Vec::new();
        for authority in authorities.split(',') {
            let (host, port) = authority_parts(authority)?;
            servers.push((host.ok_or("no host behind nbd://")?, port));
        }
        let (host, port) = servers.remove(0);
        return Ok(NbdRequest {
            host: Some(host),
            port,
            more: servers,
            names: Some(either_slash(&percent_decoded(path)?)),
            ..Default::default()
        });
    }
    let rest = value.strip_prefix("nbd:").ok_or("expected nbd:HOST:EXPORT or nbd://HOST/EXPORT")?;
    let (host, more, rest) = host_fields(rest)?;
    // HOST/EXPORT and HOST:PORT/EXPORT: everything behind the slash is the name.
    if let Some((before, name)) = rest.split_once('/') {
        let port = before.strip_prefix(':').unwrap_or(before);
        if before.is_empty() || (!port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())) {
            let port = (!port.is_empty()).then(|| port_number(port)).transpose()?;
            return Ok(NbdRequest {
                host,
                port,
                more,
                names: Some(either_slash(name)),
                ..Default::default()
            });
        }
    }
    let mut fields: Vec<&str> = rest.strip_prefix(':').unwrap_or(rest).split(':').collect();
    let mut take = || if fields.is_empty() { "" } else { fields.remove(0) };
    let second = take();
    let mut request = NbdRequest { host, more, ..Default::default() };
    let mut third = take();
    if !second.is_empty() && second.bytes().all(|b| b.is_ascii_digit()) {
        request.port = Some(port_number(second)?);
        // dracut has the file system in field 3; HOST:PORT:EXPORT is the older and the more
        // natural order, and no export is called like a file system by accident.
        if is_filesystem(third) {
            request.names = Some(vec![String::new()]);
        } else {
            request.names = Some(either_slash(third));
            third = take();
        }
    } else {
        request.names = (!second.is_empty()).then(|| either_slash(second));
    }
    request.fstype = Some(third).filter(|s| !s.is_empty() && *s != "auto").map(str::to_owned);
    request.flags = Some(take()).filter(|s| !s.is_empty()).map(str::to_owned);
    Ok(request)
}

/// Reads the value of `landfall.mirror=`: servers, and what they call the image if that differs.
pub fn mirror(value: &str) -> Result<NbdRequest, String> {
    let mut request = match value.split_once(':') {
        Some(("nbd" | "nbds", _)) => nbd(value)?,
        _ => return Err("expected nbd://HOST/EXPORT or nbd:HOST:EXPORT".into()),
    };
    if request.host.is_none() {
        return Err("a mirror has a HOST".into());
    }
    // `nbd://HOST` names the default export elsewhere; here, whatever the root is called.
    if request.names.as_ref().is_some_and(|names| names.iter().all(String::is_empty)) {
        request.names = None;
    }
    Ok(request)
}

/// Reads `nbdroot=`, or a root-path of DHCP without a scheme: the forms of nbd-client's
/// initramfs script (all releases) and of LTSP.
pub fn nbdroot(value: &str) -> Result<RootRequest, String> {
    match value {
        "" | "dhcp" => return Ok(RootRequest::Dhcp),
        _ if value.starts_with("nbd:") || value.starts_with("nbds:") => {
            return nbd(value).map(RootRequest::Nbd);
        }
        _ => {}
    }
    let named = |host: Option<String>, port, name: &str| {
        RootRequest::Nbd(NbdRequest {
            host,
            port,
            names: Some(either_slash(name)),
            ..Default::default()
        })
    };
    if value.starts_with('/') {
        return Ok(named(None, None, value));
    }
    if value.contains(',') {
        // SERVER,EXPORT[,DEVICE], where a number in place of the export is a port.
        let mut fields = value.split(',');
        let host =
            fields.next().filter(|host| !host.is_empty() && *host != "dhcp").map(unbracketed);
        let export = fields.next().unwrap_or_default();
        return Ok(match export.parse::<u16>() {
            Ok(port) => {
                RootRequest::Nbd(NbdRequest { host, port: Some(port), ..Default::default() })
            }
            Err(_) => named(host, None, export),
        });
    }
    let (host, rest) = host_field(value)?;
    let host = host.filter(|host| host != "dhcp");
    match rest.strip_prefix(':') {
        // SERVER:PORT/EXPORT, SERVER:/EXPORT, SERVER:EXPORT
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (port, name) = rest.split_at_checked(digits).unwrap_or(("", rest));
            if name.is_empty() && !port.is_empty() {
                let port = Some(port_number(port)?);
                Ok(RootRequest::Nbd(NbdRequest { host, port, ..Default::default() }))
            } else if port.is_empty() || !name.starts_with('/') {
                Ok(named(host, None, rest))
            } else {
                Ok(named(host, Some(port_number(port)?), name))
            }
        }
        // SERVER/EXPORT
        None if rest.starts_with('/') => Ok(named(host, None, rest)),
        None => Ok(RootRequest::Nbd(NbdRequest { host, ..Default::default() })),
    }
}

type Hosts<'a> = (Option<String>, Vec<(String, Option<u16>)>, &'a str);

/// Takes `HOST[,HOST…]` from the front, each of which may be `[IPV6]`.
fn host_fields(text: &str) -> Result<Hosts<'_>, String> {
    let (mut hosts, mut rest) = (Vec::new(), text);
    loop {
        let (host, behind) = host_field(rest)?;
        let names = host.as_deref().unwrap_or_default().split(',');
        hosts.extend(names.map(|name| (name.to_owned(), None)));
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None => {
                rest = behind;
                break;
            }
        }
    }
    if hosts.len() > 1 && hosts.iter().any(|(host, _)| host.is_empty()) {
        return Err("a server between commas is missing".into());
    }
    let first = hosts.remove(0).0;
    Ok(((!first.is_empty()).then_some(first), hosts, rest))
}

/// Takes `HOST` or `[IPV6]` from the front; the rest begins with its separator.
fn host_field(text: &str) -> Result<(Option<String>, &str), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or("a '[' without its ']'")?;
        format!("[{address}]")
            .parse::<Literal>()
            .map_err(|()| format!("\"{address}\" is not an IPv6 address"))?;
        return Ok((Some(address.to_owned()), rest));
    }
    let end = text.find([':', '/']).unwrap_or(text.len());
    let (host, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    Ok(((!host.is_empty()).then(|| host.to_owned()), rest))
}

fn authority_parts(authority: &str) -> Result<(Option<String>, Option<u16>), String> {
    let (host, rest) = host_field(authority)?;
    let port = match rest.strip_prefix(':') {
        Some(port) => Some(port_number(port)?),
        None if rest.is_empty() => None,
        None => return Err(format!("\"{rest}\" behind the host is not a port")),
    };
    Ok((host, port))
}

fn unbracketed(host: &str) -> String {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned()
}

fn port_number(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("\"{text}\" is not a port number")),
        Ok(port) => Ok(port),
    }
}

/// The name as given and its other spelling: servers and clients of different releases disagree
/// about the slash in front (`/opt/ltsp/amd64`), and no server has both.
fn either_slash(name: &str) -> Vec<String> {
    match name.strip_prefix('/') {
        _ if name.is_empty() => vec![String::new()],
        Some("") => vec![String::new()],
        Some(bare) => vec![name.to_owned(), bare.to_owned()],
        None => vec![name.to_owned(), format!("/{name}")],
    }
}

fn is_filesystem(word: &str) -> bool {
    matches!(
        word,
        "auto" | "squashfs" | "erofs" | "ext2" | "ext3" | "ext4" | "iso9660" | "xfs" | "btrfs"
    )
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.extend(u8::try_from(high * 16 + low)),
            _ => return Err(format!("\"{text}\" has a % without two hex digits")),
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("\"{text}\" is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row<'a> = (&'a str, Option<&'a str>, Option<u16>, Option<Vec<&'a str>>, Option<&'a str>);

    fn check(read: fn(&str) -> Result<RootRequest, String>, rows: Vec<Row<'_>>) {
        for (value, host, port, names, fstype) in rows {
            let got = match read(value) {
                Ok(RootRequest::Nbd(got)) => got,
                other => panic!("{value}: {other:?}"),
            };
            assert_eq!(got.host.as_deref(), host, "{value}");
            assert_eq!(got.port, port, "{value}");
            let got_names: Option<Vec<&str>> =
                got.names.as_ref().map(|names| names.iter().map(String::as_str).collect());
            assert_eq!(got_names, names, "{value}");
            assert_eq!(got.fstype.as_deref(), fstype, "{value}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn root_speaks_dracut_and_uri() {
        check(root, vec![
            ("nbd:10.0.0.1:focal",                  Some("10.0.0.1"), None,        Some(vec!["focal", "/focal"]), None),
            ("nbd:ltsp-1:/opt/ltsp/amd64",          Some("ltsp-1"),   None,        Some(vec!["/opt/ltsp/amd64", "opt/ltsp/amd64"]), None),
            ("nbd:ltsp-1:/opt/ltsp/amd64:squashfs", Some("ltsp-1"),   None,        Some(vec!["/opt/ltsp/amd64", "opt/ltsp/amd64"]), Some("squashfs")),
            ("nbd:10.0.0.1:10810",                  Some("10.0.0.1"), Some(10810), Some(vec![""]), None),
            ("nbd:10.0.0.1:10810:ext4",             Some("10.0.0.1"), Some(10810), Some(vec![""]), Some("ext4")),
            ("nbd:10.0.0.1:10810:focal",            Some("10.0.0.1"), Some(10810), Some(vec!["focal", "/focal"]), None),
            ("nbd:10.0.0.1:10810:focal:erofs:ro",   Some("10.0.0.1"), Some(10810), Some(vec!["focal", "/focal"]), Some("erofs")),
            ("nbd:10.0.0.1/focal",                  Some("10.0.0.1"), None,        Some(vec!["focal", "/focal"]), None),
            ("nbd:10.0.0.1:10810/a/b",              Some("10.0.0.1"), Some(10810), Some(vec!["a/b", "/a/b"]), None),
            ("nbd:10.0.0.1",                        Some("10.0.0.1"), None,        None, None),
            ("nbd:[fd00::1]:focal",                 Some("fd00::1"),  None,        Some(vec!["focal", "/focal"]), None),
            ("nbd:[fd00::1]:10810:focal",           Some("fd00::1"),  Some(10810), Some(vec!["focal", "/focal"]), None),
            ("nbd:[fe80::1%eth0]:focal",            Some("fe80::1%eth0"), None,    Some(vec!["focal", "/focal"]), None),
            ("nbd://[fd00::1]/focal",               Some("fd00::1"),  None,        Some(vec!["focal", "/focal"]), None),
            ("nbd://[fd00::1]:10810/focal",         Some("fd00::1"),  Some(10810), Some(vec!["focal", "/focal"]), None),
            ("nbd://[fe80::1%25eth0]/focal",        Some("fe80::1%25eth0"), None,  Some(vec!["focal", "/focal"]), None),
            ("nbd://boot:10810/a%2fb%20c",          Some("boot"),     Some(10810), Some(vec!["a/b c", "/a/b c"]), None),
            ("nbd://boot//opt/ltsp",                Some("boot"),     None,        Some(vec!["/opt/ltsp", "opt/ltsp"]), None),
            ("nbd://boot",                          Some("boot"),     None,        Some(vec![""]), None),
        ]);
    }

    #[test]
    #[rustfmt::skip]
    fn several_servers_of_one_image_stand_between_commas() {
        let cases: [(&str, &[(&str, Option<u16>)], &str); 6] = [
            ("nbd:a,b:img",             &[("a", None), ("b", None)],           "img"),
            ("nbd:a,b/img",             &[("a", None), ("b", None)],           "img"),
            ("nbd:[fd00::1],[fd00::2],c:10810:img", &[("fd00::1", Some(10810)), ("fd00::2", None), ("c", None)], "img"),
            ("nbd://a,b:10810/img",     &[("a", None), ("b", Some(10810))],    "img"),
            ("nbd://a:1,[fd00::2]:2/x", &[("a", Some(1)), ("fd00::2", Some(2))], "x"),
            ("nbd://a,b",               &[("a", None), ("b", None)],           ""),
        ];
        for (value, servers, name) in cases {
            let Ok(RootRequest::Nbd(got)) = root(value) else { panic!("{value}") };
            let mut all = vec![(got.host.unwrap(), got.port)];
            all.extend(got.more);
            let all: Vec<_> = all.iter().map(|(host, port)| (host.as_str(), *port)).collect();
            assert_eq!(all, servers, "{value}");
            assert_eq!(got.names.unwrap()[0], name, "{value}");
        }
        for (value, expected) in [("nbd:a,,b:img", "missing"), ("nbd:a,:img", "missing"), ("nbd://a,/x", "no host")] {
            let why = root(value).expect_err(value);
            assert!(why.contains(expected), "{value}: {why}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn a_mirror_is_a_server_and_perhaps_another_name() {
        let cases = [
            ("nbd://b/img", Ok((Some("b"), true))),
            ("nbd://b",     Ok((Some("b"), false))),
            ("nbd:b:10810", Ok((Some("b"), false))),
            ("nbd:b",       Ok((Some("b"), false))),
            ("b",           Err("expected")),
            ("nbd::img",    Err("HOST")),
        ];
        for (value, expected) in cases {
            let got = mirror(value);
            match (&got, expected) {
                (Ok(got), Ok(expected)) => {
                    assert_eq!((got.host.as_deref(), got.names.is_some()), expected, "{value}");
                }
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{value}: {why}"),
                _ => panic!("{value}: {got:?}"),
            }
        }
    }

    #[test]
    #[rustfmt::skip]
    fn nbdroot_speaks_every_release_of_the_script() {
        let ltsp = || Some(vec!["/opt/ltsp/amd64", "opt/ltsp/amd64"]);
        let img = || Some(vec!["/img", "img"]);
        check(nbdroot, vec![
            ("10.0.0.1:10809/img",            Some("10.0.0.1"), Some(10809), img(), None),
            ("10.0.0.1:10809/opt/ltsp/amd64", Some("10.0.0.1"), Some(10809), ltsp(), None), // C81a
            ("10.0.0.1/img",                  Some("10.0.0.1"), None, img(), None),
            ("10.0.0.1:/opt/ltsp/amd64",      Some("10.0.0.1"), None, ltsp(), None),
            ("10.0.0.1,img,nbd0",             Some("10.0.0.1"), None, Some(vec!["img", "/img"]), None),
            ("10.0.0.1,img",                  Some("10.0.0.1"), None, Some(vec!["img", "/img"]), None), // C82
            ("10.0.0.1,10810",                Some("10.0.0.1"), Some(10810), None, None),
            ("10.0.0.1:img",                  Some("10.0.0.1"), None, Some(vec!["img", "/img"]), None), // C82
            ("10.0.0.1:10810",                Some("10.0.0.1"), Some(10810), None, None),
            (":/img",                         None, None, img(), None),
            ("/opt/ltsp/amd64",               None, None, ltsp(), None),
            ("[fd00::1]:10809/img",           Some("fd00::1"), Some(10809), img(), None),
            ("dhcp:/img",                     None, None, img(), None),
            ("nbd://boot/img",                Some("boot"), None, Some(vec!["img", "/img"]), None),
        ]);
        assert_eq!(nbdroot("dhcp"), Ok(RootRequest::Dhcp));
        assert_eq!(nbdroot(""), Ok(RootRequest::Dhcp));
    }

    #[test]
    #[rustfmt::skip]
    fn devices_and_mistakes() {
        assert_eq!(root("/dev/nbd0"), Ok(RootRequest::Device { partition: None }));
        assert_eq!(root("/dev/nbd0p2"), Ok(RootRequest::Device { partition: Some(2) }));
        assert_eq!(root("dhcp"), Ok(RootRequest::Dhcp));
        assert_eq!(root("landfall"), Ok(RootRequest::Dhcp));
        assert_eq!(root("landfall:"), Ok(RootRequest::Dhcp));
        assert_eq!(root("landfall:/dev/nbd0"), Ok(RootRequest::Device { partition: None }));
        assert_eq!(root("landfall:nbd:boot:x"), root("nbd:boot:x"));
        for (value, expected) in [
            ("/dev/nbdx",          "not a device"),
            ("/dev/sda1",          "only NBD"),
            ("UUID=1234",          "only NBD"),
            ("nbds://boot/x",      "TLS"),
            ("nbd:h:99999:x",      "port"),
            ("nbd:[fd00:1:x",      "without its ']'"),
            ("nbd:[nonsense]:x",   "IPv6"),
            ("nbd://boot:http/x",  "port"),
            ("nbd://boot/%4",      "hex"),
            ("nbd:///x",           "no host"),
        ] {
            let why = root(value).expect_err(value);
            assert!(why.contains(expected), "root={value}: {why}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_panics(value in "\\PC*") {
            let _ = (root(&value), nbdroot(&value));
        }
    }
}
