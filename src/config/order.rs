//! GNU version order, as `sort -V` has it: LTSP sorted its numbered families with it.
//!
//! The rules are those of gnulib's filevercmp (coreutils manual, "Version-sort ordering"), and of
//! `sort`, which compares bytes when they find two lines equal.

use std::cmp::Ordering;

/// Orders two lines like `LC_ALL=C sort -V`.
pub fn version_order(a: &[u8], b: &[u8]) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    // An empty line is first, then ".", "..", then all that begin with a dot.
    let rank = |line: &[u8]| match line {
        [] => 0,
        b"." => 1,
        b".." => 2,
        [b'.', ..] => 3,
        _ => 4,
    };
    let (stem_a, stem_b) = (stem(a), stem(b));
    rank(a)
        .cmp(&rank(b))
        .then_with(|| runs_order(stem_a, stem_b))
        .then_with(|| runs_order(a, b))
        .then_with(|| a.cmp(b))
}

/// `line` without what looks like file name extensions: `.` and a letter, then letters and digits,
/// to the end, any number of times. Values end like that now and then (`… /etc/docker.service`).
fn stem(line: &[u8]) -> &[u8] {
    let mut end = line.len();
    let mut at = line.len();
    while let Some(before) = at.checked_sub(1) {
        match line.get(before) {
            Some(byte) if byte.is_ascii_alphanumeric() || *byte == b'~' => at = before,
            Some(b'.')
                if before > 0
                    && line.get(at).is_some_and(|c| c.is_ascii_alphabetic() || *c == b'~') =>
            {
                end = before;
                at = before;
            }
            _ => break,
        }
    }
    line.get(..end).unwrap_or(line)
}

/// Compares alternating runs of other characters and of digits.
fn runs_order(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        // Up to where both are at a digit, or at their end.
        while a.first().is_some_and(|c| !c.is_ascii_digit())
            || b.first().is_some_and(|c| !c.is_ascii_digit())
        {
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order.is_ne() {
                return order;
            }
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (number_a, rest_a) = number(a);
        let (number_b, rest_b) = number(b);
        let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

/// The digits at the front without leading zeros, and what follows.
fn number(line: &[u8]) -> (&[u8], &[u8]) {
    let zeros = line.iter().take_while(|c| **c == b'0').count();
    let line = line.get(zeros..).unwrap_or_default();
    let digits = line.iter().take_while(|c| c.is_ascii_digit()).count();
    line.split_at_checked(digits).unwrap_or((line, &[]))
}

/// `~`, then the end, then a digit, then letters, then everything else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -2,
        None => -1,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[rustfmt::skip]
    fn order_is_that_of_sort_version_sort() {
        // Each was printed by `LC_ALL=C sort -V` of coreutils 9.1 in this order.
        let sorted: &[&[&str]] = &[
            &["A_2=x", "A_9=x", "A_10=x", "A_100=x"],
            &["A_9A=x", "A_9=x", "A_9_X=x"],
            &["A_01=x", "A_01_X=x", "A_2=x", "A_A=x", "A_B=x"],
            &["A_001=a", "A_1=b", "A_01=c"],
            &["A_A=x", "A_B=x", "A_a=x"],
        ];
        for lines in sorted {
            for pair in lines.windows(2) {
                let order = version_order(pair[0].as_bytes(), pair[1].as_bytes());
                assert_eq!(order, Ordering::Less, "{} before {}", pair[0], pair[1]);
            }
        }
    }

    proptest! {
        #[test]
        fn order_is_total(lines in proptest::collection::vec("[a.~_0-9=]{0,8}", 0..12)) {
            let mut lines = lines;
            // `sort_by` may panic on an order that is none.
            lines.sort_by(|a, b| version_order(a.as_bytes(), b.as_bytes()));
            for pair in lines.windows(2) {
                prop_assert!(version_order(pair[0].as_bytes(), pair[1].as_bytes()).is_le());
            }
        }
    }

    /// Sorts with the program that LTSP sorted with.
    fn sorted_by_gnu(lines: &[String]) -> Vec<String> {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let about = Command::new("sort").arg("--version").output().expect("sort of GNU coreutils");
        let about = String::from_utf8_lossy(&about.stdout);
        assert!(about.contains("GNU coreutils"), "this needs GNU's sort, and here is {about}");
        let mut sort = Command::new("sort");
        sort.arg("-V").env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut sort = sort.spawn().unwrap();
        let mut stdin = sort.stdin.take().unwrap();
        let text = lines.join("\n") + "\n";
        // It reads all before it writes anything.
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        let sorted = String::from_utf8(sort.wait_with_output().unwrap().stdout).unwrap();
        sorted.lines().map(str::to_owned).collect()
    }

    /// Against the program itself, in batches that hold thousands of pairs each.
    #[test]
    fn order_is_that_of_the_real_sort() {
        use proptest::strategy::ValueTree;
        let line = prop_oneof![
            // Short ones differ in little, so that every rule decides about some pair. None begins
            // with a dot, for which releases of coreutils have different rules (9.1 cuts extensions
            // from its very start, later ones do not): our lines begin with a name.
            "[ab~_/ 0-9=-][ab.~_/ 0-9=-]{0,11}",
            "[A~0-9][A~.0-9]{0,3}",
            "(RCFILE|FSTAB)_[0-9]{0,3}(_?[A-Za-z]{0,2})=[a-c0-9./~ ]{0,6}",
            "[aé\u{7f}%+:0]{1,5}",
        ];
        let batch = proptest::collection::vec(line, 200..400);
        let mut runner = proptest::test_runner::TestRunner::default();
        for _ in 0..30 {
            let mut ours = batch.new_tree(&mut runner).unwrap().current();
            let theirs = sorted_by_gnu(&ours);
            ours.sort_by(|a, b| version_order(a.as_bytes(), b.as_bytes()));
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_eq!(ours, theirs);
            }
        }
    }
}
