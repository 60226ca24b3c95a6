//! Reading one line of lts.conf from left to right.

/// What ends a bare word (getltscfg's lexer).
pub fn is_special(byte: u8) -> bool {
    matches!(byte, b'=' | b'[' | b']' | b'"' | b'\'' | b'#')
}

/// A place in one line.
pub struct Cursor<'a> {
    pub line: &'a str,
    /// Byte offset, always between characters.
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn rest(&self) -> &'a str {
        self.line.get(self.at..).unwrap_or_default()
    }

    pub fn next(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    /// Past `bytes` of ASCII.
    pub fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.line.len());
    }

    pub fn skip_blanks(&mut self) {
        self.take_while(|byte| byte.is_ascii_whitespace());
    }

    /// `wanted` takes all bytes or none of a character that is not ASCII.
    pub fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.bytes().position(|byte| !wanted(byte)).unwrap_or(rest.len());
        self.skip(end);
        rest.get(..end).unwrap_or_default()
    }

    pub fn take_to(&mut self, end: char) -> &'a str {
        let rest = self.rest();
        let taken = rest.split(end).next().unwrap_or(rest);
        self.skip(taken.len());
        taken
    }

    /// A name, quoted or bare, and the blanks after it.
    pub fn word(&mut self) -> &'a str {
        if self.next() != Some(b'"') {
            return self.take_while(|byte| !is_special(byte)).trim_ascii();
        }
        self.skip(1);
        let word = self.take_to('"');
        self.skip(1);
        self.skip_blanks();
        word
    }

    pub fn at_end(&self) -> bool {
        self.next().is_none_or(|byte| byte == b'#')
    }
}
