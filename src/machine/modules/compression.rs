//! Module files that somebody else compressed: dracut and initramfs-tools images carry them so. Our
//! own image builder stores modules uncompressed, which loads faster and packs no worse.

use std::io::Read;
use std::path::Path;

use crate::error::{Cause, Error, Result};

/// Bytes a module may have once decompressed; the largest of a stock kernel has some 20 MiB.
pub const MODULE_LIMIT: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Xz,
    Zstd,
    Gzip,
}

impl Compression {
    /// By file name, as modprobe does; `None` is a plain file.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "xz" => Some(Self::Xz),
            "zst" => Some(Self::Zstd),
            "gz" => Some(Self::Gzip),
            _ => None,
        }
    }

    /// Whether `/sys/module/compression` names this algorithm, so that `finit_module(2)` takes such
    /// files as they are (Linux 5.17, `CONFIG_MODULE_DECOMPRESS`). Kernels until now name one.
    pub fn is_among(self, kernels: &str) -> bool {
        let name = match self {
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        };
        kernels.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == name)
    }

    /// Everything in `packed`, refused above [`MODULE_LIMIT`]: a damaged file must not eat the
    /// machine's memory. `doing` is the caller's sentence for the error.
    pub fn decompress(self, packed: impl Read, doing: impl Fn() -> String) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        let reader = self.reader(packed).map_err(|cause| Error::new(doing(), cause))?;
        reader
            .take(MODULE_LIMIT + 1)
            .read_to_end(&mut plain)
            .map_err(|error| Error::invalid(doing(), format!("damaged file: {error}")))?;
        if plain.len() as u64 > MODULE_LIMIT {
            return Err(Error::invalid(doing(), "more than 64 MiB when decompressed"));
        }
        Ok(plain)
    }

    fn reader<'a>(self, packed: impl Read + 'a) -> Result<Box<dyn Read + 'a>, Cause> {
        match self {
            #[cfg(feature = "codec-xz")]
            Self::Xz => Ok(Box::new(lzma_rust2::XzReader::new(packed, true))),
            #[cfg(feature = "codec-zstd")]
            Self::Zstd => match ruzstd::decoding::StreamingDecoder::new(packed) {
                Ok(decoder) => Ok(Box::new(decoder)),
                Err(error) => Err(Cause::Invalid(format!("damaged file: {error}"))),
            },
            #[cfg(feature = "codec-gz")]
            Self::Gzip => Ok(Box::new(flate2::read::MultiGzDecoder::new(packed))),
            #[allow(unreachable_patterns)]
            _ => {
                drop(packed);
                Err(Cause::Refused(format!("this build of Landfall cannot read {self:?} files")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn the_kernel_is_asked_only_for_what_it_says_it_can() {
        let cases = [
            ("foo.ko",     "xz\n",       None),
            ("foo.ko.xz",  "xz\n",       Some(true)),
            ("foo.ko.zst", "xz\n",       Some(false)),
            ("foo.ko.zst", "xz,zstd\n",  Some(true)), // should kernels ever name several
            ("foo.ko.gz",  "gzip",       Some(true)),
            ("foo.ko.gz",  "",           Some(false)),
        ];
        for (file, kernels, expected) in cases {
            let got = Compression::of(Path::new(file)).map(|c| c.is_among(kernels));
            assert_eq!(got, expected, "{file} on a kernel with {kernels:?}");
        }
    }

    #[cfg(feature = "codec-gz")]
    #[test]
    fn a_file_that_never_ends_is_refused_and_a_damaged_one_too() {
        use std::io::{self, Write};

        let doing = || "reading bomb.ko.gz".to_owned();
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::copy(&mut io::repeat(0).take(MODULE_LIMIT + 4096), &mut packer).unwrap();
        let bomb = packer.finish().unwrap();
        let error = Compression::Gzip.decompress(&*bomb, doing).unwrap_err();
        assert_eq!(error.to_string(), "reading bomb.ko.gz: more than 64 MiB when decompressed");

        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(b"module").unwrap();
        let packed = packer.finish().unwrap();
        assert_eq!(Compression::Gzip.decompress(&*packed, doing).unwrap(), b"module");
        assert!(Compression::Gzip.decompress(&packed[..packed.len() - 4], doing).is_err());
    }

    #[cfg(all(feature = "codec-xz", feature = "codec-zstd"))]
    #[test]
    fn rubbish_is_an_error_in_every_format() {
        for compression in [Compression::Xz, Compression::Zstd, Compression::Gzip] {
            for rubbish in [&b""[..], b"rubbish", &[0; 64]] {
                let result = compression.decompress(rubbish, || "reading".to_owned());
                // Zero frames are a valid, empty stream for some decoders; a module of no bytes is
                // then refused by the kernel.
                assert!(result.is_err() || result.unwrap().is_empty(), "{compression:?}");
            }
        }
    }
}
