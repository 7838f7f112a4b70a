//! The tables in `docs/clients.md`.

use anyhow::{Context as _, Result};

use super::{Catalogue, Protocol, Results};

/// The text with the tables of what was measured in place of those that it has.
pub fn with_tables(text: &str, results: &Results, catalogue: &Catalogue) -> Result<String> {
    [Protocol::Tcp, Protocol::Udp].into_iter().try_fold(text.to_owned(), |text, protocol| {
        replaced(&text, protocol.class(), &results.table(catalogue, protocol))
    })
}

/// The text with `table` between the two marks of this name.
fn replaced(text: &str, name: &str, table: &str) -> Result<String> {
    let [begin, end] = [format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n")];
    let missing = |mark: &str| format!("there is no line {}", mark.trim());
    let (before, rest) = text.split_once(&begin).with_context(|| missing(&begin))?;
    let (_, after) = rest.split_once(&end).with_context(|| missing(&end))?;
    Ok(format!("{before}{begin}{table}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = "a\n<!-- tcp -->\nold\n<!-- end of tcp -->\nb\n";
        let new = "a\n<!-- tcp -->\n| new |\n<!-- end of tcp -->\nb\n";
        assert_eq!(replaced(text, "tcp", "| new |\n").expect("both marks are there"), new);
        assert!(replaced(text, "udp", "").is_err());
    }
}
