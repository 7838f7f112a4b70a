//! Numbers with their noun.

/// `1 entry`, `2 entries`.
pub(crate) fn entries(number: u64) -> String {
    counted(number, "entry", "entries")
}

/// `1 prefix`, `2 prefixes`.
pub(crate) fn prefixes(number: u64) -> String {
    counted(number, "prefix", "prefixes")
}

/// `1 packet`, `2 packets`.
pub(crate) fn packets(number: u64) -> String {
    counted(number, "packet", "packets")
}

/// `1 change`, `2 changes`, of any noun.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many_and_none_are() {
        assert_eq!([0, 1, 2].map(entries), ["0 entries", "1 entry", "2 entries"]);
        assert_eq!((prefixes(1), packets(1)), ("1 prefix".to_owned(), "1 packet".to_owned()));
    }
}
