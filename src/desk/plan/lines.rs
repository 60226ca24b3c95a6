//! What changes between two lists of lines, and its unified form, as `diff -u` has it.
//!
//! A crate for this costs 300 KiB of a binary that every node loads; the files that a boot writes
//! are short, and the longest common subsequence of two short lists needs no clever algorithm.

use std::fmt::Write;

/// Pairs of lines that are compared at most, 16 MiB of memory; longer lists that differ from
/// beginning to end are replaced as a whole.
const MOST_PAIRS: usize = 1 << 22;

/// Lines around a change.
const CONTEXT: usize = 3;

/// One step from the old list to the new one, with places in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Keep { old: usize, new: usize },
    Remove { old: usize },
    Add { new: usize },
}

/// All steps, in order; of a change, what goes comes first.
pub fn steps<T: PartialEq>(old: &[T], new: &[T]) -> Vec<Step> {
    let head = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (a, b) = (old.get(head..).unwrap_or_default(), new.get(head..).unwrap_or_default());
    let tail = a.iter().rev().zip(b.iter().rev()).take_while(|(old, new)| old == new).count();
    let a = a.get(..a.len().saturating_sub(tail)).unwrap_or_default();
    let b = b.get(..b.len().saturating_sub(tail)).unwrap_or_default();

    let keep = |old: usize, new: usize, count: usize| {
        (old..old.saturating_add(count)).zip(new..).map(|(old, new)| Step::Keep { old, new })
    };
    let mut steps: Vec<Step> = keep(0, 0, head).collect();
    steps.extend(middle(a, b).into_iter().map(|step| match step {
        Step::Keep { old, new } => {
            Step::Keep { old: old.saturating_add(head), new: new.saturating_add(head) }
        }
        Step::Remove { old } => Step::Remove { old: old.saturating_add(head) },
        Step::Add { new } => Step::Add { new: new.saturating_add(head) },
    }));
    let (old, new) = (head.saturating_add(a.len()), head.saturating_add(b.len()));
    steps.extend(keep(old, new, tail));
    steps
}

fn middle<T: PartialEq>(a: &[T], b: &[T]) -> Vec<Step> {
    let width = b.len().saturating_add(1);
    let pairs = a.len().saturating_add(1).saturating_mul(width);
    let mut steps = Vec::new();
    let (mut old, mut new): (usize, usize) = (0, 0);
    if pairs <= MOST_PAIRS {
        let common = common(a, b, width);
        let at = |old: usize, new: usize| {
            common.get(old.saturating_mul(width).saturating_add(new)).copied().unwrap_or(0)
        };
        while let (Some(x), Some(y)) = (a.get(old), b.get(new)) {
            if x == y {
                steps.push(Step::Keep { old, new });
                (old, new) = (old.saturating_add(1), new.saturating_add(1));
            } else if at(old.saturating_add(1), new) >= at(old, new.saturating_add(1)) {
                steps.push(Step::Remove { old });
                old = old.saturating_add(1);
            } else {
                steps.push(Step::Add { new });
                new = new.saturating_add(1);
            }
        }
    }
    steps.extend((old..a.len()).map(|old| Step::Remove { old }));
    steps.extend((new..b.len()).map(|new| Step::Add { new }));
    steps
}

/// For each pair of places, how many lines the rests behind them have in common; row by row.
fn common<T: PartialEq>(a: &[T], b: &[T], width: usize) -> Vec<u32> {
    let mut below = vec![0_u32; width];
    let mut rows = vec![below.clone()];
    for x in a.iter().rev() {
        let mut row = vec![0_u32; width];
        let mut right = 0;
        // From the end of the row: its own cell, the one below, and the one below and right.
        let cells = row.iter_mut().rev().skip(1).zip(below.iter().rev().skip(1));
        let diagonals = below.iter().rev();
        for (((cell, under), diagonal), y) in cells.zip(diagonals).zip(b.iter().rev()) {
            right = if x == y { diagonal.saturating_add(1) } else { right.max(*under) };
            *cell = right;
        }
        below.clone_from(&row);
        rows.push(row);
    }
    rows.into_iter().rev().flatten().collect()
}

/// The change as `diff -u` shows it, without the names of the files; empty if there is none.
pub fn unified(old: &str, new: &str) -> String {
    let (a, b): (Vec<_>, Vec<_>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let steps = steps(&a, &b);
    let is_change = |step: &Step| !matches!(step, Step::Keep { .. });
    let changes: Vec<usize> =
        steps.iter().enumerate().filter(|(_, step)| is_change(step)).map(|(at, _)| at).collect();
    let mut text = String::new();
    let mut rest = changes.as_slice();
    while let Some((first, _)) = rest.split_first() {
        // As long as the context of one change reaches that of the next, they are shown together.
        let together = rest
            .windows(2)
            .take_while(|pair| match pair {
                [one, next] => {
                    next.saturating_sub(*one) <= CONTEXT.saturating_mul(2).saturating_add(1)
                }
                _ => false,
            })
            .count();
        let last = rest.get(together).unwrap_or(first);
        let from = first.saturating_sub(CONTEXT);
        let to = last.saturating_add(CONTEXT).saturating_add(1).min(steps.len());
        hunk(
            &mut text,
            steps.get(from..to).unwrap_or_default(),
            steps.get(..from).unwrap_or_default(),
            &a,
            &b,
        );
        rest = rest.get(together.saturating_add(1)..).unwrap_or_default();
    }
    text
}

fn hunk(text: &mut String, steps: &[Step], before: &[Step], old: &[&str], new: &[&str]) {
    let count = |steps: &[Step], of_old: bool| {
        let counts = |step: &&Step| match step {
            Step::Keep { .. } => true,
            Step::Remove { .. } => of_old,
            Step::Add { .. } => !of_old,
        };
        steps.iter().filter(counts).count()
    };
    // Where there is no line, the one before it is named.
    let range = |of_old: bool| {
        let begin = count(before, of_old);
        match count(steps, of_old) {
            0 => format!("{begin},0"),
            1 => begin.saturating_add(1).to_string(),
            lines => format!("{},{lines}", begin.saturating_add(1)),
        }
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "@@ -{} +{} @@", range(true), range(false));
    for step in steps {
        let (sign, line) = match *step {
            Step::Keep { old: at, .. } => (' ', old.get(at)),
            Step::Remove { old: at } => ('-', old.get(at)),
            Step::Add { new: at } => ('+', new.get(at)),
        };
        let line = line.copied().unwrap_or_default();
        text.push(sign);
        text.push_str(line);
        if !line.ends_with('\n') {
            text.push_str("\n\\ No newline at end of file\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn changes_are_shown_as_by_diff() {
        // Lines are separated by blanks here.
        let cases = [
            ("a b c",                 "a b c",                 ""),
            ("a b c",                 "a x c",                 "@@ -1,3 +1,3 @@| a|-b|+x| c|"),
            ("",                      "a",                     "@@ -0,0 +1 @@|+a|"),
            ("a",                     "",                      "@@ -1 +0,0 @@|-a|"),
            ("a b",                   "b",                     "@@ -1,2 +1 @@|-a| b|"),
            ("1 2 3 4 5 6 7 8 9",     "1 2 3 4 5 6 7 8 x",     "@@ -6,4 +6,4 @@| 6| 7| 8|-9|+x|"),
            ("1 2 3 4 5 6 7 8 9",     "x 2 3 4 5 6 7 8 y",     "@@ -1,4 +1,4 @@|-1|+x| 2| 3| 4|@@ -6,4 +6,4 @@| 6| 7| 8|-9|+y|"),
            ("1 2 3 4 5 6 7 8",       "x 2 3 4 5 6 7 y",       "@@ -1,8 +1,8 @@|-1|+x| 2| 3| 4| 5| 6| 7|-8|+y|"),
        ];
        for (old, new, expected) in cases {
            let lines = |text: &str| text.split_whitespace().map(|line| format!("{line}\n")).collect::<String>();
            assert_eq!(unified(&lines(old), &lines(new)).replace('\n', "|"), expected, "{old} -> {new}");
        }
        assert_eq!(unified("a\nb", "a\nb\n"), "@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+b\n");
    }

    #[test]
    fn lists_that_are_too_long_to_compare_are_replaced() {
        let old: Vec<usize> = (0..5000).collect();
        let new: Vec<usize> = (5000..10_000).collect();
        let steps = steps(&old, &new);
        assert_eq!(steps.len(), 10_000);
        assert_eq!(steps[0], Step::Remove { old: 0 });
    }

    /// diff(1) is on every machine.
    fn of_diff(old: &str, new: &str) -> usize {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("old"), old).unwrap();
        std::fs::write(at("new"), new).unwrap();
        let ran = std::process::Command::new("diff")
            .args(["--minimal", "-u"])
            .args([at("old"), at("new")])
            .output()
            .unwrap();
        changed(
            &String::from_utf8(ran.stdout).unwrap().lines().skip(2).collect::<Vec<_>>().join("\n"),
        )
    }

    fn changed(diff: &str) -> usize {
        diff.lines().filter(|line| line.starts_with(['+', '-'])).count()
    }

    proptest! {
        /// The steps lead from the one to the other.
        #[test]
        fn the_steps_lead_to_the_new_list(
            old in proptest::collection::vec(0..6_u8, 0..40),
            new in proptest::collection::vec(0..6_u8, 0..40),
        ) {
            let (mut from, mut to) = (Vec::new(), Vec::new());
            for step in steps(&old, &new) {
                match step {
                    Step::Keep { old: at, new: there } => {
                        prop_assert_eq!(old[at], new[there]);
                        from.push(old[at]);
                        to.push(new[there]);
                    }
                    Step::Remove { old: at } => from.push(old[at]),
                    Step::Add { new: at } => to.push(new[at]),
                }
            }
            prop_assert_eq!(from, old);
            prop_assert_eq!(to, new);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn nothing_more_changes_than_must(
            old in proptest::collection::vec("[a-d]", 0..30),
            new in proptest::collection::vec("[a-d]", 0..30),
        ) {
            let text = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let (old, new) = (text(&old), text(&new));
            prop_assert_eq!(changed(&unified(&old, &new)), of_diff(&old, &new));
        }
    }
}
