//! Names of time zones.

use std::sync::LazyLock;

use crate::cmdline::distance;

static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let lines = include_str!("zones.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .flat_map(|(area, places)| {
            places.split(' ').map(move |place| match area {
                "-" => place.to_owned(),
                area => format!("{area}/{place}"),
            })
        })
        .collect()
});

pub fn is_known(name: &str) -> bool {
    let name = name.strip_prefix("posix/").or(name.strip_prefix("right/")).unwrap_or(name);
    NAMES.iter().any(|known| known == name)
}

/// The zone that is most likely meant: by another case or spelling, or by its place alone.
pub fn nearest(name: &str) -> Option<&'static str> {
    let place = |zone: &str| zone.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let typed = name.trim().replace(' ', "_").to_ascii_lowercase();
    let same_place = NAMES.iter().find(|known| place(known) == typed);
    let by_letters = || {
        NAMES
            .iter()
            .filter(|known| known.len().abs_diff(typed.len()) <= 3)
            .map(|known| (distance(&known.to_ascii_lowercase(), &typed), known))
            .min()
            .filter(|(errors, _)| *errors <= 3)
            .map(|(_, known)| known)
    };
    same_place.or_else(by_letters).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn zones_are_known_and_mistakes_lead_to_one() {
        let cases = [
            ("Europe/Prague",                   true,  None),
            ("America/Argentina/Buenos_Aires",  true,  None),
            ("UTC",                             true,  None),
            ("right/Europe/Prague",             true,  None),
            ("Europe/Praha",                    false, Some("Europe/Prague")),
            ("europe/prague",                   false, Some("Europe/Prague")),
            ("Prague",                          false, Some("Europe/Prague")),
            ("New York",                        false, Some("America/New_York")),
            ("Nowhere/At_All",                  false, None),
        ];
        for (name, known, meant) in cases {
            assert_eq!(is_known(name), known, "{name}");
            assert_eq!(nearest(name).filter(|_| !known), meant, "{name}");
        }
    }
}
