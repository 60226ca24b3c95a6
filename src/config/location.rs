//! Where lts.conf is, when nobody says, and what `landfall.config=` may leave open.
//!
//! LTSP 5's rule (its `05-getltsconffile`, since 5.5.8): the directory that the kernel came from,
//! else that of the DHCP boot file, else `/ltsp/ARCH/`; on the boot server, by TFTP. A boot loader
//! that names a host with the kernel (GRUB's `(http,10.0.0.1)/…`, iPXE's `http://…`) has shown
//! which server and protocol work here, so these are kept.

use crate::error::{Error, Result};
use crate::fetch::{Host, Url};

/// What LTSP's rule looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Location<'a> {
    /// Boot server, name or address.
    pub server: Option<&'a str>,
    /// `BOOT_IMAGE=` of the kernel command line.
    pub boot_image: Option<&'a str>,
    /// Boot file of the DHCP lease.
    pub filename: Option<&'a str>,
    /// `ltsp.ltsconf=`, `LTSCONF=`: another name than `lts.conf`.
    pub ltsconf: Option<&'a str>,
    /// As in `uname -m`.
    pub arch: &'a str,
}

impl Location<'_> {
    /// The addresses to try, in this order; none without a server.
    pub fn candidates(&self) -> Vec<Url> {
        // A blank or a control character has no place in an address, and these two a meaning.
        let plain = |b: u8| b > b' ' && b != 0x7f && !b"#?".contains(&b);
        let plain = |name: &&str| !name.is_empty() && name.bytes().all(plain);
        let file = self.ltsconf.filter(plain).unwrap_or("lts.conf");
        let server = self.server.and_then(Host::parse);
        let beside = |boot_file: &str| Some(place(boot_file, server.as_ref())?.beside(file));
        // BOOT_IMAGE decides alone when it is there (C88): the DHCP boot file then is some GRUB.
        if let Some(url) = self.boot_image.and_then(beside) {
            return vec![url];
        }
        let mut candidates: Vec<Url> = Vec::new();
        if self.boot_image.is_none() {
            candidates.extend(self.filename.and_then(beside));
        }
        // LTSP looks nowhere else than beside the boot file. A loader that passes no BOOT_IMAGE
        // leaves us with GRUB's own folder there (`…/grub/i386-pc/`), so the usual place follows.
        //
        // LTSP's client asked for `uname -m`, Debian's server put files under dpkg's name of the
        // same thing; which one a site has depends on its releases. A miss costs one round trip.
        for arch in spellings(self.arch) {
            let path = format!("/ltsp/{arch}/{file}");
            let usual = server.clone().map(|host| Url::Tftp { host, port: 69, path });
            candidates.extend(usual.filter(|url| !candidates.contains(url)));
        }
        candidates
    }
}

/// Where a boot file is; `None` if it is named without a directory.
fn place(boot_file: &str, server: Option<&Host>) -> Option<Url> {
    if boot_file.contains("://") {
        return boot_file.parse().ok().filter(|url| !matches!(url, Url::File(_)));
    }
    if let Some((device, path)) = boot_file.strip_prefix('(').and_then(|text| text.split_once(')'))
        && path.contains('/')
    {
        // GRUB: (tftp,10.0.0.1)/path, (http,10.0.0.1:8080)/path, (pxe)/path, (hd0,1)/path.
        let path = path.trim_start_matches('/');
        return match device.split_once(',') {
            Some((scheme @ ("tftp" | "http" | "https"), host)) => {
                format!("{scheme}://{host}/{path}").parse().ok()
            }
            _ => tftp(server?, path),
        };
    }
    // pxelinux: `10.0.0.1::path`, `::path`.
    let (host, path) = match boot_file.split_once("::") {
        Some((host, path)) => (Host::parse(host), path),
        None => (None, boot_file),
    };
    path.contains('/').then(|| tftp(host.as_ref().or(server)?, path))?
}

fn tftp(host: &Host, path: &str) -> Option<Url> {
    format!("tftp://{host}/{}", path.trim_start_matches('/')).parse().ok()
}

/// dpkg's name for an architecture of `uname -m`.
pub fn debian_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i486" | "i586" | "i686" => "i386",
        "armv6l" => "armel",
        "armv7l" | "armv8l" => "armhf",
        "ppc64le" => "ppc64el",
        other => other,
    }
}

fn spellings(machine: &str) -> Vec<&str> {
    match debian_arch(machine) {
        debian if debian == machine => vec![machine],
        debian => vec![debian, machine],
    }
}

/// What stands for `{mac}` and its like in `landfall.config=URL`; what is `None` is not known of
/// this machine.
#[derive(Clone, Debug, Default)]
pub struct Placeholders {
    pub mac: Option<crate::net::Mac>,
    pub ip: Option<std::net::IpAddr>,
    pub hostname: Option<String>,
    pub uuid: Option<String>,
    pub serial: Option<String>,
    /// As in `uname -m`.
    pub arch: String,
}

impl Placeholders {
    /// Fills in `template`. More than one address comes out if `{arch}` is in it and the
    /// architecture has two names.
    ///
    /// An unknown placeholder, and one whose value this machine does not have, is an error.
    pub fn fill(&self, template: &str) -> Result<Vec<Url>> {
        let http = template.starts_with("http");
        let archs = if template.contains("{arch}") { spellings(&self.arch) } else { vec![""] };
        archs.into_iter().map(|arch| self.fill_one(template, arch, http)?.parse()).collect()
    }

    fn fill_one(&self, template: &str, arch: &str, http: bool) -> Result<String> {
        let doing = || format!("filling in {template:?}");
        let mut out = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| Error::invalid(doing(), "there is a \"{\" without \"}\""))?;
            let value = match name {
                "mac" => self.mac.map(|mac| mac.to_string()),
                "mac-dashed" => self.mac.map(|mac| mac.dashed()),
                "ip" => self.ip.map(|ip| ip.to_string()),
                "hostname" => self.hostname.clone(),
                "uuid" => self.uuid.clone(),
                "serial" => self.serial.clone(),
                "arch" => Some(arch.to_owned()),
                _ => {
                    let why = format!("{{{name}}} is not known");
                    return Err(Error::invalid(doing(), why).with_hint(
                        "known are {mac} {mac-dashed} {ip} {hostname} {uuid} {serial} {arch}",
                    ));
                }
            };
            let value = value.filter(|value| !value.is_empty()).ok_or_else(|| {
                Error::invalid(doing(), format!("this machine has no {{{name}}}"))
            })?;
            out.push_str(before);
            out.push_str(&escape(&value, http).ok_or_else(|| {
                let why = format!("{{{name}}} is {value:?}, which no path can hold");
                Error::invalid(doing(), why)
            })?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// A value as one piece of a path. Firmware and DHCP servers choose these values, so they must
/// not be able to climb out of the directory that the operator wrote.
fn escape(value: &str, http: bool) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    if value.split('.').all(str::is_empty) {
        return None;
    }
    if value.bytes().all(plain) {
        return Some(value.to_owned());
    }
    http.then(|| {
        value
            .bytes()
            .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(urls: &[Url]) -> Vec<String> {
        urls.iter().map(ToString::to_string).collect()
    }

    #[test]
    #[rustfmt::skip]
    fn lts_conf_is_where_ltsp_looked() {
        let kernel = Some("/ltsp/amd64/vmlinuz-4.15");
        let core = Some("/ltsp/amd64/grub/i386-pc/core.0");
        let both: &[&str] = &["tftp://10.0.0.1/ltsp/amd64/lts.conf", "tftp://10.0.0.1/ltsp/x86_64/lts.conf"];
        let there: &[&str] = &["tftp://10.0.0.1/ltsp/amd64/lts.conf"];
        let cases: &[(&str, Option<&str>, Option<&str>, Option<&str>, &[&str])] = &[
            ("C87", None, Some("/ltsp/amd64/pxelinux.0"), None, both),
            ("C87", None, Some("ltsp/amd64/pxelinux.0"),  None, both),
            ("seed", None, core, None, &["tftp://10.0.0.1/ltsp/amd64/grub/i386-pc/lts.conf", both[0], both[1]]),
            ("C87", None, Some("pxelinux.0"), None, both),
            ("C87", None, None, None, both),
            ("C88", kernel, core, None, there),
            ("C88", Some("vmlinuz"), core, None, both),
            ("C89", kernel, None, Some("alt.conf"), &["tftp://10.0.0.1/ltsp/amd64/alt.conf"]),
            ("",    Some("/vmlinuz"), None, None, &["tftp://10.0.0.1/lts.conf"]),
            // In a TFTP request a zero ends the name.
            ("",    kernel, None, Some("alt\0octet"), there),
            // What boot loaders put into BOOT_IMAGE=.
            ("GRUB",     Some("(tftp,10.0.0.9)/ltsp/amd64/vmlinuz"), core, None, &["tftp://10.0.0.9/ltsp/amd64/lts.conf"]),
            ("GRUB",     Some("(http,10.0.0.9:8069)/a/vmlinuz"), core, None, &["http://10.0.0.9:8069/a/lts.conf"]),
            ("GRUB",     Some("(pxe)/ltsp/amd64/vmlinuz"), core, None, there),
            ("pxelinux", Some("10.0.0.9::ltsp/amd64/vmlinuz"), core, None, &["tftp://10.0.0.9/ltsp/amd64/lts.conf"]),
            ("pxelinux", Some("::ltsp/amd64/vmlinuz"), core, None, there),
            ("iPXE",     Some("http://boot.example.org/a/vmlinuz?x=/y"), None, None, &["http://boot.example.org/a/lts.conf"]),
            ("HTTP boot", None, Some("http://10.0.0.9/boot/grubx64.efi"), None, &["http://10.0.0.9/boot/lts.conf", both[0], both[1]]),
        ];
        for (row, boot_image, filename, ltsconf, expected) in cases {
            let location = Location {
                server: Some("10.0.0.1"), boot_image: *boot_image, filename: *filename,
                ltsconf: *ltsconf, arch: "x86_64",
            };
            assert_eq!(texts(&location.candidates()), *expected, "{row}: {boot_image:?} {filename:?}");
        }
        let nowhere = Location { boot_image: kernel, arch: "x86_64", ..Location::default() };
        assert_eq!(nowhere.candidates(), []);
    }

    #[test]
    #[rustfmt::skip]
    fn placeholders_are_filled_in_or_named() {
        let machine = Placeholders {
            mac: "52:54:00:aa:bb:cc".parse().ok(),
            ip: Some([10, 0, 0, 5].into()),
            hostname: Some("..".into()),
            uuid: None,
            serial: Some("VM 7/é".into()),
            arch: "x86_64".into(),
        };
        let cases: &[(&str, Result<&[&str], &str>)] = &[
            ("tftp://s/lts.conf",            Ok(&["tftp://s/lts.conf"])),
            ("tftp://s/{mac-dashed}.conf",   Ok(&["tftp://s/52-54-00-aa-bb-cc.conf"])),
            ("http://s/?mac={mac}&ip={ip}",  Ok(&["http://s/?mac=52:54:00:aa:bb:cc&ip=10.0.0.5"])),
            ("http://s/{arch}",              Ok(&["http://s/amd64", "http://s/x86_64"])),
            ("http://s/{serial}",            Ok(&["http://s/VM%207%2F%C3%A9"])),
            ("tftp://s/{serial}",            Err("no path can hold")),
            ("http://s/{hostname}/x",        Err("no path can hold")),
            ("http://s/{uuid}",              Err("this machine has no {uuid}")),
            ("http://s/{MAC}",               Err("{MAC} is not known")),
            ("http://s/{mac",                Err("without")),
            ("ftp://s/{mac}",                Err("only tftp")),
        ];
        for (template, expected) in cases {
            match (machine.fill(template), expected) {
                (Ok(urls), Ok(expected)) => assert_eq!(texts(&urls), *expected, "{template}"),
                (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{template}: {error}"),
                (got, _) => panic!("{template}: {got:?}"),
            }
        }
    }
}
