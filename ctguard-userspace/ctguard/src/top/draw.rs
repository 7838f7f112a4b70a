//! The screen, from what was read and what keys changed. Names from outside are escaped here.

use std::{borrow::Cow, cmp::Reverse, time::Duration};

use ctguard_control::tuning::TUNING;
use ctguard_layout::{Class, Stage};
use ratatui::{
    Frame,
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{
    state::{ClassRates, Limit, Source, State},
    view::{Mode, Sort, View},
};
use crate::{
    plural::{entries, prefixes},
    terminal::visible,
};

/// A smaller screen shows only that it is too small.
const LEAST: (u16, u16) = (60, 16);
/// Where the text of a row begins, behind its name.
const MARGIN: usize = 11;
/// From this width on there is a column for the states of entries, which begins here.
const WIDE: usize = 110;
const STATES_AT: usize = 85;
/// Rows of sources that the rest leaves, if there are so many.
const SOURCE_ROWS: usize = 5;

/// What a terminal can show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) is_coloured: bool,
    /// It has blocks of an eighth, unlike the kernel's console.
    pub(crate) has_eighths: bool,
}

pub(crate) fn draw(frame: &mut Frame<'_>, state: &State, view: &View, look: Look, clock: &str) {
    let area = frame.area();
    let pen = Pen { look, width: area.width.into() };
    let lines = if (area.width, area.height) < LEAST || area.height < LEAST.1 {
        vec![Line::raw(format!("too small: {} × {} is needed", LEAST.0, LEAST.1))]
    } else if view.mode == Mode::Help {
        pen.help(view)
    } else {
        pen.screen(state, view, clock, area.height.into())
    };
    paint(frame.buffer_mut(), area, &lines);
}

fn paint(buffer: &mut Buffer, area: Rect, lines: &[Line<'_>]) {
    for (line, y) in lines.iter().zip(area.top()..area.bottom()) {
        buffer.set_line(area.left(), y, line, area.width);
        // The selected row is marked to the edge of the screen.
        if line.style.add_modifier.contains(Modifier::REVERSED) {
            buffer.set_style(Rect { y, height: 1, ..area }, line.style);
        }
    }
}

struct Pen {
    look: Look,
    width: usize,
}

impl Pen {
    fn screen(&self, state: &State, view: &View, clock: &str, height: usize) -> Vec<Line<'static>> {
        let mut lines = vec![self.title(state, view, clock), self.table(state)];
        lines.extend(self.bar(state));
        for (name, text) in state.alarms() {
            let style = self.style(Color::Red, true);
            lines.extend(self.paragraph(name, &text, 2, style));
        }
        let roomy = height >= 30;
        let history = match height {
            0..24 => 1,
            24..30 => 2,
            30..45 => 4,
            _ => 8,
        };
        lines.extend(self.history(state, history));
        gap(&mut lines, roomy);
        lines.extend(self.classes(state));
        lines.extend(self.denied(state));
        lines.extend(self.why(state, if roomy { 6 } else { 3 }));
        gap(&mut lines, roomy);
        lines.extend(self.holders(state));
        lines.push(self.challenges(state));
        lines.push(self.known(state));
        gap(&mut lines, roomy);

        let rest = height.saturating_sub(1);
        lines.truncate(rest.saturating_sub(SOURCE_ROWS + 1));
        lines.extend(self.sources(state, view, rest - lines.len()));
        lines.truncate(rest);
        lines.resize(rest, Line::default());
        lines.push(self.bottom(state, view));
        lines
    }

    fn title(&self, state: &State, view: &View, clock: &str) -> Line<'static> {
        let mut flags = Vec::new();
        if state.facts.is_dry_run {
            flags.push(("DRY RUN", Color::Yellow));
        }
        if state.problem.is_some() {
            flags.push(("NO DATA", Color::Red));
        }
        if view.is_frozen {
            flags.push(("FROZEN", Color::Cyan));
        }
        let pace = format!("every {}", humantime::format_duration(view.period));
        let right = format!("{pace}  {clock}");
        let flagged: usize = flags.iter().map(|(flag, _)| flag.len() + 2).sum();
        let room = self.width.saturating_sub(right.len() + flagged + 2);
        let names = visible(&state.facts.interfaces.join(", ")).into_owned();
        let names = fit(&format!("ctguard top  {names}"), room);
        let gap = room.saturating_sub(width(&names)) + 2;
        let mut spans = vec![Span::styled(names, bold()), Span::raw(" ".repeat(gap))];
        for (flag, colour) in flags {
            spans.push(Span::styled(flag, self.style(colour, true)));
            spans.push(Span::raw("  "));
        }
        spans.push(Span::raw(right));
        Line::from(spans)
    }

    fn table(&self, state: &State) -> Line<'static> {
        let Some(now) = state.now() else { return self.row("table", "nothing has been read yet") };
        if !state.facts.is_tracking {
            return self.row("table", "conntrack is not loaded: nothing is tracked");
        }
        let Some(fill) = state.fill() else {
            return self.row("table", &format!("{}, no maximum", entries(now.entries)));
        };
        let growth = match (state.growth(), state.until_target()) {
            (Some(growth), Some(seconds)) if seconds < 3600.0 => {
                format!(" in {seconds:.0} s at {growth:+.0}/s")
            }
            (Some(growth), _) if growth.abs() >= 0.5 => format!(", {growth:+.0}/s"),
            _ => String::new(),
        };
        let text = format!(
            "{} of {} entries, {:.1} %; target {:.1} %{growth}",
            now.entries,
            now.max,
            fill * 100.0,
            state.facts.target * 100.0
        );
        self.row("table", &text)
    }

    /// The fill and, as a line across it, the target.
    fn bar(&self, state: &State) -> Option<Line<'static>> {
        let fill = state.fill()?;
        let columns = self.width.saturating_sub(MARGIN + 2);
        let (filled, target) = (part(fill, columns), part(state.facts.target, columns));
        let bar = (0..columns).map(|column| match column {
            _ if column == target => '|',
            _ if column < filled => '█',
            _ => ' ',
        });
        let style = self.fill_style(fill, state.facts.target);
        Some(Line::from(vec![
            head("fill"),
            Span::raw("["),
            Span::styled(bar.collect::<String>(), style),
            Span::raw("]"),
        ]))
    }

    /// One column for each second, the newest on the right.
    fn history(&self, state: &State, rows: usize) -> Vec<Line<'static>> {
        let columns = self.width.saturating_sub(MARGIN);
        let seconds: Vec<_> = state.history.last(columns).collect();
        let name = if seconds.is_empty() { String::new() } else { format!("{columns} s") };
        let blocks = if self.look.has_eighths { " ▁▂▃▄▅▆▇█" } else { " ▄█" };
        let blocks: Vec<char> = blocks.chars().collect();
        let levels = blocks.len() - 1;
        let names = ["history".to_owned(), name];
        let row = |row: usize| {
            let mut spans = vec![head(names.get(row).map_or("", String::as_str))];
            spans.push(Span::raw(" ".repeat(columns - seconds.len())));
            for &(fill, stage) in &seconds {
                let height = part(fill, rows * levels).max(usize::from(fill > 0.0));
                let level = height.saturating_sub((rows - 1 - row) * levels).min(levels);
                let column = blocks[level].to_string();
                // Columns of one colour are one piece.
                let style = self.stage_style(stage);
                match spans.last_mut() {
                    Some(last) if last.style == style => last.content.to_mut().push_str(&column),
                    _ => spans.push(Span::styled(column, style)),
                }
            }
            Line::from(spans)
        };
        (0..rows).map(row).collect()
    }

    fn classes(&self, state: &State) -> Vec<Line<'static>> {
        let header = format!(
            "{:<MARGIN$}{:<9}{:>7}{:>9}{:>11}{:>8}  {}",
            "flows/s", "stage", "in", "admitted", "challenged", "refused", "refused by"
        );
        let mut lines = vec![Line::styled(fit(&header, self.width), bold())];
        for (class, rates) in Class::ALL.into_iter().zip(state.classes()) {
            let ClassRates { stage, admitted, challenged, refused, ref reasons } = rates;
            let reasons =
                reasons.iter().map(|(reason, rate)| format!("{reason} {}", number(*rate)));
            let reasons: Vec<_> = reasons.collect();
            let numbers = format!(
                "{:>7}{:>9}{:>11}{:>8}  {}",
                number(rates.arriving()),
                number(admitted),
                number(challenged),
                number(refused),
                reasons.join(", ")
            );
            lines.push(Line::from(vec![
                head(class.name()),
                Span::styled(format!("{:<9}", stage.name()), self.stage_style(stage)),
                Span::raw(fit(&numbers, self.width - MARGIN - 9)),
            ]));
        }
        lines
    }

    fn why(&self, state: &State, rows: usize) -> Vec<Line<'static>> {
        if state.stage() == Stage::Calm {
            let seconds = TUNING.pressure_horizon.as_secs();
            let text =
                format!("calm: room for {seconds} s and more; only ceilings that you set hold");
            return self.paragraph("why", &text, rows, Style::default());
        }
        // The highest stage first; classes that left calm together have a cause in common.
        let mut causes: Vec<(Stage, String, &str)> = Vec::new();
        let rates = state.classes();
        for (class, cause) in Class::ALL.into_iter().zip(&state.facts.causes) {
            let reached = rates[class as usize].stage;
            let Some(cause) = cause.as_deref().filter(|_| reached != Stage::Calm) else { continue };
            match causes.iter_mut().find(|(_, _, known)| *known == cause) {
                Some((highest, classes, _)) => {
                    *highest = (*highest).max(reached);
                    *classes = format!("{classes}, {}", class.name());
                }
                None => causes.push((reached, class.name().to_owned(), cause)),
            }
        }
        causes.sort_by_key(|(stage, ..)| Reverse(*stage));
        let mut lines = Vec::new();
        for (index, (_, classes, cause)) in causes.iter().enumerate() {
            let left = rows.saturating_sub(lines.len() + causes.len() - index - 1);
            let name = if index == 0 { "why" } else { "" };
            let text = format!("{classes}: {cause}");
            lines.extend(self.paragraph(name, &text, left.max(1), Style::default()));
        }
        if lines.is_empty() {
            lines = self.paragraph("why", "not noted yet", 1, Style::default());
        }
        lines.truncate(rows);
        lines
    }

    fn holders(&self, state: &State) -> Vec<Line<'static>> {
        let Some(holders) = &state.facts.holders else {
            return vec![self.row("held", "the daemon has not looked at the table yet")];
        };
        let states = holders.states.iter().map(|it| format!("{} {}", it.entries, it.state));
        let states: Vec<_> = states.collect();
        let held = if states.is_empty() { "no entries".to_owned() } else { states.join(", ") };
        let most = |most: Option<u32>| most.map_or("any number of".to_owned(), |it| it.to_string());
        let part = match holders.parts {
            None => {
                "all entries fit below the target, so each source may hold any number".to_owned()
            }
            Some(parts) => {
                let before = parts.connections_before.map(|it| format!(" ({it} if here before)"));
                format!(
                    "per source {} connections{}, {} others",
                    most(parts.connections),
                    before.unwrap_or_default(),
                    most(parts.other_entries)
                )
            }
        };
        let rates = &state.reclaim.rates;
        let reclaimed = if rates.is_empty() {
            "none now".to_owned()
        } else {
            let rates = rates.iter().map(|(class, rate)| format!("{} {class}", number(*rate)));
            format!("per second {}", rates.collect::<Vec<_>>().join(", "))
        };
        let reclaim = format!("{} can be reclaimed; {reclaimed}", entries(holders.reclaimable));
        vec![self.row("held", &held), self.row("part", &part), self.row("reclaim", &reclaim)]
    }

    fn challenges(&self, state: &State) -> Line<'static> {
        let challenged: f64 = state.classes().iter().map(|class| class.challenged).sum();
        let text = format!(
            "{} flows/s challenged, {} challenges/s answered",
            number(challenged),
            number(state.answered())
        );
        self.row("challenge", &text)
    }

    fn known(&self, state: &State) -> Line<'static> {
        let facts = &state.facts;
        let text = format!(
            "{} regular and {} proven sources; {} allowed, {} denied",
            facts.regulars,
            facts.proven,
            prefixes(facts.allowed as u64),
            facts.denied
        );
        self.row("known", &text)
    }

    /// Apart from refused flows, because each packet of a denied source counts.
    fn denied(&self, state: &State) -> Option<Line<'static>> {
        let packets = state.denied_packets();
        let verb = if state.facts.is_dry_run { "would be dropped" } else { "dropped" };
        let text = format!("{} packets/s from denied sources {verb}", number(packets));
        (packets > 0.0).then(|| self.row("denied", &text))
    }

    fn sources(&self, state: &State, view: &View, rows: usize) -> Vec<Line<'static>> {
        let sources = view.sources(state);
        let mark = |sort: Sort, name: &str| {
            if view.sort == sort { format!("{name}▼") } else { name.to_owned() }
        };
        let numbers =
            [(Sort::Holds, "holds"), (Sort::Asks, "asks/s"), (Sort::Refused, "refused/s")];
        let note = match &view.filter[..] {
            "" => "limit".to_owned(),
            filter => format!("{} of {}: {filter}", sources.len(), state.sources.len()),
        };
        let numbers = numbers.map(|(sort, name)| mark(sort, name));
        let header = columns(&mark(Sort::Name, "source"), "tier", numbers, &note);
        let header = if self.width >= WIDE { wide(&header, "entries") } else { header };
        let mut lines = vec![Line::styled(fit(&header, self.width), bold())];
        if sources.is_empty() {
            let text = if state.sources.is_empty() {
                "no source holds entries or asks for flows at a rate that is worth a line"
            } else {
                "no source is of this name or tier"
            };
            lines.push(Line::raw(text));
            return lines;
        }
        let selected = view.position(&sources);
        let rows = rows.saturating_sub(1);
        let first = (selected + 1).saturating_sub(rows);
        for (at, source) in sources.iter().enumerate().skip(first).take(rows) {
            let style = if at == selected {
                Style::default().add_modifier(Modifier::REVERSED)
            } else if source.refused > 0.0 {
                self.style(Color::Yellow, false)
            } else {
                Style::default()
            };
            lines.push(Line::styled(fit(&self.source(source), self.width), style));
        }
        lines
    }

    fn source(&self, source: &Source) -> String {
        let Source { name, tier, holds, states, asks, refused, limit } = source;
        let would = limit.as_ref().is_some_and(|limit| !limit.is_in_force);
        let refused = match number(*refused) {
            refused if would => format!("({refused})"),
            refused => refused,
        };
        let holds = holds.map_or("–".to_owned(), |holds| holds.to_string());
        let limit = limit.as_ref().map(limit_text).unwrap_or_default();
        let text = columns(&visible(name), tier, [holds, number(*asks), refused], &limit);
        if self.width < WIDE {
            return text;
        }
        let states: Vec<_> =
            states.iter().map(|(state, entries)| format!("{entries} {state}")).collect();
        wide(&text, &states.join(", "))
    }

    fn bottom(&self, state: &State, view: &View) -> Line<'static> {
        let (text, style) = match (&view.mode, &view.said, &state.problem) {
            (Mode::Confirm(change), ..) => {
                (format!("{} y: yes, any other key: no", change.question()), bold())
            }
            (Mode::Filter, ..) => (
                format!(
                    "filter: {}_  (part of a source's name, or a tier; Enter, Esc)",
                    view.filter
                ),
                bold(),
            ),
            (_, Some((said, _)), _) => (said.clone(), bold()),
            (_, _, Some(problem)) => (problem.clone(), self.style(Color::Red, true)),
            _ => {
                let keys = "a allow  d deny 10 min  n dry run  s sort  / filter  f freeze  ? help  \
                            q quit";
                (keys.to_owned(), Style::default())
            }
        };
        Line::styled(fit(&visible(&text), self.width), style)
    }

    fn help(&self, view: &View) -> Vec<Line<'static>> {
        let keys = [
            ("Up Down PgUp PgDn", "select a source (also k, j, Home, End)"),
            ("a", "allow it: no ceiling and no share limits it"),
            ("d", "deny it for 10 minutes: all of its packets are dropped"),
            ("n", "dry run on or off"),
            ("s", "sort by asks, refused, holds or name"),
            ("/", "show only sources with this in their name or tier"),
            ("f", "freeze the screen, and go on"),
            ("+ -", "faster, slower"),
            ("Ctrl-L", "draw the screen again"),
            ("q", "quit"),
        ];
        let words = [
            ("in", "new flows/s: admitted, challenged and refused"),
            ("holds", "entries of the table, of the 20 sources that hold most"),
            ("asks/s", "new flows/s, an average over some seconds of one in 16"),
            ("refused/s", "of these, at the daemon's last look at the table"),
            ("(refused/s)", "what would be, outside calm or without the dry run"),
            ("tier", "how a source is served: docs/architecture.md, \"Words\""),
        ];
        let row = |(name, text): (&str, &str)| {
            let line = format!("  {name:<20}{text}");
            Line::raw(fit(&line, self.width))
        };
        let title = format!("ctguard top: keys (refreshed every {})", period_text(view.period));
        let mut lines = vec![Line::styled(title, bold())];
        lines.extend(keys.into_iter().map(row));
        lines.push(Line::styled("words", bold()));
        lines.extend(words.into_iter().map(row));
        lines.push(Line::raw("any key goes back"));
        lines
    }

    fn row(&self, name: &'static str, text: &str) -> Line<'static> {
        Line::from(vec![head(name), Span::raw(fit(text, self.width.saturating_sub(MARGIN)))])
    }

    /// Text that is broken into at most so many rows.
    fn paragraph(&self, name: &str, text: &str, rows: usize, style: Style) -> Vec<Line<'static>> {
        let room = self.width.saturating_sub(MARGIN);
        let text = visible(text);
        let mut pieces: Vec<String> =
            textwrap::wrap(&text, room).into_iter().map(Cow::into_owned).collect();
        if pieces.len() > rows {
            let rest = pieces.split_off(rows.saturating_sub(1)).join(" ");
            pieces.push(fit(&rest, room));
        }
        let row = |(index, piece): (usize, String)| {
            let name = if index == 0 { name } else { "" };
            Line::from(vec![head(name), Span::styled(piece, style)])
        };
        pieces.into_iter().enumerate().map(row).collect()
    }

    fn fill_style(&self, fill: f64, target: f64) -> Style {
        let colour = if fill > target {
            Color::Red
        } else if fill > target / 2.0 {
            Color::Yellow
        } else {
            Color::Green
        };
        self.style(colour, false)
    }

    fn stage_style(&self, stage: Stage) -> Style {
        match stage {
            Stage::Calm => self.style(Color::Green, false),
            Stage::Fair => self.style(Color::Yellow, true),
            Stage::Challenge => self.style(Color::Red, true),
        }
    }

    fn style(&self, colour: Color, is_bold: bool) -> Style {
        let style = if is_bold { bold() } else { Style::default() };
        if self.look.is_coloured { style.fg(colour) } else { style }
    }
}

/// An empty row where there is space for it.
fn gap(lines: &mut Vec<Line<'static>>, is_roomy: bool) {
    if is_roomy {
        lines.push(Line::default());
    }
}

fn head(name: &str) -> Span<'static> {
    Span::raw(format!("{name:<MARGIN$}"))
}

fn bold() -> Style {
    Style::default().add_modifier(Modifier::BOLD)
}

fn columns(source: &str, tier: &str, numbers: [String; 3], limit: &str) -> String {
    let [holds, asks, refused] = numbers;
    // Padding counts columns, and not letters.
    let source = fit(source, 24);
    let pad = " ".repeat(24 - width(&source));
    format!("{source}{pad} {tier:<10}{holds:>7}{asks:>8}{refused:>11}  {limit}")
}

/// A row with the states of entries behind the other columns.
fn wide(row: &str, states: &str) -> String {
    format!("{}{} {states}", row, " ".repeat(STATES_AT.saturating_sub(width(row) + 1)))
}

fn limit_text(limit: &Limit) -> String {
    let Limit { kind, class, per_second, .. } = limit;
    format!("{kind} {}/s {class}", number(*per_second))
}

fn period_text(period: Duration) -> String {
    humantime::format_duration(period).to_string()
}

/// Three digits and a unit at most: `0`, `0.25`, `2.5`, `120`, `48.2k`, `1.40M`.
fn number(value: f64) -> String {
    match value {
        _ if value < 0.005 => "0".to_owned(),
        _ if value < 1.0 => format!("{value:.2}"),
        _ if value < 9.95 => format!("{value:.1}"),
        _ if value < 9_999.5 => format!("{value:.0}"),
        _ if value < 99_950.0 => format!("{:.1}k", value / 1e3),
        _ if value < 999_500.0 => format!("{:.0}k", value / 1e3),
        _ => format!("{:.2}M", value / 1e6),
    }
}

/// This part of `whole`, rounded.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "columns of a screen"
)]
fn part(ratio: f64, whole: usize) -> usize {
    (ratio.clamp(0.0, 1.0) * whole as f64).round() as usize
}

/// Columns that text takes.
fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Text that takes no more than so many columns; an ellipsis says that something is missing.
fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut taken = 0;
    for letter in text.chars() {
        taken += width(letter.encode_utf8(&mut [0; 4]));
        if taken + 1 > columns {
            break;
        }
        kept.push(letter);
    }
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let shown = [0.0, 0.004, 0.25, 2.53, 9.97, 120.4, 9_998.0, 48_210.0, 480_000.0, 1.4e6];
        let shown = shown.map(number);
        let expected = ["0", "0", "0.25", "2.5", "10", "120", "9998", "48.2k", "480k", "1.40M"];
        assert_eq!(shown, expected);
    }

    #[test]
    fn text_that_is_too_long_ends_in_an_ellipsis_and_wide_letters_count_twice() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("東京都", 4), "東…");
        assert_eq!(width(&fit("東京都", 5)), 5);
    }
}
