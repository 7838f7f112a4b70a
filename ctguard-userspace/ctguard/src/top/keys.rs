//! Keys, from the bytes that a terminal sends.

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Printable ASCII: nothing else is needed for addresses and commands.
    Char(char),
    Control(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// Bytes that are no whole key yet: on a slow line a sequence comes in parts.
#[derive(Debug, Default)]
pub(crate) struct Keyboard {
    pending: Vec<u8>,
}

const ESCAPE: u8 = 0x1b;
/// A longer sequence is none.
const LONGEST_SEQUENCE: usize = 16;

impl Keyboard {
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.pending.extend_from_slice(bytes);
        let mut keys = Vec::new();
        while let Some((key, length)) = first_key(&self.pending) {
            keys.extend(key);
            self.pending.drain(..length);
        }
        keys
    }

    /// Whether an Escape may be the key, or the begin of a sequence.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The rest has not come: Escape was pressed, or the line has lost something.
    pub(crate) fn give_up(&mut self) -> Option<Key> {
        (std::mem::take(&mut self.pending) == [ESCAPE]).then_some(Key::Escape)
    }
}

/// The first key, if it is one that is known, and how many bytes it has; none if they are not all
/// there.
fn first_key(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let first = *bytes.first()?;
    let key = match first {
        ESCAPE => return sequence(bytes),
        b'\r' | b'\n' => Some(Key::Enter),
        8 | 0x7f => Some(Key::Backspace),
        1..=26 => Some(Key::Control(char::from(first - 1 + b'a'))),
        b' '..=b'~' => Some(Key::Char(char::from(first))),
        _ => None,
    };
    Some((key, 1))
}

fn sequence(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let introducer = *bytes.get(1)?;
    if introducer != b'[' && introducer != b'O' {
        return Some((Some(Key::Escape), 1));
    }
    let rest = &bytes[2..];
    let Some(end) = rest.iter().position(|byte| (b'@'..=b'~').contains(byte)) else {
        return (bytes.len() > LONGEST_SEQUENCE).then_some((None, bytes.len()));
    };
    let key = match (&rest[..end], rest[end]) {
        (_, b'A') => Some(Key::Up),
        (_, b'B') => Some(Key::Down),
        (_, b'H') | (b"1" | b"7", b'~') => Some(Key::Home),
        (_, b'F') | (b"4" | b"8", b'~') => Some(Key::End),
        (b"5", b'~') => Some(Key::PageUp),
        (b"6", b'~') => Some(Key::PageDown),
        _ => None,
    };
    Some((key, end + 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_sequences_are_keys() {
        let mut keyboard = Keyboard::default();
        let keys = keyboard.read(b"a\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[H\x1b[4~\r\x7f\x03\x1b[15~z");
        let expected = [
            Key::Char('a'),
            Key::Up,
            Key::Down,
            Key::PageUp,
            Key::PageDown,
            Key::Home,
            Key::End,
            Key::Enter,
            Key::Backspace,
            Key::Control('c'),
            Key::Char('z'),
        ];
        assert_eq!(keys, expected);
        assert!(!keyboard.is_waiting());
    }

    #[test]
    fn a_sequence_that_comes_in_parts_is_one_key() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.read(b"\x1b"), []);
        assert_eq!(keyboard.read(b"["), []);
        assert_eq!(keyboard.read(b"B"), [Key::Down]);
    }

    #[test]
    fn escape_alone_is_a_key_when_nothing_follows() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.read(b"\x1b"), []);
        assert!(keyboard.is_waiting());
        assert_eq!(keyboard.give_up(), Some(Key::Escape));
        assert_eq!(keyboard.give_up(), None);
        assert_eq!(keyboard.read(b"\x1bq"), [Key::Escape, Key::Char('q')]);
    }

    #[test]
    fn what_is_no_key_is_left_out_and_does_not_pile_up() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.read("é\u{0}\u{1b}[?1;2c".as_bytes()), []);
        keyboard.read(b"\x1b[");
        for _ in 0..1000 {
            keyboard.read(b"1;1;1;1;");
        }
        assert!(keyboard.pending.len() <= 2 * LONGEST_SEQUENCE);
    }
}
