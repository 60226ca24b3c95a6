//! Lines of a report: headings, items, blocks and what is wrapped.

/// Columns of what is wrapped; contents of files are not.
const WIDTH: usize = 96;

/// Text under headings.
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
            self.text.push_str(line);
        }
        self.text.push('\n');
    }

    /// A value behind its label.
    pub fn item(&mut self, label: &str, value: &str) {
        self.line(1, &format!("{label:<15} {value}"));
    }

    /// Lines as they are, deeper.
    pub fn block(&mut self, depth: usize, text: &str) {
        for line in text.lines() {
            self.line(depth, line);
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
