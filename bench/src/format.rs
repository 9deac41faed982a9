//! Figures as people read them.

/// A whole number with a comma between thousands.
pub fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0.0 && digits != "0" { format!("-{text}") } else { text }
}

/// Microseconds as milliseconds.
pub fn millis(micros: f64) -> String {
    match micros {
        micros if micros < 1e3 => format!("{:.3} ms", micros / 1e3),
        micros if micros < 1e5 => format!("{:.2} ms", micros / 1e3),
        micros => format!("{:.0} ms", micros / 1e3),
    }
}

/// Seconds, with as many digits as a person reads.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.2} s") } else { format!("{seconds:.1} s") }
}

/// Bytes in binary units.
pub(crate) fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes;
    let mut last = "B";
    for unit in units {
        last = unit;
        if amount < 1000.0 {
            break;
        }
        if unit != "TiB" {
            amount /= 1024.0;
        }
    }
    if amount < 10.0 && last != "B" { format!("{amount:.1} {last}") } else { format!("{amount:.0} {last}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        let cases = [
            (0.4, "0"),
            (999.0, "999"),
            (1000.0, "1,000"),
            (1_234_567.8, "1,234,568"),
            (-1500.0, "-1,500"),
            (-0.1, "0"),
        ];
        for (number, text) in cases {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn bytes_have_the_unit_that_a_person_reads() {
        let cases = [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (2048.0, "2.0 KiB"),
            (52_428_800.0, "50 MiB"),
            (3.3e9, "3.1 GiB"),
            (2e15, "1819 TiB"),
        ];
        for (number, text) in cases {
            assert_eq!(bytes(number), text);
        }
    }
}
