//! Tokens to commands. Nothing is kept: a text is a script or it is not.

use super::Fault;
use super::lexer::{Kind, Parsed, Reader, Token, fault, quoted};

/// Keywords that end a list, or part of one.
const CLOSERS: &[&str] = &["then", "else", "elif", "fi", "do", "done", "esac", "}"];

impl<'a> Reader<'a> {
    /// A whole script; gives the number of its commands.
    pub fn program(&mut self) -> Parsed<usize> {
        let commands = self.list()?;
        let token = self.take()?;
        if token.kind != Kind::End {
            return Err(self.unexpected(token));
        }
        self.finish();
        Ok(commands)
    }

    /// Commands up to something that cannot begin one; gives their number.
    pub fn list(&mut self) -> Parsed<usize> {
        let mut commands: usize = 0;
        loop {
            self.newlines()?;
            let token = self.peek()?;
            let at_end = match token.kind {
                Kind::End | Kind::Operator(")" | ";;" | ";&" | ";;&") => true,
                _ => self.keyword(token).is_some_and(|word| CLOSERS.contains(&word)),
            };
            if at_end {
                return Ok(commands);
            }
            self.and_or()?;
            commands = commands.saturating_add(1);
            match self.peek()?.kind {
                Kind::Operator(";" | "&") => {
                    self.take()?;
                }
                Kind::Newline => {}
                // After `( a )`, a keyword may follow at once; who asked for the list knows which.
                _ => return Ok(commands),
            }
        }
    }

    fn and_or(&mut self) -> Parsed<()> {
        loop {
            self.pipeline()?;
            let Some("&&" | "||") = self.peek_operator()? else { return Ok(()) };
            self.take()?;
            self.newlines()?;
        }
    }

    fn pipeline(&mut self) -> Parsed<()> {
        let token = self.peek()?;
        if self.keyword(token) == Some("!") {
            self.take()?;
        }
        loop {
            self.command()?;
            match self.peek_operator()? {
                Some("|") => {}
                Some("|&") => {
                    let token = self.peek()?;
                    self.doubt(token, "dash has no |&", Some("write 2>&1 |"));
                }
                _ => return Ok(()),
            }
            self.take()?;
            self.newlines()?;
        }
    }

    fn command(&mut self) -> Parsed<()> {
        let token = self.peek()?;
        self.deeper(token, |reader| reader.shallow_command(token))
    }

    fn shallow_command(&mut self, token: Token) -> Parsed<()> {
        match token.kind {
            Kind::Operator("(") => {
                self.take()?;
                self.subshell(token)?;
            }
            Kind::Operator(operator) if is_redirection(operator) => return self.simple(),
            Kind::Word { .. } => match self.keyword(token) {
                Some("if") => self.conditional()?,
                Some("while" | "until") => {
                    self.take()?;
                    self.compound_list(token)?;
                    self.loop_body(token)?;
                }
                Some("for") => self.for_loop()?,
                Some("case") => self.case()?,
                Some("{") => {
                    self.take()?;
                    self.compound_list(token)?;
                    self.require("}", token)?;
                }
                Some("select") if self.is_select()? => {}
                Some("function") if self.is_function()? => {}
                Some("[[") => self.double_brackets()?,
                Some("!" | "in") => return Err(self.unexpected(token)),
                Some(word) if CLOSERS.contains(&word) => return Err(self.unexpected(token)),
                _ => return self.simple(),
            },
            Kind::Operator(_) | Kind::End | Kind::Newline => return Err(self.unexpected(token)),
        }
        while self.redirection()? {}
        Ok(())
    }

    fn subshell(&mut self, opening: Token) -> Parsed<()> {
        if self.touches(opening, '(') && self.arithmetic(opening) {
            let help = Some("write [ \"$X\" -gt 1 ], or : $((X += 1))");
            self.doubt(opening, "dash reads ((…)) as two subshells", help);
            return Ok(());
        }
        self.compound_list(opening)?;
        let closing = self.take()?;
        match closing.kind {
            Kind::Operator(")") => Ok(()),
            Kind::End => Err(self.unclosed(opening)),
            _ => Err(self.unexpected(closing)),
        }
    }

    fn conditional(&mut self) -> Parsed<()> {
        let opening = self.take()?;
        self.compound_list(opening)?;
        self.require("then", opening)?;
        self.compound_list(opening)?;
        loop {
            let token = self.peek()?;
            match self.keyword(token) {
                Some("elif") => {
                    self.take()?;
                    self.compound_list(token)?;
                    self.require("then", token)?;
                    self.compound_list(opening)?;
                }
                Some("else") => {
                    self.take()?;
                    self.compound_list(opening)?;
                    return self.require("fi", opening);
                }
                _ => return self.require("fi", opening),
            }
        }
    }

    fn for_loop(&mut self) -> Parsed<()> {
        let opening = self.take()?;
        let name = self.take()?;
        if name.kind == Kind::Operator("(") && self.touches(name, '(') && self.arithmetic(name) {
            self.doubt(opening, "dash has no for ((…))", Some("write for i in $(seq 1 10)"));
            if self.peek_operator()? == Some(";") {
                self.take()?;
            }
            return self.loop_body(opening);
        }
        self.loop_over_words(opening, name)
    }

    /// `NAME [in WORD…]; do … done`, behind the name.
    fn loop_over_words(&mut self, opening: Token, name: Token) -> Parsed<()> {
        match name.kind {
            Kind::End => return Err(self.unfinished_command(opening)),
            _ if is_name(self.plain(name)) => {}
            _ => {
                let text = format!("{} cannot be a loop's variable", quoted(self.text_of(name)));
                return Err(fault(name, text, None));
            }
        }
        if self.peek_operator()? == Some(";") {
            self.take()?;
            return self.loop_body(opening);
        }
        self.newlines()?;
        let token = self.peek()?;
        if self.keyword(token) != Some("in") {
            return self.loop_body(opening);
        }
        self.take()?;
        while let Kind::Word { .. } = self.peek()?.kind {
            self.take()?;
        }
        let end = self.peek()?;
        match end.kind {
            Kind::Operator(";") => {
                self.take()?;
            }
            Kind::Newline => {}
            Kind::End => return Err(self.unfinished_command(opening)),
            _ => return Err(self.unexpected(end)),
        }
        self.loop_body(opening)
    }

    fn loop_body(&mut self, opening: Token) -> Parsed<()> {
        self.newlines()?;
        self.require("do", opening)?;
        self.compound_list(opening)?;
        self.require("done", opening)
    }

    fn case(&mut self) -> Parsed<()> {
        let opening = self.take()?;
        self.word(opening)?;
        self.newlines()?;
        self.require("in", opening)?;
        loop {
            self.newlines()?;
            let token = self.peek()?;
            if self.keyword(token) == Some("esac") {
                self.take()?;
                return Ok(());
            }
            if token.kind == Kind::Operator("(") {
                self.take()?;
            }
            self.word(opening)?;
            while self.peek_operator()? == Some("|") {
                self.take()?;
                self.word(opening)?;
            }
            let closing = self.take()?;
            match closing.kind {
                Kind::Operator(")") => {}
                Kind::End => return Err(self.unfinished_command(opening)),
                _ => return Err(self.unexpected(closing)),
            }
            self.list()?;
            let end = self.peek()?;
            match end.kind {
                Kind::Operator(";;") => {
                    self.take()?;
                }
                Kind::Operator(";&" | ";;&") => {
                    self.take()?;
                    self.doubt(end, "dash knows only ;; at the end of a case", None);
                }
                _ => return self.require("esac", opening),
            }
        }
    }

    /// bash's `select`; elsewhere it is a command like any other.
    fn is_select(&mut self) -> Parsed<bool> {
        let opening = self.take()?;
        let name = self.peek()?;
        if !is_name(self.plain(name)) {
            self.untake(opening);
            return Ok(false);
        }
        self.take()?;
        self.doubt(opening, "dash has no select", None);
        self.loop_over_words(opening, name)?;
        Ok(true)
    }

    /// `function NAME [()] COMMAND`.
    fn is_function(&mut self) -> Parsed<bool> {
        let opening = self.take()?;
        let Kind::Word { .. } = self.peek()?.kind else {
            self.untake(opening);
            return Ok(false);
        };
        self.take()?;
        self.doubt(opening, "dash has no `function`", Some("write NAME() { …; }"));
        if self.peek_operator()? == Some("(") {
            self.take()?;
            let closing = self.take()?;
            if closing.kind != Kind::Operator(")") {
                return Err(self.unexpected(closing));
            }
        }
        self.newlines()?;
        self.command()?;
        Ok(true)
    }

    fn double_brackets(&mut self) -> Parsed<()> {
        let opening = self.take()?;
        self.doubt(opening, "dash has no [[", Some("write [ … ], with all variables quoted"));
        loop {
            let token = self.take()?;
            if token.kind == Kind::End {
                return Err(self.unclosed(opening));
            }
            if self.plain(token) == "]]" {
                return Ok(());
            }
        }
    }

    /// Assignments, words and redirections; or the definition of a function.
    fn simple(&mut self) -> Parsed<()> {
        let mut command: Option<Token> = None;
        let first = self.peek()?;
        loop {
            if self.redirection()? {
                continue;
            }
            let token = self.peek()?;
            let Kind::Word { .. } = token.kind else {
                return match token.kind {
                    Kind::Operator("(") => Err(self.unexpected(token)),
                    _ => Ok(()),
                };
            };
            self.take()?;
            if command.is_none() && is_assignment(self.text_of(token)) {
                if self.touches(token, '(') && self.text_of(token).ends_with('=') {
                    let array = self.take()?;
                    self.skip_parentheses(array)?;
                    let help = Some("use \"$@\" with set --, or a blank-separated list");
                    self.doubt(token, "dash has no arrays", help);
                }
                continue;
            }
            match command {
                None => {
                    if token == first && self.peek_operator()? == Some("(") {
                        return self.function(token);
                    }
                    self.doubt_command(token);
                    command = Some(token);
                }
                Some(command) => {
                    let is_test = matches!(self.plain(command), "[" | "test");
                    if is_test && self.plain(token) == "==" {
                        self.doubt(token, "the test command of dash has no ==", Some("write ="));
                    }
                }
            }
        }
    }

    /// `NAME() COMMAND`, behind the name.
    fn function(&mut self, name: Token) -> Parsed<()> {
        let opening = self.take()?;
        if self.take()?.kind != Kind::Operator(")") {
            return Err(self.unexpected(opening));
        }
        if !is_name(self.plain(name)) {
            let text = format!("{} cannot be a function's name", quoted(self.text_of(name)));
            return Err(fault(name, text, None));
        }
        self.newlines()?;
        self.command()
    }

    fn doubt_command(&mut self, token: Token) {
        let help = match self.plain(token) {
            "source" => Some("write . FILE"),
            "declare" | "typeset" => Some("write NAME=value"),
            "pushd" | "popd" => Some("write ( cd DIRECTORY && … )"),
            "shopt" | "let" | "mapfile" | "readarray" => None,
            _ => return,
        };
        self.doubt(token, "dash has no such command", help);
    }

    /// Whether there was one.
    fn redirection(&mut self) -> Parsed<bool> {
        let token = self.peek()?;
        let Kind::Operator(operator) = token.kind else { return Ok(false) };
        if !is_redirection(operator) {
            return Ok(false);
        }
        self.take()?;
        let target = self.peek()?;
        let Kind::Word { .. } = target.kind else {
            let text = format!("{} needs a word behind it", quoted(operator));
            return Err(fault(token, text, None));
        };
        self.take()?;
        match operator {
            "<<" | "<<-" => self.expect_heredoc(operator, target),
            "<<<" => self.doubt(token, "dash has no <<<", Some("write printf '%s\\n' … |")),
            "&>" | "&>>" => {
                let text = "dash reads this as & and then >, and goes on without waiting";
                self.doubt(token, text, Some("write >FILE 2>&1"));
            }
            ">&" | "<&" => {
                let to = self.plain(target);
                if !to.is_empty() && to != "-" && !to.bytes().all(|byte| byte.is_ascii_digit()) {
                    self.doubt(target, "dash wants a number here", Some("write >FILE 2>&1"));
                }
            }
            _ => {}
        }
        Ok(true)
    }

    /// A list with something in it.
    fn compound_list(&mut self, opening: Token) -> Parsed<()> {
        if self.list()? > 0 {
            return Ok(());
        }
        let token = self.peek()?;
        match token.kind {
            Kind::End => Err(self.unfinished_command(opening)),
            _ => {
                let text = format!("a command is missing before {}", self.name_of(token));
                Err(fault(token, text, None))
            }
        }
    }

    fn word(&mut self, opening: Token) -> Parsed<()> {
        let token = self.take()?;
        match token.kind {
            Kind::Word { .. } => Ok(()),
            Kind::End => Err(self.unfinished_command(opening)),
            _ => Err(self.unexpected(token)),
        }
    }

    /// Takes `keyword`, which belongs to the one at `opening`.
    fn require(&mut self, keyword: &str, opening: Token) -> Parsed<()> {
        let token = self.take()?;
        if self.keyword(token) == Some(keyword) {
            return Ok(());
        }
        let opened = quoted(self.text_of(opening));
        if token.kind == Kind::End {
            return Err(fault(opening, format!("{opened} without {}", quoted(keyword)), None));
        }
        let found = self.name_of(token);
        let text = format!("{} of {opened} is missing before {found}", quoted(keyword));
        Err(fault(token, text, None))
    }

    fn newlines(&mut self) -> Parsed<()> {
        while self.peek()?.kind == Kind::Newline {
            self.take()?;
        }
        Ok(())
    }

    /// The end of the text came too early for the command that begins at `opening`.
    fn unfinished_command(&self, opening: Token) -> Fault {
        fault(opening, format!("{} has no end", quoted(self.text_of(opening))), None)
    }

    pub fn unexpected(&self, token: Token) -> Fault {
        let text = match self.plain(token) {
            "then" | "elif" | "else" | "fi" => "without an `if`",
            "do" | "done" => "without a loop",
            "esac" => "without a `case`",
            "}" => "without a `{`",
            _ => match token.kind {
                Kind::Operator(")") => "without a `(`",
                Kind::Operator(";;") => "without a `case`",
                Kind::End => {
                    return fault(token, "a command is missing at the end".into(), None);
                }
                _ => "cannot stand here",
            },
        };
        fault(token, format!("{} {text}", self.name_of(token)), None)
    }

    fn name_of(&self, token: Token) -> String {
        match token.kind {
            Kind::Newline => "the end of the line".to_owned(),
            Kind::End => "the end".to_owned(),
            _ => quoted(self.text_of(token)),
        }
    }

    /// The word as a keyword would be written.
    fn keyword(&self, token: Token) -> Option<&'a str> {
        Some(self.plain(token)).filter(|word| !word.is_empty())
    }

    /// A word's text if nothing in it is quoted or expanded, else nothing.
    fn plain(&self, token: Token) -> &'a str {
        match token.kind {
            Kind::Word { plain: true } => self.text_of(token),
            _ => "",
        }
    }
}

fn is_redirection(operator: &str) -> bool {
    operator.starts_with(['<', '>']) || matches!(operator, "&>" | "&>>")
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| is_name(name.strip_suffix('+').unwrap_or(name)))
}
