//! The two text formats: that of Prometheus (version 0.0.4), which promtool reads, and OpenMetrics 1.0.
//!
//! They differ in the names of counters in `# TYPE`, in `info`, and in the last line, without which a
//! scrape of OpenMetrics fails as a whole. It fails for an empty line and for other comments too.

use std::fmt::Write as _;

use super::catalog::{FAMILIES, Kind, Sample};
use crate::report::StatusReport;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What a client asks for by its `Accept` header.
    pub(super) fn accepted(header: Option<&str>) -> Self {
        match header {
            Some(text) if text.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }
}

/// All metrics of a guard.
pub(crate) fn write(status: &StatusReport, format: Format) -> String {
    let mut text = String::new();
    for family in FAMILIES {
        let samples = family.samples(status);
        if samples.is_empty() {
            continue;
        }
        let name = family.name;
        let full_name = match family.kind {
            Kind::Counter => format!("{name}_total"),
            Kind::Gauge => name.to_owned(),
            Kind::Info => format!("{name}_info"),
        };
        let (titled, kind) = match (format, family.kind) {
            (Format::OpenMetrics, Kind::Counter) => (name, "counter"),
            (Format::OpenMetrics, Kind::Info) => (name, "info"),
            (_, Kind::Gauge) => (name, "gauge"),
            (Format::Prometheus, Kind::Counter) => (&full_name[..], "counter"),
            (Format::Prometheus, Kind::Info) => (&full_name[..], "gauge"),
        };
        // A string takes all that is written to it.
        let _ = writeln!(text, "# HELP {titled} {}\n# TYPE {titled} {kind}", family.help);
        for Sample { labels, value } in samples {
            let labels = labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escaped(text)));
            let labels = labels.collect::<Vec<_>>().join(",");
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            let _ = writeln!(text, "{full_name}{labels} {value}");
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_openmetrics_where_it_asks_for_it() {
        let asked =
            "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::accepted(Some(asked)), Format::OpenMetrics);
        assert_eq!(Format::accepted(Some("text/plain;version=0.0.4")), Format::Prometheus);
        assert_eq!(Format::accepted(None), Format::Prometheus);
    }

    #[test]
    fn a_label_cannot_end_its_line_or_its_quotes() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
