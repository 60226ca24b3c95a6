//! What the builder has to know of ELF files: what a module says about itself, whether a program
//! runs without libraries, and how to make a module smaller.
//!
//! Stripping follows what the kernel's loader requires (`elf_validity_check` and
//! `setup_load_info` in kernel/module/main.c): section numbers must not change, because symbols and
//! relocations refer to them; a section that is dropped becomes an empty `SHT_NULL` one.

use anyhow::{Context, Result, bail};
use elf::ElfBytes;
use elf::abi::{DT_NEEDED, ET_REL, PT_INTERP, SHF_ALLOC, SHT_NOBITS, SHT_NULL, SHT_REL, SHT_RELA};
use elf::endian::{AnyEndian, LittleEndian};
use elf::file::Class;
use elf::section::SectionHeader;

/// The parts of `.modinfo` that decide what goes into an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleInfo {
    pub aliases: Vec<String>,
    /// Modules whose symbols it uses; not those that they need in turn.
    pub depends: Vec<String>,
    /// `pre: a b post: c`
    pub softdeps: Vec<String>,
    /// Paths below `/lib/firmware`.
    pub firmware: Vec<String>,
    /// The kernel that it was built for.
    pub release: String,
    /// `e_machine`, to tell a mixture of architectures at build time.
    pub machine: u16,
}

impl ModuleInfo {
    pub fn read(image: &[u8]) -> Result<Self> {
        let file = ElfBytes::<AnyEndian>::minimal_parse(image).context("not an ELF file")?;
        let section = file
            .section_header_by_name(".modinfo")?
            .context("not a kernel module: it has no .modinfo")?;
        let (data, _) = file.section_data(&section)?;
        let mut info = Self { machine: file.ehdr.e_machine, ..Self::default() };
        for entry in data.split(|&byte| byte == 0) {
            // Names of authors are the only texts in other encodings than ASCII.
            let entry = String::from_utf8_lossy(entry);
            let Some((key, value)) = entry.split_once('=') else { continue };
            match key {
                "alias" => info.aliases.push(value.to_owned()),
                "depends" => {
                    let names = value.split(',').filter(|name| !name.is_empty());
                    info.depends.extend(names.map(ToOwned::to_owned));
                }
                "softdep" => info.softdeps.push(value.to_owned()),
                "firmware" => info.firmware.push(value.to_owned()),
                "vermagic" => {
                    info.release = value.split(' ').next().unwrap_or_default().to_owned();
                }
                _ => {}
            }
        }
        Ok(info)
    }
}

/// Fails unless `program` runs without any other file; its `e_machine` otherwise.
pub fn require_static(program: &[u8]) -> Result<u16> {
    let file = ElfBytes::<AnyEndian>::minimal_parse(program).context("not an ELF program")?;
    let interpreter = file
        .segments()
        .is_some_and(|segments| segments.iter().any(|segment| segment.p_type == PT_INTERP));
    let libraries =
        file.dynamic()?.is_some_and(|entries| entries.iter().any(|entry| entry.d_tag == DT_NEEDED));
    if interpreter || libraries {
        bail!("it is linked dynamically, and there are no libraries in the image");
    }
    Ok(file.ehdr.e_machine)
}

/// The architecture's name, for messages.
pub fn machine_name(machine: u16) -> String {
    match machine {
        elf::abi::EM_X86_64 => "x86_64".to_owned(),
        elf::abi::EM_AARCH64 => "aarch64".to_owned(),
        elf::abi::EM_386 => "i386".to_owned(),
        elf::abi::EM_ARM => "arm".to_owned(),
        elf::abi::EM_RISCV => "riscv".to_owned(),
        other => format!("ELF machine {other}"),
    }
}

/// Without the signature that `scripts/sign-file` appends: the PKCS#7 message, a descriptor of 12
/// bytes that ends with the message's length, and a marker.
pub fn without_signature(module: &[u8]) -> &[u8] {
    let unsigned = || {
        let rest = module.strip_suffix(b"~Module signature appended~\n")?;
        let (rest, descriptor) = rest.split_last_chunk::<12>()?;
        let [_, _, _, signer, key_id, _, _, _, length @ ..] = *descriptor;
        let length =
            u32::from_be_bytes(length) as usize + usize::from(signer) + usize::from(key_id);
        rest.get(..rest.len().checked_sub(length)?)
    };
    unsigned().unwrap_or(module)
}

/// Without debugger's data and type information; the running code and its symbols stay.
///
/// For 64-bit little-endian modules, which is every architecture we boot.
pub fn without_debug_data(module: &[u8]) -> Result<Vec<u8>> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(module).context("not an ELF file")?;
    let header = &file.ehdr;
    if header.class != Class::ELF64 || header.e_type != ET_REL || header.e_phnum != 0 {
        bail!("not a 64-bit relocatable ELF file");
    }
    let (Some(sections), Some(names)) = file.section_headers_with_strtab()? else {
        bail!("it has no section names");
    };
    let mut sections: Vec<SectionHeader> = sections.iter().collect();
    if sections.len() != usize::from(header.e_shnum) {
        bail!("it has more sections than an ELF header can count");
    }
    let debug: Vec<bool> = sections
        .iter()
        .map(|section| {
            let name = names.get(section.sh_name as usize).unwrap_or_default();
            // `.BTF_ids` looks alike and is code's data; it has SHF_ALLOC.
            section.sh_flags & u64::from(SHF_ALLOC) == 0
                && (name.starts_with(".debug_") || matches!(name, ".BTF" | ".BTF.base"))
        })
        .collect();
    for (section, is_debug) in sections.iter_mut().zip(&debug) {
        let relocates_debug = matches!(section.sh_type, SHT_REL | SHT_RELA)
            && debug.get(section.sh_info as usize).copied().unwrap_or(false);
        if *is_debug || relocates_debug {
            *section = EMPTY;
        }
    }

    let mut order: Vec<usize> = (0..sections.len()).collect();
    order.sort_by_key(|&number| sections[number].sh_offset);
    let mut out = module.get(..HEADER_BYTES).context("shorter than an ELF header")?.to_vec();
    for number in order {
        let section = &mut sections[number];
        if section.sh_type == SHT_NULL {
            continue;
        }
        let from = usize::try_from(section.sh_offset)?;
        align(&mut out, usize::try_from(section.sh_addralign)?)?;
        section.sh_offset = out.len() as u64;
        if section.sh_type != SHT_NOBITS {
            let to = from.checked_add(usize::try_from(section.sh_size)?);
            let data = to.and_then(|to| module.get(from..to));
            out.extend_from_slice(data.context("a section lies outside of the file")?);
        }
    }
    align(&mut out, 8)?;
    let table = out.len() as u64;
    for section in &sections {
        write_section_header(&mut out, section);
    }
    // `e_shoff`, the place of the section table.
    out[0x28..0x30].copy_from_slice(&table.to_le_bytes());
    Ok(out)
}

/// Bytes of an ELF64 file header.
const HEADER_BYTES: usize = 64;

const EMPTY: SectionHeader = SectionHeader {
    sh_name: 0,
    sh_type: SHT_NULL,
    sh_flags: 0,
    sh_addr: 0,
    sh_offset: 0,
    sh_size: 0,
    sh_link: 0,
    sh_info: 0,
    sh_addralign: 0,
    sh_entsize: 0,
};

fn align(out: &mut Vec<u8>, to: usize) -> Result<()> {
    // Real modules align to 4096 at most (`.data..percpu`); more is a damaged header.
    if to > 1 << 16 {
        bail!("a section is aligned to {to} bytes");
    }
    out.resize(out.len().next_multiple_of(to.max(1)), 0);
    Ok(())
}

fn write_section_header(out: &mut Vec<u8>, section: &SectionHeader) {
    out.extend_from_slice(&section.sh_name.to_le_bytes());
    out.extend_from_slice(&section.sh_type.to_le_bytes());
    out.extend_from_slice(&section.sh_flags.to_le_bytes());
    out.extend_from_slice(&section.sh_addr.to_le_bytes());
    out.extend_from_slice(&section.sh_offset.to_le_bytes());
    out.extend_from_slice(&section.sh_size.to_le_bytes());
    out.extend_from_slice(&section.sh_link.to_le_bytes());
    out.extend_from_slice(&section.sh_info.to_le_bytes());
    out.extend_from_slice(&section.sh_addralign.to_le_bytes());
    out.extend_from_slice(&section.sh_entsize.to_le_bytes());
}

/// Modules made on the spot, for the tests of this package.
#[cfg(test)]
pub mod fixture {
    use super::*;

    /// `(name, type, flags, info, alignment, content)`; numbers count from 1.
    pub type Section<'a> = (&'a str, u32, u32, u32, u64, &'a [u8]);

    /// A module with nothing but a `.modinfo`: `modinfo` has its entries, separated by blanks (and
    /// a no-break space where a value has a blank).
    pub fn module(modinfo: &str) -> Vec<u8> {
        let entries = modinfo.replace(' ', "\0").replace('\u{a0}', " ");
        let entries = format!("{entries}\0vermagic=6.1 SMP\0");
        relocatable(&[(".modinfo", 1, SHF_ALLOC, 0, 1, entries.as_bytes())])
    }

    pub fn relocatable(sections: &[Section<'_>]) -> Vec<u8> {
        let mut names = b"\0.shstrtab\0".to_vec();
        let mut headers = vec![EMPTY];
        let mut out = vec![0; HEADER_BYTES];
        for (name, sh_type, flags, info, alignment, content) in sections {
            align(&mut out, *alignment as usize).unwrap();
            headers.push(SectionHeader {
                sh_name: names.len() as u32,
                sh_type: *sh_type,
                sh_flags: u64::from(*flags),
                sh_offset: out.len() as u64,
                sh_size: content.len() as u64,
                sh_info: *info,
                sh_addralign: *alignment,
                ..EMPTY
            });
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            if *sh_type != SHT_NOBITS {
                out.extend_from_slice(content);
            }
        }
        headers.push(SectionHeader {
            sh_name: 1,
            sh_type: elf::abi::SHT_STRTAB,
            sh_offset: out.len() as u64,
            sh_size: names.len() as u64,
            sh_addralign: 1,
            ..EMPTY
        });
        out.extend_from_slice(&names);
        align(&mut out, 8).unwrap();
        let table = out.len() as u64;
        for header in &headers {
            write_section_header(&mut out, header);
        }
        out[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        out[0x10..0x12].copy_from_slice(&ET_REL.to_le_bytes());
        out[0x12..0x14].copy_from_slice(&elf::abi::EM_X86_64.to_le_bytes());
        out[0x14] = 1; // e_version
        out[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        out[0x34] = HEADER_BYTES as u8;
        out[0x3a] = 64; // e_shentsize
        out[0x3c..0x3e].copy_from_slice(&(headers.len() as u16).to_le_bytes());
        out[0x3e..0x40].copy_from_slice(&(headers.len() as u16 - 1).to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs_and_drives() {
        let module = fixture::module(
            "alias=pci:v1* alias=fs-x depends=jbd2,crc16 firmware=a/b.bin softdep=pre:\u{a0}c depends=",
        );
        let info = ModuleInfo::read(&module).unwrap();
        let expected = ModuleInfo {
            aliases: vec!["pci:v1*".into(), "fs-x".into()],
            depends: vec!["jbd2".into(), "crc16".into()],
            softdeps: vec!["pre: c".into()],
            firmware: vec!["a/b.bin".into()],
            release: "6.1".into(),
            machine: elf::abi::EM_X86_64,
        };
        assert_eq!(info, expected);
        assert!(ModuleInfo::read(b"#!/bin/sh\n").is_err());
    }

    #[test]
    fn a_signature_is_cut_off_with_its_descriptor_and_nothing_else_is() {
        let mut signed = b"module".to_vec();
        signed.extend_from_slice(b"PKCS7 message");
        signed.extend_from_slice(&[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 13]);
        signed.extend_from_slice(b"~Module signature appended~\n");
        assert_eq!(without_signature(&signed), b"module");
        assert_eq!(without_signature(b"module"), b"module");
        // A length beyond the file's beginning: leave it to the kernel to complain.
        let mut damaged = vec![0xff; 12];
        damaged.extend_from_slice(b"~Module signature appended~\n");
        assert_eq!(without_signature(&damaged), damaged);
    }

    /// Symbols and relocations count sections: a number that moves would break code, not debugging.
    #[test]
    fn debug_sections_vanish_and_the_others_keep_number_content_and_alignment() {
        let nothing = [0; 32];
        let sections: [fixture::Section<'_>; 9] = [
            (".text", 1, SHF_ALLOC, 0, 16, b"code"),
            (".debug_info", 1, 0, 0, 1, &[7; 999]),
            (".rela.debug_info", SHT_RELA, 0, 2, 8, &[8; 48]),
            (".rela.text", SHT_RELA, 0, 1, 8, &[9; 24]),
            (".BTF", 1, 0, 0, 1, &[6; 500]),
            (".BTF_ids", 1, SHF_ALLOC, 0, 4, &[5; 8]),
            (".bss", SHT_NOBITS, SHF_ALLOC, 0, 32, &nothing),
            (".data..percpu", 1, SHF_ALLOC, 0, 64, b"percpu"),
            (".modinfo", 1, SHF_ALLOC, 0, 1, b"alias=x\0vermagic=6.1 SMP\0"),
        ];
        let module = fixture::relocatable(&sections);
        let stripped = without_debug_data(&module).unwrap();
        assert!(stripped.len() < module.len() - 1400, "{} of {}", stripped.len(), module.len());
        assert_eq!(ModuleInfo::read(&stripped).unwrap(), ModuleInfo::read(&module).unwrap());

        let file = ElfBytes::<LittleEndian>::minimal_parse(&stripped).unwrap();
        let (headers, names) = file.section_headers_with_strtab().unwrap();
        let headers: Vec<_> = headers.unwrap().iter().collect();
        assert_eq!(headers.len(), sections.len() + 2);
        for (number, (name, sh_type, _, info, alignment, content)) in sections.iter().enumerate() {
            let header = &headers[number + 1];
            if [".debug_info", ".rela.debug_info", ".BTF"].contains(name) {
                assert_eq!(*header, EMPTY, "{name}");
                continue;
            }
            assert_eq!(names.unwrap().get(header.sh_name as usize).unwrap(), *name);
            assert_eq!((header.sh_type, header.sh_info), (*sh_type, *info), "{name}");
            assert_eq!(header.sh_offset % alignment, 0, "{name}");
            if *sh_type != SHT_NOBITS {
                assert_eq!(file.section_data(header).unwrap().0, *content, "{name}");
            }
        }
        // What is done once stays done.
        assert_eq!(without_debug_data(&stripped).unwrap(), stripped);
    }

    #[test]
    fn a_damaged_module_is_an_error() {
        let module = fixture::module("alias=x");
        for length in 0..module.len() {
            let _ = without_debug_data(&module[..length]);
            let _ = ModuleInfo::read(&module[..length]);
            let _ = require_static(&module[..length]);
        }
        let mut outside = module;
        let table = outside.len() - 64;
        outside[table + 0x18..table + 0x20].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(without_debug_data(&outside).is_err());
    }
}
