//! The terminal while the screen is on it: raw, on its alternate screen, and as it was afterwards,
//! whatever ends the command.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    panic,
    sync::atomic::{AtomicBool, Ordering},
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use rustix::stdio::{stdin, stdout};

use super::draw::Look;
use crate::terminal::Canvas;

static IS_ENTERED: AtomicBool = AtomicBool::new(false);

/// Whether standard input and output are a terminal with a cursor that can be moved.
///
/// # Errors
/// What is missing, in words.
pub(crate) fn look() -> Result<Look, &'static str> {
    if !stdout().is_terminal() {
        return Err("standard output is not a terminal");
    }
    if !stdin().is_terminal() {
        return Err("standard input is not a terminal, and top takes keys from it");
    }
    let terminal = env::var("TERM").unwrap_or_default();
    if terminal.is_empty() || terminal == "dumb" {
        return Err("this terminal cannot move its cursor (TERM is dumb or not set)");
    }
    Ok(Look {
        is_coloured: env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()),
        has_eighths: terminal != "linux",
    })
}

#[derive(Debug)]
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Canvas>>,
}

impl Screen {
    pub(crate) fn enter() -> io::Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            leave();
            before(panic);
        }));
        enter()?;
        let terminal = Terminal::new(CrosstermBackend::new(Canvas::new()));
        if terminal.is_err() {
            leave();
        }
        Ok(Self { terminal: terminal? })
    }

    pub(crate) fn draw(&mut self, draw: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// Draws all cells the next time.
    pub(crate) fn forget(&mut self) -> io::Result<()> {
        // `Terminal::clear` would ask the terminal for its cursor, and take keys for the answer.
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }

    /// While another program has the terminal.
    pub(crate) fn lend() {
        leave();
    }

    pub(crate) fn take_back(&mut self) -> io::Result<()> {
        // A shell may have set it as it wants it.
        leave();
        enter()?;
        self.forget()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    IS_ENTERED.store(true, Ordering::Relaxed);
    execute!(Canvas::new(), EnterAlternateScreen, Hide).inspect_err(|_| leave())
}

/// Nobody may be there to see it.
fn leave() {
    if IS_ENTERED.swap(false, Ordering::Relaxed) {
        let mut canvas = Canvas::new();
        let _ = execute!(canvas, LeaveAlternateScreen, Show);
        let _ = canvas.flush();
        let _ = disable_raw_mode();
    }
}
