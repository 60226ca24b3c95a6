//! Unified kernel images (UAPI.5): kernel, initramfs and command line as sections of one PE file
//! that any UEFI firmware starts, from a disk or from the network, and that one signature covers.
//!
//! systemd's stub does the work at boot; here sections are only put behind those that it has, as
//! systemd-stub(7) wants them and `ukify` does it. Debian 12 has no ukify, and with objcopy the
//! operator would have to work out addresses, from stubs whose image base and alignment differ
//! between releases.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::LittleEndian as LE;
use object::pe::{
    IMAGE_DIRECTORY_ENTRY_SECURITY, IMAGE_FILE_MACHINE_AMD64, IMAGE_FILE_MACHINE_ARM64,
    IMAGE_SCN_CNT_INITIALIZED_DATA, IMAGE_SCN_MEM_READ, ImageNtHeaders64, ImageSectionHeader,
};
use object::pod::{bytes_of, from_bytes_mut};
use object::read::pe::PeFile64;
use object::{U16, U32};

/// Where Debian's package `systemd-boot-efi` has its stubs.
const STUBS: &str = "/usr/lib/systemd/boot/efi";

/// Pages of both architectures' kernels; the firmware may protect sections one by one.
const PAGE: u64 = 4096;

/// What goes into one file, and where the file goes.
#[derive(Clone, Debug)]
pub struct Uki {
    /// A kernel that is an EFI program itself, as every distribution's `vmlinuz` is.
    pub kernel: PathBuf,
    /// The kernel unpacks them one after the other; one for microcode goes first.
    pub initramfs: Vec<PathBuf>,
    pub cmdline: String,
    /// `None`: the one that is installed for the kernel's architecture.
    pub stub: Option<PathBuf>,
    pub output: PathBuf,
}

/// Makes the file; one that exists is replaced by a complete one. Gives its size in bytes.
pub fn unify(uki: &Uki) -> Result<u64> {
    let kernel = read(&uki.kernel)?;
    let program = parse(&kernel).with_context(|| {
        format!("{} cannot be started by UEFI (CONFIG_EFI_STUB)", uki.kernel.display())
    })?;
    let machine = program.nt_headers().file_header.machine.get(LE);
    // Unpacking itself, it needs more room than its file has bytes.
    let in_memory = program.nt_headers().optional_header.size_of_image.get(LE);

    let stub_path = match &uki.stub {
        Some(path) => path.clone(),
        None => installed_stub(machine)?,
    };
    let stub = read(&stub_path)?;
    let of_stub = parse(&stub)
        .with_context(|| format!("{} is no stub", stub_path.display()))?
        .nt_headers()
        .file_header
        .machine
        .get(LE);
    if of_stub != machine {
        bail!(
            "{} is for {}, {} for {}",
            stub_path.display(),
            machine_name(of_stub),
            uki.kernel.display(),
            machine_name(machine)
        );
    }
    if uki.cmdline.contains(['\n', '\0']) {
        bail!("the command line is more than one line");
    }

    let sections = [
        Section::new(".osrel", os_release().into_bytes()),
        Section::new(".cmdline", uki.cmdline.trim().as_bytes().to_vec()),
        Section::new(".initrd", concatenated(&uki.initramfs)?),
        // The last, with room behind it for what it unpacks in place.
        Section { in_memory: u64::from(in_memory), ..Section::new(".linux", kernel) },
    ];
    let image = append(&stub, &sections)
        .with_context(|| format!("adding to the stub {}", stub_path.display()))?;
    replace(&uki.output, &image)?;
    Ok(image.len() as u64)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn parse(program: &[u8]) -> Result<PeFile64<'_>> {
    PeFile64::parse(program).context("not a 64-bit PE file")
}

fn machine_name(machine: u16) -> String {
    match machine {
        IMAGE_FILE_MACHINE_AMD64 => "x86_64".to_owned(),
        IMAGE_FILE_MACHINE_ARM64 => "aarch64".to_owned(),
        other => format!("PE machine {other:#06x}"),
    }
}

fn installed_stub(machine: u16) -> Result<PathBuf> {
    let name = match machine {
        IMAGE_FILE_MACHINE_AMD64 => "linuxx64.efi.stub",
        IMAGE_FILE_MACHINE_ARM64 => "linuxaa64.efi.stub",
        other => bail!("no stub is known for {}", machine_name(other)),
    };
    let path = Path::new(STUBS).join(name);
    if !path.exists() {
        bail!("{} is not there: install systemd-boot-efi, or name a --stub", path.display());
    }
    Ok(path)
}

/// For the menu of systemd-boot, when the file lies on a disk.
fn os_release() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "ID=landfall\nNAME=\"Landfall\"\nVERSION_ID=\"{version}\"\n\
         PRETTY_NAME=\"Landfall {version}\"\n"
    )
}

/// Archives begin at multiples of four bytes (initramfs buffer format).
fn concatenated(images: &[PathBuf]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for path in images {
        all.resize(all.len().next_multiple_of(4), 0);
        all.extend(read(path)?);
    }
    Ok(all)
}

fn replace(output: &Path, image: &[u8]) -> Result<()> {
    let mut partial = output.to_path_buf().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    fs::write(&partial, image)
        .and_then(|()| fs::rename(&partial, output))
        .inspect_err(|_| drop(fs::remove_file(&partial)))
        .with_context(|| format!("writing {}", output.display()))
}

struct Section {
    /// At most eight bytes.
    name: &'static str,
    content: Vec<u8>,
    /// Bytes that it takes when loaded, if that is more than its content.
    in_memory: u64,
}

impl Section {
    fn new(name: &'static str, content: Vec<u8>) -> Self {
        Self { name, content, in_memory: 0 }
    }
}

/// `stub` with further sections behind its own, at addresses behind its own.
fn append(stub: &[u8], sections: &[Section]) -> Result<Vec<u8>> {
    let file = parse(stub)?;
    let headers = file.nt_headers();
    let (file_header, optional) = (headers.file_header, headers.optional_header);
    let signature = file.data_directory(IMAGE_DIRECTORY_ENTRY_SECURITY);
    if signature.is_some_and(|entry| entry.size.get(LE) > 0) {
        bail!("it is signed, and what is added would break the signature: use the unsigned one");
    }
    let known = file.section_table();
    if known.iter().any(|section| section.name.starts_with(b".linux")) {
        bail!("it has a kernel already");
    }

    // Behind the last section's bytes old stubs have a symbol table, which nobody loads.
    let end = |at: u32, size: u32| u64::from(at) + u64::from(size);
    let end_of_data = known
        .iter()
        .map(|section| end(section.pointer_to_raw_data.get(LE), section.size_of_raw_data.get(LE)))
        .max()
        .context("it has no sections")?;
    let mut image = stub.to_vec();
    image.resize(usize::try_from(end_of_data)?.min(stub.len()), 0);
    let mut address = known
        .iter()
        .map(|section| end(section.virtual_address.get(LE), section.virtual_size.get(LE)))
        .max()
        .unwrap_or_default();

    let headers_at = file.dos_header().nt_headers_offset() as usize;
    // Behind "PE\0\0" and the file header.
    let table_at = headers_at + 24 + usize::from(file_header.size_of_optional_header.get(LE));
    let mut header_at = table_at + known.len() * size_of::<ImageSectionHeader>();
    let room = (optional.size_of_headers.get(LE) as usize).saturating_sub(header_at);
    if room < sections.len() * size_of::<ImageSectionHeader>() {
        bail!("its header has no room for {} more sections", sections.len());
    }

    let section_alignment = u64::from(optional.section_alignment.get(LE)).max(PAGE);
    let file_alignment = u64::from(optional.file_alignment.get(LE)).max(512);
    if !section_alignment.is_power_of_two() || !file_alignment.is_power_of_two() {
        bail!("its alignments are no powers of two");
    }
    let mut added = 0;
    for section in sections {
        address = address.next_multiple_of(section_alignment);
        let at = (image.len() as u64).next_multiple_of(file_alignment);
        let stored = (section.content.len() as u64).next_multiple_of(file_alignment);
        let loaded = section.in_memory.max(section.content.len() as u64);
        image.resize(usize::try_from(at)?, 0);
        image.extend_from_slice(&section.content);
        image.resize(usize::try_from(at + stored)?, 0);

        let number = |bytes: u64| Ok::<_, anyhow::Error>(U32::new(LE, u32::try_from(bytes)?));
        let mut name = [0; 8];
        name[..section.name.len()].copy_from_slice(section.name.as_bytes());
        let header = ImageSectionHeader {
            name,
            virtual_size: number(loaded)?,
            virtual_address: number(address)?,
            size_of_raw_data: number(stored)?,
            pointer_to_raw_data: number(at)?,
            pointer_to_relocations: number(0)?,
            pointer_to_linenumbers: number(0)?,
            number_of_relocations: U16::new(LE, 0),
            number_of_linenumbers: U16::new(LE, 0),
            characteristics: U32::new(LE, IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ),
        };
        let bytes = bytes_of(&header);
        image[header_at..header_at + bytes.len()].copy_from_slice(bytes);
        header_at += bytes.len();
        address += loaded;
        added += stored;
    }

    let (headers, _) = from_bytes_mut::<ImageNtHeaders64>(&mut image[headers_at..])
        .map_err(|()| anyhow::anyhow!("its header is cut"))?;
    let count = file_header.number_of_sections.get(LE) as usize + sections.len();
    headers.file_header.number_of_sections.set(LE, u16::try_from(count)?);
    headers.file_header.pointer_to_symbol_table.set(LE, 0);
    headers.file_header.number_of_symbols.set(LE, 0);
    let data = u64::from(optional.size_of_initialized_data.get(LE)) + added;
    headers.optional_header.size_of_initialized_data.set(LE, u32::try_from(data)?);
    let memory = address.next_multiple_of(section_alignment);
    headers.optional_header.size_of_image.set(LE, u32::try_from(memory)?);
    // Of no use to UEFI; a wrong one would irritate those who look.
    headers.optional_header.check_sum.set(LE, 0);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use object::read::pe::ImageNtHeaders as _;

    use super::*;

    /// As systemd's stubs are: 64-bit, sections at multiples of `alignment`, and perhaps symbols
    /// behind the last one. Content at 0x400 and 0x600.
    fn stub(alignment: u32, headers: u32, symbols: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x800];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x3c, &0x80_u32.to_le_bytes());
        put(0x80, b"PE\0\0");
        put(0x84, &IMAGE_FILE_MACHINE_AMD64.to_le_bytes());
        put(0x86, &2_u16.to_le_bytes()); // sections
        put(0x8c, &0x800_u32.to_le_bytes()); // symbol table
        put(0x94, &240_u16.to_le_bytes()); // optional header
        put(0x98, &0x20b_u16.to_le_bytes());
        put(0x98 + 32, &alignment.to_le_bytes());
        put(0x98 + 36, &512_u32.to_le_bytes());
        put(0x98 + 60, &headers.to_le_bytes());
        put(0x98 + 64, &0xdead_u32.to_le_bytes()); // checksum
        put(0x98 + 108, &16_u32.to_le_bytes()); // data directories
        for (number, (name, address)) in
            [(".text", 0x1000_u32), (".sbat", 0x5100)].iter().enumerate()
        {
            let at = 0x188 + 40 * number;
            put(at, name.as_bytes());
            put(at + 8, &0x34_u32.to_le_bytes());
            put(at + 12, &address.to_le_bytes());
            put(at + 16, &512_u32.to_le_bytes());
            put(at + 20, &(0x400 + 512 * number as u32).to_le_bytes());
        }
        put(0x400, b"code");
        put(0x600, b"sbat,1");
        image.extend_from_slice(symbols);
        image
    }

    /// The kernel maps sections by their addresses, the stub reads them there: none may lie over
    /// another, and each must be as long as what it holds.
    #[test]
    fn sections_follow_those_of_the_stub_in_file_and_in_memory() {
        for alignment in [512, 4096] {
            let stub = stub(alignment, 0x400, b"symbols of an old stub");
            let sections = [
                Section::new(".cmdline", b"root=dhcp".to_vec()),
                Section { in_memory: 0x9000, ..Section::new(".linux", vec![7; 5000]) },
            ];
            let image = append(&stub, &sections).unwrap();
            assert!(image.windows(7).all(|window| window != b"symbols"));

            let file = parse(&image).unwrap();
            let found: Vec<_> = file
                .section_table()
                .iter()
                .map(|header| {
                    let (from, size) = header.pe_file_range();
                    let name = String::from_utf8_lossy(header.raw_name()).into_owned();
                    let content = image[from as usize..(from + size) as usize].to_vec();
                    (name, header.virtual_address.get(LE), header.virtual_size.get(LE), content)
                })
                .collect();
            let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
            assert_eq!(names, [".text", ".sbat", ".cmdline", ".linux"]);
            assert!(found[0].3.starts_with(b"code") && found[1].3.starts_with(b"sbat,1"));
            assert_eq!((found[2].1, found[2].2), (0x6000, 9));
            assert_eq!(found[2].3, b"root=dhcp");
            assert_eq!((found[3].1, found[3].2), (0x7000, 0x9000));
            assert!(found[3].3.starts_with(&[7; 5000]));
            let optional = file.nt_headers().optional_header();
            assert_eq!(optional.size_of_image.get(LE), 0x10000);
            assert_eq!(optional.check_sum.get(LE), 0);
            assert_eq!(file.nt_headers().file_header().pointer_to_symbol_table.get(LE), 0);
        }
    }

    #[test]
    fn what_cannot_be_added_to_is_said_to_be_so() {
        let sections = [Section::new(".linux", b"kernel".to_vec())];
        let refused = |stub: &[u8]| append(stub, &sections).err().map(|error| error.to_string());

        let mut signed = stub(4096, 0x400, b"");
        signed[0x98 + 112 + 4 * 8] = 8; // place and size of the security directory
        signed[0x98 + 112 + 4 * 8 + 4] = 8;
        assert!(refused(&signed).is_some_and(|words| words.contains("signed")));
        let full = stub(4096, 0x188 + 80, b"");
        assert!(refused(&full).is_some_and(|words| words.contains("no room")));
        let whole = append(&stub(4096, 0x400, b""), &sections).unwrap();
        assert!(refused(&whole).is_some_and(|words| words.contains("a kernel already")));
        let whole = stub(4096, 0x400, b"");
        for length in 0..0x188 + 80 {
            assert!(append(&whole[..length], &sections).is_err(), "{length}");
        }
    }

    #[test]
    fn a_kernel_for_another_machine_than_the_stub_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut arm = stub(4096, 0x400, b"");
        arm[0x84..0x86].copy_from_slice(&IMAGE_FILE_MACHINE_ARM64.to_le_bytes());
        fs::write(path("vmlinuz"), &arm).unwrap();
        fs::write(path("stub"), stub(4096, 0x400, b"")).unwrap();
        fs::write(path("initrd"), b"archive").unwrap();
        let uki = Uki {
            kernel: path("vmlinuz"),
            initramfs: vec![path("initrd"), path("initrd")],
            cmdline: "root=dhcp".to_owned(),
            stub: Some(path("stub")),
            output: path("out.efi"),
        };
        let words = format!("{:#}", unify(&uki).unwrap_err());
        assert!(words.contains("stub is for x86_64") && words.contains("for aarch64"), "{words}");
        let words =
            format!("{:#}", unify(&Uki { kernel: path("initrd"), ..uki.clone() }).unwrap_err());
        assert!(words.contains("CONFIG_EFI_STUB"), "{words}");

        let done = unify(&Uki { stub: Some(path("vmlinuz")), ..uki }).unwrap();
        let image = fs::read(path("out.efi")).unwrap();
        assert_eq!(image.len() as u64, done);
        assert!(image.windows(15).any(|window| window == b"archive\0archive"));
    }
}
