//! The table is checked against real shells by an ignored test, and so are scripts made at random
//! from the pieces of the grammar.

use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Every shell takes it.
    Fine,
    /// bash takes it, and dash refuses it or does something else.
    Doubt,
    /// dash says "Syntax error".
    Wrong,
}

use Verdict::{Doubt, Fine, Wrong};

#[rustfmt::skip]
const SCRIPTS: &[(Verdict, &str)] = &[
    (Fine,  ""),
    (Fine,  "# only a comment"),
    (Fine,  "\n\n  \n"),
    (Fine,  "a"),
    (Fine,  "a b c"),
    (Fine,  "a;"),
    (Fine,  "a&"),
    (Fine,  "a; b"),
    (Fine,  "a & b"),
    (Fine,  "a && b || c"),
    (Fine,  "a &&\n\n b"),
    (Fine,  "a | b |\n c"),
    (Fine,  "! a | b"),
    (Fine,  "a#b # c"),
    (Fine,  "a \\\n b"),
    (Fine,  "echo $? $# $* $@ $- $$ $! $0 $1"),
    (Fine,  "X=1"),
    (Fine,  "X=1 Y=2 a"),
    (Fine,  "X= a"),
    (Fine,  ">x"),
    (Fine,  ">x a <y 2>&1 >>z 2>&- <&0 >|q <>r"),
    (Fine,  "a 2>/dev/null"),
    (Fine,  "echo if then else fi do done case esac in { } !"),
    (Fine,  "if a; then b; fi"),
    (Fine,  "if a\nthen b\nelif c\nthen d\nelse e\nfi"),
    (Fine,  "if a; then b; fi > x 2>&1"),
    (Fine,  "if a; then b; fi | c && d"),
    (Fine,  "if ! a; then b; fi"),
    (Fine,  "if (a) then (b) fi"),
    (Fine,  "if { a; } then { b; } fi"),
    (Fine,  "while a; do b; done"),
    (Fine,  "until a; b; do c; done <x"),
    (Fine,  "while read a b; do echo $a; done < /etc/x"),
    (Fine,  "for i in 1 2 3; do a $i; done"),
    (Fine,  "for i in; do a; done"),
    (Fine,  "for i; do a; done"),
    (Fine,  "for i do a; done"),
    (Fine,  "for i\ndo a\ndone"),
    (Fine,  "for i in a b\ndo c\ndone"),
    (Fine,  "for i\nin a; do b; done"),
    (Fine,  "for i in do done in; do a; done"),
    (Fine,  "for i in 1 2; do for j in 3; do a; done; done"),
    (Fine,  "case a in esac"),
    (Fine,  "case a in b) c;; esac"),
    (Fine,  "case a in b) c; esac"),
    (Fine,  "case a in b) ;; esac"),
    (Fine,  "case a in b) esac"),
    (Fine,  "case a in (b) c;; (d|e) f;; *) g; esac"),
    (Fine,  "case $a in\n  b|c)\n    d\n    ;;\n  *)\n    e ;;\nesac"),
    (Fine,  "case \"$a\" in [a-z]*) b;; \"x y\") c;; esac"),
    (Fine,  "case a\nin b) c;; esac"),
    (Fine,  "{ a; }"),
    (Fine,  "{ a\n}"),
    (Fine,  "{ a; } > x"),
    (Fine,  "{a"),
    (Fine,  "(a)"),
    (Fine,  "( a; b ) | c"),
    (Fine,  "(a;)"),
    (Fine,  "((a);(b))"),
    (Fine,  "f() { a; }"),
    (Fine,  "f () { a; }; f"),
    (Fine,  "f()\n{ a; }"),
    (Fine,  "f() ( a )"),
    (Fine,  "f() { a; } > x"),
    (Fine,  "f() if a; then b; fi"),
    (Fine,  "'a b' \"c d\" e\\ f"),
    (Fine,  "echo 'it'\\''s'"),
    (Fine,  "echo \"a \\\" b\""),
    (Fine,  "echo \"a 'b' c\""),
    (Fine,  "echo 'a \"b\" c'"),
    (Fine,  "echo \"two\nlines\""),
    (Fine,  "echo $(a)"),
    (Fine,  "echo $(a; b) \"$(c \"d\")\""),
    (Fine,  "echo $(a $(b $(c)))"),
    (Fine,  "echo $()"),
    (Fine,  "echo $( (a) )"),
    (Fine,  "echo $(case a in b) c;; esac)"),
    (Fine,  "echo $(if a; then b; fi)"),
    (Fine,  "echo $(a # )\n)"),
    (Fine,  "echo $((1 + 2)) $((x * (y + 1)))"),
    (Fine,  "echo \"$((1+2))\""),
    (Fine,  "echo `a`"),
    (Fine,  "echo `a \\`b\\``"),
    (Fine,  "echo \"`a`\" \"`a \\\"b\\\"`\""),
    (Fine,  "echo ``"),
    (Fine,  "echo ${a} ${a:-b} ${a-} ${a:=c d} ${a?e} ${#a} ${a%x*} ${a##*/} ${a%%\"}\"}"),
    (Fine,  "echo ${#} ${?} ${@} ${*} ${!} ${-} ${$} ${1} ${10}"),
    (Fine,  "echo \"${a:-it's}\""),
    (Fine,  "echo ${a:-$(b)} ${a:-${b:-c}} \"${a:-\"x y\"}\""),
    (Fine,  "echo ${a#'}'} \"${a#'}'}\" ${a:-\\}}"),
    (Fine,  "cat <<E\nbody ) ' \" fi\nE\n"),
    (Fine,  "cat <<E\nbody\nE"),
    (Fine,  "cat <<'E'\n$( ` \nE\na"),
    (Fine,  "cat <<-E\n\tbody\n\tE\na"),
    (Fine,  "cat <<A <<B\na\nA\nb\nB\nc"),
    (Fine,  "cat <<E | sort\nb\nE\n"),
    (Fine,  "if a; then cat <<E\nx\nE\nfi"),
    (Fine,  "cat <<E\n$(a) ${b} `c` \\$( \\`\nE\n"),
    (Fine,  "cat <<\"E F\"\nx\nE F\n"),
    (Fine,  "[ \"$a\" = b ] && c"),
    (Fine,  "[ -f /x -a ! -d /y ] || exit 1"),
    (Fine,  "sed -i 's|^a=.*|b=c|' /x; ssh-keygen -A"),
    (Fine,  "sed -e 's/(/[/' \\( \\) "),
    (Fine,  "awk '{print $1}' /x"),
    (Fine,  "mkdir -p /a/{b,c}"),
    (Fine,  "a=b=c"),
    (Fine,  "a $b\"c\"'d'`e`$(f)${g}"),
    (Fine,  "a \\"),
    (Fine,  "fi\\\nx"),
    (Fine,  "\\if a"),
    (Fine,  "'if' a"),
    (Fine,  "X=if a"),
    (Fine,  "a;b;c&d"),
    (Fine,  "set -- a b; for x do echo \"$x\"; done"),
    (Fine,  "trap 'rm -f /x' EXIT"),
    (Fine,  "while :; do a && break; done &"),
    (Fine,  "a <<E && b\nx\nE\nc"),
    (Fine,  "echo a>b"),
    (Fine,  "echo {} \\; } {"),
    (Fine,  "time a"),
    (Wrong, "in a"),
    (Fine,  "echo \u{e9}\u{10d}"),
    (Fine,  "if a; then\n# nothing\nb; fi"),

    (Doubt, "[[ a == b ]]"),
    (Doubt, "[[ -n $a && ( $b < c || $d =~ ^(x|y)$ ) ]] && e"),
    (Doubt, "if [[ -f /x ]]; then a; fi"),
    (Doubt, "[ a == b ]"),
    (Doubt, "test a == b"),
    (Doubt, "a=(1 2 3)"),
    (Doubt, "a+=(4)"),
    (Doubt, "diff <(a) <(b)"),
    (Doubt, "a > >(tee x)"),
    (Doubt, "function f { a; }"),
    (Doubt, "function f() { a; }"),
    (Doubt, "a <<< b"),
    (Doubt, "a &> b"),
    (Doubt, "a &>> b"),
    (Doubt, "a >& b"),
    (Doubt, "a |& b"),
    (Doubt, "((i++))"),
    (Doubt, "((a > 5)) && b"),
    (Doubt, "for ((i=0; i<3; i++)); do a; done"),
    (Doubt, "for ((;;)) do a; done"),
    (Doubt, "select x in a b; do c; done"),
    (Doubt, "case a in b) c;& d) e;;& esac"),
    (Doubt, "echo $'a\\tb'"),
    (Doubt, "echo $'it\\'s'"),
    (Doubt, "source /x"),
    (Doubt, "declare -a x"),
    (Doubt, "pushd /x"),
    (Doubt, "shopt -s nullglob"),
    (Doubt, "echo ${a^^} ${a,,}"),
    (Doubt, "echo ${a/b/c} ${a//b/c}"),
    (Doubt, "echo ${a:1:2}"),
    (Doubt, "echo ${!a}"),
    (Doubt, "echo ${a[0]}"),
    (Doubt, "cat <<E\nnever closed"),

    (Wrong, "if a; then b"),
    (Wrong, "if a; fi"),
    (Wrong, "if a then b; fi"),
    (Wrong, "if; then b; fi"),
    (Wrong, "if a; then fi"),
    (Wrong, "if a; then b; else fi"),
    (Wrong, "if a; then b; elif c; fi"),
    (Wrong, "if a; then b; fi c"),
    (Wrong, "if a; then b; fi fi"),
    (Wrong, "if a; then b; done"),
    (Wrong, "fi"),
    (Wrong, "then"),
    (Wrong, "else"),
    (Wrong, "do a"),
    (Wrong, "done"),
    (Wrong, "esac"),
    (Wrong, "}"),
    (Wrong, ")"),
    (Wrong, ";"),
    (Wrong, "&"),
    (Wrong, ";;"),
    (Wrong, "a;;"),
    (Wrong, "a; ; b"),
    (Wrong, "a & ; b"),
    (Wrong, "&& a"),
    (Wrong, "a &&"),
    (Wrong, "a && && b"),
    (Wrong, "a | | b"),
    (Wrong, "a |"),
    (Wrong, "| a"),
    (Wrong, "a || "),
    (Wrong, "a ! | ) b"),
    (Wrong, "a )"),
    (Wrong, "(a"),
    (Wrong, "()"),
    (Wrong, "( )"),
    (Wrong, "(a) b"),
    (Wrong, "{ a"),
    (Wrong, "{ }"),
    (Wrong, "{ a }"),
    (Wrong, "a (b)"),
    (Wrong, "a b()"),
    (Wrong, "f( { a; }"),
    (Wrong, "f()"),
    (Wrong, "f() }"),
    (Wrong, "a-b() { a; } )"),
    (Wrong, "while a; do b"),
    (Wrong, "while a; b; done"),
    (Wrong, "while a; do done"),
    (Wrong, "while; do a; done"),
    (Wrong, "until a do b; done"),
    (Wrong, "for"),
    (Wrong, "for i"),
    (Wrong, "for i in a b do c; done"),
    (Wrong, "for i in a b; c; done"),
    (Wrong, "for i in a; do done"),
    (Wrong, "for 1 in a; do b; done"),
    (Wrong, "for $i in a; do b; done"),
    (Wrong, "for i j; do b; done"),
    (Wrong, "for i in a & do b; done"),
    (Wrong, "case"),
    (Wrong, "case a"),
    (Wrong, "case a in"),
    (Wrong, "case a in b"),
    (Wrong, "case a in b c) d;; esac"),
    (Wrong, "case a in b) c;;"),
    (Wrong, "case a in b) c;; esac d"),
    (Wrong, "case a b) c;; esac"),
    (Wrong, "case a in ) c;; esac"),
    (Wrong, "case a in b|) c;; esac"),
    (Wrong, "case a in b) if c;; esac"),
    (Wrong, "echo 'a"),
    (Wrong, "echo \"a"),
    (Wrong, "echo \"a 'b"),
    (Wrong, "echo it's"),
    (Wrong, "echo `a"),
    (Wrong, "echo `if`"),
    (Wrong, "echo $(a"),
    (Wrong, "echo $(if a)"),
    (Wrong, "echo $(a;;)"),
    (Wrong, "echo \"$(a"),
    (Wrong, "echo \"$(fi)\""),
    (Wrong, "echo ${a"),
    (Wrong, "echo \"${a"),
    (Wrong, "echo ${a:-'b}"),
    (Wrong, "cat <<E\n$(if)\nE\n"),
    (Wrong, "cat <<"),
    (Wrong, "cat <<\nE"),
    (Wrong, "a >"),
    (Wrong, "a > ;"),
    (Wrong, "a < | b"),
    (Wrong, "a >> )"),
    (Wrong, "a 2>&"),
    (Wrong, "a <&& b"),
    (Wrong, "! "),
    (Wrong, "a\n)\nb"),
    (Wrong, "if true\n\nthen"),
    (Wrong, "[ -f x ] && ( a"),
    (Wrong, "a && fi"),
    (Wrong, "{ a; } b"),
    (Wrong, "X=1 (a)"),
    (Wrong, "\"f\"() { a; } )"),
];

fn verdict(script: &str) -> Verdict {
    let report = read(script);
    match (report.error, report.doubts.is_empty()) {
        (Some(_), _) => Wrong,
        (None, false) => Doubt,
        (None, true) => Fine,
    }
}

#[test]
fn scripts_are_told_from_what_is_none() {
    for (expected, script) in SCRIPTS {
        assert_eq!(verdict(script), *expected, "{script:?}: {:?}", read(script));
    }
}

#[test]
#[rustfmt::skip]
fn an_error_is_where_the_mistake_is() {
    let cases = [
        ("if a; then b",              0,  2, "`if` without `fi`"),
        ("a\nwhile b; do c",          2,  5, "`while` without `done`"),
        ("a; fi",                     3,  2, "`fi` without an `if`"),
        ("a\n)\nb",                   2,  1, "`)` without a `(`"),
        ("echo it's",                 7,  1, "`'` is not closed"),
        ("echo \"$(a\"",              9,  1, "`\"` is not closed"),
        ("echo $(a; b",               5,  2, "`$(` is not closed"),
        // dash reads no further here, and bash not at all before it runs it.
        ("echo `a;; b`",              7,  2, "`;;` without a `case`"),
        ("echo `a; fi`",              9,  2, "`fi` without an `if`"),
        ("echo \"x `a \\`fi\\` b`\"", 13, 2, "`fi` without an `if`"),
        ("if a; then fi",             11, 2, "a command is missing before `fi`"),
        ("for i in a; echo",          12, 4, "`do` of `for` is missing before `echo`"),
        ("for i in a b do c; done",   19, 4, "`do` of `for` is missing before `done`"),
        ("case a in b",               0,  4, "`case` has no end"),
        ("a >",                       2,  1, "`>` needs a word behind it"),
        ("a &&",                      4,  0, "a command is missing at the end"),
        ("é; )",                      4,  1, "`)` without a `(`"),
        ("a (b)",                     2,  1, "`(` cannot stand here"),
    ];
    for (script, at, length, text) in cases {
        let error = read(script).error.unwrap();
        assert_eq!((error.at, error.length, error.text.as_str()), (at, length, text), "{script:?}");
    }
}

#[test]
#[rustfmt::skip]
fn lines_are_known_by_what_they_do_to_their_neighbours() {
    let cases = [
        ("a; b",             Shape::Whole),
        ("if a; then b; fi", Shape::Whole),
        ("# x",              Shape::Empty),
        ("",                 Shape::Empty),
        ("if a; then",       Shape::Fragment),
        ("fi",               Shape::Fragment),
        ("a &&",             Shape::Fragment),
        ("echo 'a",          Shape::Open),
        ("echo $(a",         Shape::Open),
        ("cat <<E",          Shape::Open),
        ("a \\",             Shape::Open),
    ];
    for (line, shape) in cases {
        assert_eq!(read(line).shape, shape, "{line:?}");
    }
}

/// Operators write scripts of any depth, and a checker has one stack.
#[test]
fn no_depth_is_too_deep() {
    for piece in
        ["(", "$(", "$((", "\"$(", "${x:-\"", "{ ", "if ", "case a in b) ", "f() ", "! ", "a && ("]
    {
        let script = piece.repeat(20_000);
        let report = read(&script);
        assert!(report.error.is_some() || report.unread.is_some(), "{piece}");
    }
}

proptest! {
    #[test]
    fn no_text_is_too_strange(script in "\\PC*") {
        read(&script);
    }

    #[test]
    fn faults_are_inside_the_text(pieces in pieces()) {
        let script = pieces.concat();
        let report = read(&script);
        for fault in report.error.iter().chain(&report.doubts) {
            prop_assert!(fault.at <= script.len(), "{script:?}: {fault:?}");
            prop_assert!(fault.at + fault.length <= script.len(), "{script:?}: {fault:?}");
        }
    }
}

/// What shells say is the measure: the table itself must be right.
#[test]
#[ignore = "needs dash and bash"]
fn shells_agree_with_the_table() {
    for (expected, script) in SCRIPTS {
        let (dash, bash) = (accepts("dash", script), accepts("bash", script));
        let agreed = match expected {
            Fine => dash && bash,
            Doubt => bash,
            Wrong => !dash,
        };
        assert!(agreed, "{expected:?} {script:?}: dash {dash}, bash {bash}");
    }
}

#[test]
#[ignore = "needs dash"]
fn dash_agrees_about_scripts_of_any_kind() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(3000));
    let result = runner.run(&pieces(), |pieces| {
        let script = pieces.concat();
        let report = read(&script);
        // Where dash refuses or reads otherwise what bash has, both are right.
        // Of backquotes dash reads as much as makes sense.
        let is_compared = report.doubts.is_empty() && !script.contains('`');
        if is_compared {
            prop_assert_eq!(
                report.error.is_none(),
                accepts("dash", &script),
                "{}: {:?}",
                script,
                report
            );
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn pieces() -> impl Strategy<Value = Vec<&'static str>> {
    let piece = prop::sample::select(vec![
        "if ",
        "then ",
        "else ",
        "elif ",
        "fi ",
        "while ",
        "do ",
        "done ",
        "for i ",
        "in ",
        "case a ",
        "esac ",
        "{ ",
        "} ",
        "( ",
        ") ",
        "! ",
        "; ",
        ";; ",
        "& ",
        "&& ",
        "| ",
        "|| ",
        "\n",
        "a ",
        "a ",
        "a; ",
        "x=1 ",
        "'b' ",
        "\"",
        "'",
        "`",
        "$(",
        "${a",
        "}",
        ">x ",
        "<x ",
        "b) ",
        "#c\n",
        "\\",
        "$a ",
        "if a; then b; fi ",
        "f() ",
        "{ a; } ",
        "in b) a;; ",
        "2>&1 ",
    ]);
    prop::collection::vec(piece, 0..12)
}

/// bash has two grammars, one of them for `/bin/sh`.
fn accepts(shell: &str, script: &str) -> bool {
    let options: &[&[&str]] =
        if shell == "bash" { &[&["-n"], &["--posix", "-n"]] } else { &[&["-n"]] };
    options.iter().any(|options| {
        let mut command = Command::new(shell);
        let status = command.args(*options).args(["-c", script]).stderr(Stdio::null()).status();
        status.unwrap().success()
    })
}

#[test]
fn what_is_nested_too_deeply_is_left_unread_and_not_called_wrong() {
    let script = format!("{}a{}", "( ".repeat(20_000), " )".repeat(20_000));
    let report = read(&script);
    assert_eq!(report.error, None);
    assert!(report.unread.is_some());
    let report = read("( a )");
    assert_eq!((report.error, report.unread), (None, None));
}
