//! Formats figures, with about three significant digits.

use comfy_table::{CellAlignment, Table, presets};

use super::statistics::{Comparison, Range};

/// Formats a figure with at most three significant digits and with thousands separators.
pub(crate) fn number(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        _ if !value.is_finite() => "–".to_owned(),
        0.0..0.0005 => "0".to_owned(),
        0.0005..0.095 => format!("{value:.3}"),
        0.095..9.995 => format!("{value:.2}"),
        9.995..99.95 => format!("{value:.1}"),
        _ => thousands(value, magnitude),
    }
}

fn thousands(value: f64, magnitude: f64) -> String {
    let unit = 10_f64.powi((magnitude.log10().floor() as i32 - 2).max(0));
    count((value / unit).round() * unit)
}

/// Formats a whole number.
pub(crate) fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// Formats a range: `1.23 (1.20–1.31)`.
pub(crate) fn range(range: &Range) -> String {
    format!("{} ({}–{})", number(range.median), number(range.low), number(range.high))
}

pub(crate) fn bytes(value: f64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let step = UNITS.iter().scan(value, |left, unit| {
        let now = (*left, *unit);
        *left /= 1024.0;
        Some(now)
    });
    let (value, unit) = step.take_while(|(left, _)| left.abs() >= 1.0).last().unwrap_or((value, "B"));
    if unit == "B" { format!("{value:.0} B") } else { format!("{} {unit}", number(value)) }
}

/// Formats a comparison: `+12 %`, `×3.4`, `no difference`.
pub(crate) fn comparison(compared: Comparison) -> String {
    match compared {
        Comparison::NoDifference => "no difference".to_owned(),
        Comparison::Times(ratio) if (0.5..2.0).contains(&ratio) => percent(ratio - 1.0),
        Comparison::Times(ratio) => format!("×{}", number(ratio)),
    }
}

/// Formats a share: `+1.2 %`, `−12 %`.
pub(crate) fn percent(share: f64) -> String {
    let digits = if share.abs() < 0.0995 { 1 } else { 0 };
    let sign = if share < 0.0 { "−" } else { "+" };
    format!("{sign}{:.digits$} %", (share * 100.0).abs())
}

/// Formats ranks: `1`, or `2–4` if a server may have any of them.
pub(crate) fn rank(rank: Option<(usize, usize)>) -> String {
    match rank {
        Some((first, last)) if first == last => first.to_string(),
        Some((first, last)) => format!("{first}–{last}"),
        None => "–".to_owned(),
    }
}

/// Formats a number of connections: `1 connection`, `1,000 connections`.
pub(crate) fn connections(n: usize) -> String {
    format!("{} connection{}", count(n as f64), if n == 1 { "" } else { "s" })
}

/// Returns an empty table for the terminal: names and words to the left, figures to the right.
pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(headings.iter().copied());
    for (at, heading) in headings.iter().enumerate() {
        let is_text = ["server", "figure", "which"].contains(heading);
        if let Some(column) = table.column_mut(at) {
            column.set_cell_alignment(if is_text { CellAlignment::Left } else { CellAlignment::Right });
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_at_most_three_digits() {
        let written: Vec<String> = [0.0, 0.0123, 0.5, 4.567, 45.67, 456.7, 123_456.0].map(number).into();
        assert_eq!(written, ["0", "0.012", "0.50", "4.57", "45.7", "457", "123,000"]);
        assert_eq!(number(f64::NAN), "–");
        assert_eq!(count(-1234.0), "-1,234");
        let written: Vec<String> = [200.4, 2048.0, 3_500_000.0, 6e9].map(bytes).into();
        assert_eq!(written, ["200 B", "2.00 KiB", "3.34 MiB", "5.59 GiB"]);
    }

    #[test]
    fn comparisons_are_words() {
        assert_eq!(comparison(Comparison::NoDifference), "no difference");
        assert_eq!(comparison(Comparison::Times(1.123)), "+12 %");
        assert_eq!(comparison(Comparison::Times(0.985)), "−1.5 %");
        assert_eq!(comparison(Comparison::Times(3.4)), "×3.40");
        assert_eq!([rank(Some((2, 2))), rank(Some((2, 4))), rank(None)], ["2", "2–4", "–"]);
        assert_eq!([connections(1), connections(1000)], ["1 connection", "1,000 connections"]);
    }
}
