//! Standard output and standard error. Nothing else in the product writes to them (clippy refuses
//! it), so no process, file or interface can put control characters on an operator's terminal.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    io::{self, BufWriter, Write},
};

use serde::Serialize;

/// An output for text. Each `write!` is one line at most: a newline inside it came from elsewhere
/// and is escaped like any other control character.
pub(crate) struct Terminal<W>(W);

impl Terminal<io::StdoutLock<'static>> {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub(crate) fn stdout() -> Self {
        Self(io::stdout().lock())
    }
}

impl Terminal<io::Stderr> {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub(crate) fn stderr() -> Self {
        Self(io::stderr())
    }
}

impl<W: Write> Write for Terminal<W> {
    fn write_fmt(&mut self, line: fmt::Arguments<'_>) -> io::Result<()> {
        let line = line.to_string();
        let (line, end) = line.strip_suffix('\n').map_or((&line[..], ""), |line| (line, "\n"));
        self.0.write_all(visible(line).as_bytes())?;
        self.0.write_all(end.as_bytes())
    }

    /// Text of several lines.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        for line in String::from_utf8_lossy(text).split_inclusive('\n') {
            self.write_fmt(format_args!("{line}"))?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Standard output for a screen that is drawn cell by cell, all of it in one go: what is drawn is
/// escaped before it is a cell (`top/draw.rs`), and the rest are sequences that move the cursor.
#[derive(Debug)]
pub(crate) struct Canvas(BufWriter<io::Stdout>);

impl Canvas {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub(crate) fn new() -> Self {
        Self(BufWriter::with_capacity(1 << 16, io::stdout()))
    }
}

impl Write for Canvas {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Tells the operator about a problem, if possible.
pub(crate) fn complain(problem: fmt::Arguments<'_>) {
    let _ = writeln!(Terminal::stderr(), "ctguard: {problem}");
}

/// Writes one JSON document, indented. Serde escapes only some of the characters that terminals obey.
/// The others are escaped here, and programs read the same text.
pub(crate) fn write_json(out: &mut impl Write, document: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_string_pretty(document)? + "\n";
    out.write_all(escape_json(&json).as_bytes())
}

/// The same in one line.
pub(crate) fn write_json_line(out: &mut impl Write, document: &impl Serialize) -> io::Result<()> {
    writeln!(out, "{}", escape_json(&serde_json::to_string(document)?))
}

/// These characters occur only within JSON's strings, except for the newlines between its lines.
fn escape_json(json: &str) -> Cow<'_, str> {
    escape(
        json,
        |letter| letter == '\n' || is_visible(letter),
        |letter, escaped| {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        },
    )
}

/// Text with every control character, and whatever else shows nothing or moves other text, written
/// as Rust writes it: `\u{1b}`.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    escape(text, is_visible, |letter, shown| shown.extend(letter.escape_debug()))
}

fn escape(
    text: &str,
    is_kept: fn(char) -> bool,
    write: impl Fn(char, &mut String),
) -> Cow<'_, str> {
    if text.chars().all(is_kept) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_kept(letter) {
            escaped.push(letter);
        } else {
            write(letter, &mut escaped);
        }
    }
    Cow::Owned(escaped)
}

/// Not C0, DEL, C1, format characters (bidirectional ones too), line separators, unassigned or
/// combining ones: all that the standard library escapes but quotes and backslashes.
fn is_visible(letter: char) -> bool {
    matches!(letter, ' '..='~') || letter.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ESC, CSI of C1, DEL, a bidirectional override, an invisible tag, a bell, a newline.
    const HOSTILE: &str = "a\u{1b}[2J\u{9b}2J\u{7f}\u{202e}\u{e0041}\u{7}\nb";
    const SHOWN: &str = "a\\u{1b}[2J\\u{9b}2J\\u{7f}\\u{202e}\\u{e0041}\\u{7}\\nb";

    fn written(write: impl FnOnce(&mut Terminal<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut bytes = Vec::new();
        write(&mut Terminal(&mut bytes)).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        let line = written(|out| writeln!(out, "name: {HOSTILE}"));
        assert_eq!(line, format!("name: {SHOWN}\n"));
        let lines = written(|out| out.write_all("one\x1b\ntwo\u{9b}\n".as_bytes()));
        assert_eq!(lines, "one\\u{1b}\ntwo\\u{9b}\n");
    }

    #[test]
    fn text_of_any_language_and_quotes_are_left_as_they_are() {
        let text = "Zürich → 東京 … \"a\\b\" 'c' – привет";
        assert_eq!(visible(text), text);
    }

    #[test]
    fn json_is_the_same_text_for_programs_without_a_character_that_terminals_obey() {
        for json in [
            written(|out| write_json(out, &[HOSTILE])),
            written(|out| write_json_line(out, &[HOSTILE])),
        ] {
            assert!(json.chars().all(|letter| letter == '\n' || is_visible(letter)), "{json:?}");
            assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [HOSTILE]);
        }
    }
}
