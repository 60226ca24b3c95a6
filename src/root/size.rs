//! Sizes for people.

use std::fmt;

/// Bytes, shown with one decimal and a binary unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} bytes", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut units = UNITS.iter();
        let mut unit = units.next();
        // 1023.95 would be shown as 1024.0.
        while value >= 1023.95
            && let Some(next) = units.next()
        {
            value /= 1024.0;
            unit = Some(next);
        }
        write!(f, "{value:.1} {}", unit.unwrap_or(&""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[rustfmt::skip]
    fn sizes_have_one_decimal_and_the_unit_that_fits() {
        let cases = [
            (0,                  "0 bytes"),
            (1023,               "1023 bytes"),
            (1024,               "1.0 KiB"),
            ((1 << 20) - 1,      "1.0 MiB"),
            (74_867_712,         "71.4 MiB"),
            (4 << 30,            "4.0 GiB"),
            (u64::MAX,           "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Size(bytes).to_string(), text, "{bytes} bytes");
        }
    }
}
