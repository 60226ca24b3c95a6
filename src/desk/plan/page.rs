//! Lines of a report: headings, items, blocks and what is wrapped.

use super::secrets::hidden_in_line;

/// Columns of what is wrapped; contents of files are not.
const WIDTH: usize = 96;

/// Text under headings. A terminal obeys what it is sent, and a lease or a configuration may be
/// anybody's: no control character but the tab gets in.
#[derive(Default)]
pub struct Page {
    pub text: String,
}

impl Page {
    pub fn heading(&mut self, heading: &str) {
        self.text.push('\n');
        self.line(0, heading);
    }

    /// `depth` steps of two blanks; a line of nothing stays empty.
    pub fn line(&mut self, depth: usize, line: &str) {
        if !line.is_empty() {
            self.text.extend(std::iter::repeat_n("  ", depth));
            let safe = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
            self.text.extend(line.chars().map(safe));
        }
        self.text.push('\n');
    }

    /// A value behind its label.
    pub fn item(&mut self, label: &str, value: &str) {
        self.line(1, &format!("{label:<15} {value}"));
    }

    /// Lines of a file, without secrets, deeper.
    pub fn block(&mut self, depth: usize, text: &str) {
        for line in text.lines() {
            self.line(depth, &hidden_in_line(line));
        }
    }

    /// Words, as many on a line as fit.
    pub fn wrapped<'a>(&mut self, depth: usize, words: impl IntoIterator<Item = &'a str>) {
        let room = WIDTH.saturating_sub(depth.saturating_mul(2));
        let mut line = String::new();
        for word in words {
            let length = line.chars().count().saturating_add(word.chars().count());
            if !line.is_empty() && length >= room {
                self.line(depth, &line);
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            self.line(depth, &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_would_obey_gets_in() {
        let mut page = Page::default();
        page.item("search list", "a\x1b]0;x\x07b");
        page.heading("x\r\n\u{9b}1m");
        page.block(1, "a\tb\r\n\x1bc");
        page.wrapped(1, ["\x08d"]);
        let expected = "  search list     a\u{fffd}]0;x\u{fffd}b\n\nx\u{fffd}\u{fffd}\u{fffd}1m\n  a\tb\n  \u{fffd}c\n  \u{fffd}d\n";
        assert_eq!(page.text, expected);
    }
}
