//! Characters to tokens: operators, words with all their quoting, and here-documents.
//!
//! Substitutions hold commands, so reading a word may go through the whole grammar again.

use super::Fault;

/// Deeper nesting is nobody's script, and the stack has an end.
const DEEPEST: usize = 100;

pub(super) type Parsed<T> = Result<T, Fault>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    End,
    Newline,
    Operator(&'static str),
    /// `plain`: no quote, no expansion; only such a word can be a keyword or a name.
    Word {
        plain: bool,
    },
}

/// Longest first.
const OPERATORS: &[&str] = &[
    "<<<", "<<-", "&>>", ";;&", ";;", ";&", ";", "&&", "&>", "&", "||", "|&", "|", "(", ")", "<<",
    "<&", "<>", "<", ">>", ">&", ">|", ">",
];

pub(super) struct Reader<'a> {
    text: &'a str,
    /// The next byte to read; always between characters.
    at: usize,
    looked_at: Option<Token>,
    /// Those whose text begins on the next line.
    heredocs: Vec<Heredoc>,
    depth: usize,
    pub doubts: Vec<Fault>,
    /// Set when what follows the text would still belong to something in it.
    pub is_open: bool,
    /// Reading stopped because of [`DEEPEST`].
    pub is_too_deep: bool,
}

struct Heredoc {
    delimiter: String,
    is_quoted: bool,
    strips_tabs: bool,
    token: Token,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    DoubleQuotes,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            looked_at: None,
            heredocs: Vec::new(),
            depth: 0,
            doubts: Vec::new(),
            is_open: false,
            is_too_deep: false,
        }
    }

    pub fn text_of(&self, token: Token) -> &'a str {
        self.text.get(token.start..token.end).unwrap_or_default()
    }

    /// The next token, which stays the next one.
    pub fn peek(&mut self) -> Parsed<Token> {
        if let Some(token) = self.looked_at {
            return Ok(token);
        }
        let token = self.read_token()?;
        self.looked_at = Some(token);
        Ok(token)
    }

    pub fn take(&mut self) -> Parsed<Token> {
        let token = self.peek()?;
        self.looked_at = None;
        Ok(token)
    }

    pub fn peek_operator(&mut self) -> Parsed<Option<&'static str>> {
        Ok(match self.peek()?.kind {
            Kind::Operator(operator) => Some(operator),
            _ => None,
        })
    }

    /// Whether the character right behind the token is `c`.
    pub fn touches(&self, token: Token, c: char) -> bool {
        self.text.get(token.end..).is_some_and(|rest| rest.starts_with(c))
    }

    pub fn doubt(&mut self, token: Token, text: &str, help: Option<&'static str>) {
        self.doubts.push(fault(token, text.to_owned(), help));
    }

    /// Runs `read` one level deeper.
    pub fn deeper<T>(
        &mut self,
        token: Token,
        read: impl FnOnce(&mut Self) -> Parsed<T>,
    ) -> Parsed<T> {
        if self.depth >= DEEPEST {
            self.is_too_deep = true;
            return Err(fault(token, "this is nested too deeply".into(), None));
        }
        self.depth = self.depth.saturating_add(1);
        let result = read(self);
        self.depth = self.depth.saturating_sub(1);
        result
    }

    /// Passes everything up to the parenthesis that closes the one just read, and that one too.
    /// What stands between is not looked into.
    pub fn skip_parentheses(&mut self, opening: Token) -> Parsed<()> {
        self.looked_at = None;
        let mut open: usize = 1;
        let mut quote = None;
        while let Some(c) = self.next() {
            match (c, quote) {
                (_, Some(within)) if c == within => quote = None,
                ('\\', None | Some('"')) => {
                    self.next();
                }
                (_, Some(_)) => {}
                ('\'' | '"' | '`', None) => quote = Some(c),
                ('(', None) => open = open.saturating_add(1),
                (')', None) => {
                    open = open.saturating_sub(1);
                    if open == 0 {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        Err(self.unclosed(opening))
    }

    /// Tries to read `((…))` behind its first parenthesis, and stays where it was otherwise.
    pub fn arithmetic(&mut self, opening: Token) -> bool {
        let before = (self.at, self.is_open, self.is_too_deep);
        self.at = opening.end;
        if self.next_if('(') && self.skip_parentheses(opening).is_ok() && self.next_if(')') {
            return true;
        }
        (self.at, self.is_open, self.is_too_deep) = before;
        false
    }

    /// Puts back the token taken last; what was looked at behind it is read again.
    pub fn untake(&mut self, token: Token) {
        self.at = token.end;
        self.looked_at = Some(token);
    }

    /// Remembers a here-document, whose text begins on the next line.
    pub fn expect_heredoc(&mut self, operator: &str, word: Token) {
        let raw = self.text_of(word);
        let is_quoted = raw.contains(['\'', '"', '\\']);
        let delimiter = raw.replace(['\'', '"', '\\'], "");
        let strips_tabs = operator == "<<-";
        self.heredocs.push(Heredoc { delimiter, is_quoted, strips_tabs, token: word });
    }

    /// At the end of the text: a here-document that has not even begun is open, too.
    pub fn finish(&mut self) {
        for heredoc in std::mem::take(&mut self.heredocs) {
            self.unfinished(&heredoc);
        }
    }

    fn read_token(&mut self) -> Parsed<Token> {
        self.skip_blanks();
        let start = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token { kind: Kind::End, start, end: start });
        };
        if first == '\n' {
            self.at = start.saturating_add(1);
            let token = Token { kind: Kind::Newline, start, end: self.at };
            for heredoc in std::mem::take(&mut self.heredocs) {
                self.read_heredoc(&heredoc)?;
            }
            return Ok(token);
        }
        let substitutes = rest.starts_with("<(") || rest.starts_with(">(");
        // `2>` is one operator; `22>` is a word and an operator to dash.
        let unnumbered = rest.strip_prefix(|c: char| c.is_ascii_digit());
        let unnumbered = unnumbered.filter(|rest| rest.starts_with(['<', '>'])).unwrap_or(rest);
        let operator = unnumbered
            .starts_with([';', '&', '|', '(', ')', '<', '>'])
            .then(|| OPERATORS.iter().find(|operator| unnumbered.starts_with(**operator)))
            .flatten();
        if !substitutes && let Some(operator) = operator {
            let digits = rest.len().saturating_sub(unnumbered.len());
            self.at = start.saturating_add(digits).saturating_add(operator.len());
            return Ok(Token { kind: Kind::Operator(operator), start, end: self.at });
        }
        self.read_word(start, substitutes)
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            if let Some(after) = rest.strip_prefix("\\\n") {
                self.at = self.text.len().saturating_sub(after.len());
                self.is_open |= after.is_empty();
            } else if rest.starts_with([' ', '\t', '\r']) {
                self.at = self.at.saturating_add(1);
            } else if rest.starts_with('#') {
                let length = rest.find('\n').unwrap_or(rest.len());
                self.at = self.at.saturating_add(length);
            } else {
                return;
            }
        }
    }

    fn read_word(&mut self, start: usize, substitutes: bool) -> Parsed<Token> {
        let mut plain = true;
        if substitutes {
            plain = false;
            self.at = start.saturating_add(2);
            let token = Token { kind: Kind::Word { plain }, start, end: self.at };
            let help = Some("write to a file, or use a pipe or a here-document");
            self.doubt(token, "dash has no process substitution", help);
            self.commands(token)?;
        }
        while let Some(c) = self.rest().chars().next() {
            if is_blank(c) || "\n;&|<>()".contains(c) {
                break;
            }
            let before = self.at;
            self.at = self.at.saturating_add(c.len_utf8());
            plain &= !matches!(c, '\\' | '\'' | '"' | '`' | '$');
            self.inside_word(c, Inside::Nothing, before)?;
        }
        Ok(Token { kind: Kind::Word { plain }, start, end: self.at })
    }

    /// Goes on behind `c`, which stood at `start`, to the end of whatever it opens.
    fn inside_word(&mut self, c: char, inside: Inside, start: usize) -> Parsed<()> {
        if !matches!(c, '\\' | '\'' | '"' | '`' | '$') {
            return Ok(());
        }
        self.deeper(self.token_to_here(start), |reader| reader.opened(c, inside, start))
    }

    fn opened(&mut self, c: char, inside: Inside, start: usize) -> Parsed<()> {
        match c {
            '\\' => {
                // A backslash at the very end continues with the next line.
                let escaped = self.next();
                let at_end = self.rest().is_empty();
                self.is_open |= escaped.is_none() || escaped == Some('\n') && at_end;
            }
            '\'' if inside == Inside::Nothing => {
                self.until(start, |_, c, _| Ok(c == '\''))?;
            }
            '"' => self.double_quotes(start)?,
            '`' => self.backquotes(start, inside)?,
            '$' => self.dollar(start, inside)?,
            _ => {}
        }
        Ok(())
    }

    fn double_quotes(&mut self, start: usize) -> Parsed<()> {
        self.until(start, |reader, c, at| match c {
            '"' => Ok(true),
            c => reader.inside_word(c, Inside::DoubleQuotes, at).map(|()| false),
        })
    }

    /// Reads on until `is_end` says so; what opened at `start` is unclosed otherwise.
    fn until(
        &mut self,
        start: usize,
        mut is_end: impl FnMut(&mut Self, char, usize) -> Parsed<bool>,
    ) -> Parsed<()> {
        let opening = self.token_to_here(start);
        loop {
            let at = self.at;
            match self.next() {
                None => return Err(self.unclosed(opening)),
                Some(c) => {
                    if is_end(self, c, at)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn dollar(&mut self, start: usize, inside: Inside) -> Parsed<()> {
        if self.next_if('(') {
            let opening = self.token_to_here(start);
            let first = Token { end: self.at, ..opening };
            if self.arithmetic(first) {
                return Ok(());
            }
            return self.commands(opening);
        }
        if self.next_if('{') {
            return self.parameter(start, inside);
        }
        if inside == Inside::Nothing && self.next_if('\'') {
            let token = self.token_to_here(start);
            self.doubt(token, "dash has no $'…'", Some("printf '…' knows \\n and the like"));
            return self.until(start, |reader, c, _| {
                if c == '\\' {
                    reader.next();
                }
                Ok(c == '\'')
            });
        }
        Ok(())
    }

    /// `${…}`, behind the brace.
    fn parameter(&mut self, start: usize, inside: Inside) -> Parsed<()> {
        let rest = self.rest();
        let (parameter, length_of) = match rest.strip_prefix('#') {
            Some(after) if !after.starts_with(['}', ':', '-', '=', '?', '+', '#', '%']) => {
                (after, true)
            }
            _ => (rest, false),
        };
        let name = match parameter.find(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            // One of `@*#?-$!`.
            Some(0) => parameter.chars().next().map_or(0, char::len_utf8),
            Some(end) => end,
            None => parameter.len(),
        };
        let operator = parameter.get(name..).unwrap_or_default();
        let is_known = operator.starts_with(['}', '-', '=', '?', '+', '#', '%'])
            || [":-", ":=", ":?", ":+"].iter().any(|known| operator.starts_with(known))
            || operator.is_empty();
        let indirect = parameter.starts_with('!') && !operator.starts_with('}');
        if (!is_known || indirect || length_of && !operator.starts_with('}'))
            && !parameter.starts_with('}')
        {
            let token = Token { end: self.at.saturating_add(name), ..self.token_to_here(start) };
            let help = Some("it knows ${X:-…} and its kin, ${X#…} and ${X%…}; sed does the rest");
            self.doubt(token, "dash calls this a bad substitution, and stops there", help);
        }
        // Single quotes are only quotes here where the word is a pattern.
        let word_is_pattern = operator.starts_with(['#', '%']);
        let inside = if word_is_pattern { Inside::Nothing } else { inside };
        self.until(start, |reader, c, at| match c {
            '}' => Ok(true),
            c => reader.inside_word(c, inside, at).map(|()| false),
        })
    }

    /// `$(…)` behind its parenthesis.
    fn commands(&mut self, opening: Token) -> Parsed<()> {
        let outer = std::mem::take(&mut self.heredocs);
        let outer_token = self.looked_at.take();
        self.list()?;
        let end = self.take()?;
        match end.kind {
            Kind::Operator(")") => {}
            Kind::End => return Err(self.unclosed(opening)),
            _ => return Err(self.unexpected(end)),
        }
        self.finish();
        (self.heredocs, self.looked_at) = (outer, outer_token);
        Ok(())
    }

    /// The text between is unescaped, and a script of its own.
    fn backquotes(&mut self, start: usize, inside: Inside) -> Parsed<()> {
        let mut script = String::new();
        let mut places = Vec::new();
        let opening = self.token_to_here(start);
        loop {
            let mut at = self.at;
            let mut c = match self.next() {
                None => return Err(self.unclosed(opening)),
                Some('`') => break,
                Some(c) => c,
            };
            if c == '\\' {
                let escaped = self.rest().chars().next();
                let loses_it = matches!(escaped, Some('\\' | '`' | '$'))
                    || escaped == Some('"') && inside == Inside::DoubleQuotes;
                if loses_it && let Some(escaped) = self.next() {
                    at = at.saturating_add(1);
                    c = escaped;
                }
            }
            script.push(c);
            places.extend(std::iter::repeat_n(at, c.len_utf8()));
        }
        let end = self.at;
        let place = |at: usize| places.get(at).copied().unwrap_or(end);
        let mut reader = Reader { depth: self.depth, ..Reader::new(&script) };
        let token = self.token_to_here(start);
        let result = reader.deeper(token, |reader| reader.program());
        for doubt in reader.doubts {
            self.doubts.push(Fault { at: place(doubt.at), ..doubt });
        }
        match result {
            Ok(_) => Ok(()),
            Err(error) => Err(Fault { at: place(error.at), ..error }),
        }
    }

    fn read_heredoc(&mut self, heredoc: &Heredoc) -> Parsed<()> {
        loop {
            let rest = self.rest();
            if rest.is_empty() {
                self.unfinished(heredoc);
                return Ok(());
            }
            let line = rest.split('\n').next().unwrap_or(rest);
            let stripped = if heredoc.strips_tabs { line.trim_start_matches('\t') } else { line };
            if stripped == heredoc.delimiter {
                self.at = self.at.saturating_add(line.len());
                self.next_if('\n');
                return Ok(());
            }
            while let Some(c) = self.rest().chars().next() {
                let before = self.at;
                self.next();
                match c {
                    '\n' => break,
                    '\\' | '$' | '`' if !heredoc.is_quoted => {
                        self.inside_word(c, Inside::DoubleQuotes, before)?;
                    }
                    _ => {}
                }
            }
        }
    }

    fn unfinished(&mut self, heredoc: &Heredoc) {
        self.is_open = true;
        let text = format!("no line {:?} ends this here-document", heredoc.delimiter);
        self.doubts.push(fault(heredoc.token, text, None));
    }

    /// An error at whatever was opened and has no end.
    pub fn unclosed(&mut self, opening: Token) -> Fault {
        self.is_open = true;
        let text = format!("{} is not closed", quoted(self.text_of(opening)));
        fault(opening, text, None)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at = self.at.saturating_add(c.len_utf8());
        Some(c)
    }

    fn next_if(&mut self, c: char) -> bool {
        let there = self.rest().starts_with(c);
        if there {
            self.next();
        }
        there
    }

    fn token_to_here(&self, start: usize) -> Token {
        Token { kind: Kind::Word { plain: false }, start, end: self.at }
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

pub(super) fn fault(token: Token, text: String, help: Option<&'static str>) -> Fault {
    let length = token.end.saturating_sub(token.start);
    Fault { at: token.start, length, text, help }
}

/// A piece of script in a sentence: shortened, in backquotes.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 24;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", text.get(..end).unwrap_or_default()),
        None if text == "`" => "the backquote".to_owned(),
        None => format!("`{text}`"),
    }
}
