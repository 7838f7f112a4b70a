//! A terminal for a program under test: a pseudo terminal, and what its screen shows.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::OpenOptionsExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::product::wait_for;

/// A program on a terminal of its own; killed when dropped.
#[derive(Debug)]
pub struct Session {
    child: Child,
    master: File,
    /// The program's side, which keeps its settings when the program ends.
    terminal: File,
    screen: Arc<Mutex<Screen>>,
}

impl Session {
    /// Starts `command` on a terminal of this many columns and rows.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("cannot make a pty")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC);
        let terminal = options.open(path).context("cannot open a pty")?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size)?;
        command.stdin(terminal.try_clone()?).stdout(terminal.try_clone()?);
        command.stderr(terminal.try_clone()?).process_group(0);
        command.env("TERM", "xterm-256color");
        let child = command.spawn().context("cannot start a program on a pty")?;
        let screen = Arc::new(Mutex::new(Screen::new(columns.into(), rows.into())));
        let master = File::from(master);
        let (mut reader, shown) = (master.try_clone()?, Arc::clone(&screen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The last user of the other side ends it with EIO.
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                lock(&shown).write(&bytes[..length]);
            }
        });
        Ok(Self { child, master, terminal, screen })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The rows of the screen.
    #[must_use]
    pub fn shown(&self) -> String {
        lock(&self.screen).text()
    }

    /// Whether a program has the alternate screen, or has hidden the cursor.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        let screen = lock(&self.screen);
        screen.is_alternate || screen.is_cursor_hidden
    }

    /// Whether keys come one by one, and without an echo.
    pub fn is_raw(&self) -> Result<bool> {
        let modes = tcgetattr(&self.terminal)?.local_modes;
        Ok(!modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG))
    }

    /// Waits until the screen shows `text`.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        let there = || Ok(self.shown().contains(text).then_some(()));
        wait_for(text, there).with_context(|| format!("the screen is\n{}", self.shown()))
    }

    /// Types.
    pub fn press(&self, keys: &str) -> io::Result<()> {
        (&self.master).write_all(keys.as_bytes())
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("a program has a pid")?, signal)?)
    }

    /// Waits for the program's end, and for all that it wrote.
    pub fn end(&mut self) -> Result<ExitStatus> {
        let ended = wait_for("the program's end", || Ok(self.child.try_wait()?))
            .with_context(|| format!("the screen is\n{}", self.shown()))?;
        ensure!(ended.signal().is_none(), "{ended}: {}", self.shown());
        Ok(ended)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(screen: &Mutex<Screen>) -> std::sync::MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The screen of a terminal that knows only the sequences that move the cursor, clear all, hide the
/// cursor and change to the alternate screen.
#[derive(Debug)]
struct Screen {
    columns: usize,
    rows: Vec<Vec<char>>,
    at: (usize, usize),
    pending: Vec<u8>,
    is_alternate: bool,
    is_cursor_hidden: bool,
}

impl Screen {
    fn new(columns: usize, rows: usize) -> Self {
        Self {
            columns,
            rows: vec![vec![' '; columns]; rows],
            at: (0, 0),
            pending: Vec::new(),
            is_alternate: false,
            is_cursor_hidden: false,
        }
    }

    fn text(&self) -> String {
        let rows = self.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned());
        rows.collect::<Vec<_>>().join("\n")
    }

    fn write(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        while let Some(length) = self.next_length() {
            let piece: Vec<u8> = self.pending.drain(..length).collect();
            match piece.split_first() {
                Some((0x1b, [_, parameters @ .., command])) => {
                    self.obey(&String::from_utf8_lossy(parameters), *command);
                }
                _ => String::from_utf8_lossy(&piece).chars().for_each(|letter| self.put(letter)),
            }
        }
    }

    /// Bytes of the next letter or sequence; none if they are not all there.
    fn next_length(&self) -> Option<usize> {
        let first = *self.pending.first()?;
        if first == 0x1b {
            let end = self.pending.iter().skip(2).position(|byte| (b'@'..=b'~').contains(byte))?;
            return Some(end + 3);
        }
        let length = match first.leading_ones() {
            0 | 1 => 1,
            ones => ones as usize,
        };
        (self.pending.len() >= length).then_some(length)
    }

    fn put(&mut self, letter: char) {
        let (row, column) = self.at;
        match letter {
            '\r' => self.at.1 = 0,
            '\n' => self.at.0 += 1,
            _ => {
                if let Some(cell) = self.rows.get_mut(row).and_then(|row| row.get_mut(column)) {
                    *cell = letter;
                }
                self.at.1 += 1;
            }
        }
    }

    fn obey(&mut self, parameters: &str, command: u8) {
        match (command, parameters) {
            (b'H', _) => {
                let mut numbers = parameters.split(';').map(|it| it.parse::<usize>().unwrap_or(1));
                let mut next = || numbers.next().unwrap_or(1).saturating_sub(1);
                self.at = (next(), next());
            }
            (b'J', "2") => self.rows.iter_mut().for_each(|row| *row = vec![' '; self.columns]),
            (b'h', "?1049") => self.is_alternate = true,
            (b'l', "?1049") => self.is_alternate = false,
            (b'l', "?25") => self.is_cursor_hidden = true,
            (b'h', "?25") => self.is_cursor_hidden = false,
            _ => {}
        }
    }
}
