//! depmod's binary index files (`modules.dep.bin` and its kind), for images of which the text files
//! were left out, as mkinitcpio does.
//!
//! A trie in big-endian numbers (kmod's libkmod-index.c, version 2.1): a node's offset says in its
//! upper bits whether a prefix, children and values follow.

/// The longest key, and so the deepest trie, that is believed; real ones have some 150 bytes. What
/// waits to be visited is at most a node's 255 children for each letter: some 30 MB.
const LONGEST: usize = 512;
/// More than all keys with all their values have in any kernel, in bytes of memory.
const LARGEST: usize = 64 << 20;
/// What an entry costs besides its letters.
const ENTRY: usize = size_of::<(String, String)>();
/// More nodes, and more values of one, than any kernel has; a damaged file may lead in circles.
const MOST: usize = 1 << 18;

const MAGIC: u32 = 0xb007_f457;
const MAJOR_VERSION: u32 = 2;
const PREFIX: u32 = 0x8000_0000;
const VALUES: u32 = 0x4000_0000;
const CHILDREN: u32 = 0x2000_0000;
const OFFSET: u32 = 0x0fff_ffff;

/// All keys with their values, in no particular order; none if this is no such file. What is
/// damaged ends the list early.
pub fn entries(file: &[u8]) -> Vec<(String, String)> {
    let mut header = Cursor { rest: file };
    let (magic, version, root) = (header.number(), header.number(), header.number());
    let mut found = Vec::new();
    if magic != Some(MAGIC) || version.is_none_or(|version| version >> 16 != MAJOR_VERSION) {
        return found;
    }
    let mut open: Vec<(u32, Vec<u8>)> = root.map(|root| (root, Vec::new())).into_iter().collect();
    let (mut visited, mut room) = (0_usize, LARGEST);
    while let Some((offset, mut key)) = open.pop() {
        visited = visited.saturating_add(1);
        let at = usize::try_from(offset & OFFSET).unwrap_or(usize::MAX);
        let Some(rest) = file.get(at..) else { continue };
        if visited > MOST {
            break;
        }
        let mut node = Cursor { rest };
        let read = node.read(offset, &mut key, &mut open, &mut found, &mut room);
        if read.is_none() {
            break;
        }
    }
    found
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn read(
        &mut self,
        offset: u32,
        key: &mut Vec<u8>,
        open: &mut Vec<(u32, Vec<u8>)>,
        found: &mut Vec<(String, String)>,
        room: &mut usize,
    ) -> Option<()> {
        if offset & PREFIX != 0 {
            key.extend_from_slice(self.text()?);
        }
        if key.len() > LONGEST {
            return None;
        }
        if offset & CHILDREN != 0 {
            let (first, last) = (self.byte()?, self.byte()?);
            for byte in first..=last {
                let child = self.number()?;
                if child != 0 {
                    let mut longer = key.clone();
                    longer.push(byte);
                    open.push((child, longer));
                }
            }
        }
        if offset & VALUES != 0 {
            let key = String::from_utf8_lossy(key).into_owned();
            for _ in 0..self.number()?.min(MOST as u32) {
                let _priority = self.number()?;
                let value = String::from_utf8_lossy(self.text()?).into_owned();
                let letters = key.len().saturating_add(value.len());
                *room = room.checked_sub(letters.saturating_add(ENTRY))?;
                found.push((key.clone(), value));
            }
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u32> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    /// Up to its zero byte.
    fn text(&mut self) -> Option<&[u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let (text, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest.get(1..)?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `nb` -> `d` (kernel/nbd.ko:) and `t` (kernel/nbt.ko: kernel/nbd.ko), laid out as depmod does:
    /// children before their parents.
    fn file() -> Vec<u8> {
        let mut file = [&MAGIC.to_be_bytes()[..], &0x0002_0001_u32.to_be_bytes(), &[0; 4]].concat();
        let leaf = |file: &mut Vec<u8>, value: &str| {
            let at = u32::try_from(file.len()).unwrap() | VALUES;
            file.extend([0, 0, 0, 1, 0, 0, 0, 0]);
            file.extend(value.bytes().chain([0]));
            at
        };
        let d = leaf(&mut file, "kernel/nbd.ko:");
        let t = leaf(&mut file, "kernel/nbt.ko: kernel/nbd.ko");
        let root = u32::try_from(file.len()).unwrap() | PREFIX | CHILDREN;
        file.extend(b"nb\0dt");
        for letter in b'd'..=b't' {
            let child = match letter {
                b'd' => d,
                b't' => t,
                _ => 0,
            };
            file.extend(child.to_be_bytes());
        }
        file[8..12].copy_from_slice(&root.to_be_bytes());
        file
    }

    #[test]
    fn keys_are_put_together_from_their_letters() {
        let mut found = entries(&file());
        found.sort();
        let expected = [("nbd", "kernel/nbd.ko:"), ("nbt", "kernel/nbt.ko: kernel/nbd.ko")];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(entries(b"kernel/nbd.ko:\n"), []);
        // A root that is its own child.
        let mut circle = [&MAGIC.to_be_bytes()[..], &[0, 2, 0, 1], &[0x60, 0, 0, 12]].concat();
        circle.extend([b'a', b'a', 0x60, 0, 0, 12, 0, 0, 0, 0]);
        assert_eq!(entries(&circle), []);
    }

    /// One node that is its own two children and has a thousand values of no length.
    #[test]
    fn a_damaged_file_does_not_fill_the_memory() {
        let root = (VALUES | CHILDREN | 12).to_be_bytes();
        let mut file = [&MAGIC.to_be_bytes()[..], &[0, 2, 0, 1], &root].concat();
        file.extend([b'a', b'b'].into_iter().chain(root).chain(root));
        file.extend([&1000_u32.to_be_bytes()[..], &[0; 5000]].concat());
        let found = entries(&file);
        assert!(!found.is_empty() && found.len() <= LARGEST / ENTRY, "{}", found.len());
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(at in 0_usize..120, byte: u8, cut in 0_usize..160) {
            let mut file = file();
            file.truncate(cut);
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
            let _ = entries(&file);
        }
    }
}
