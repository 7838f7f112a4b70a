//! A first configuration, with the reason for each line.

use std::fmt::Write as _;

use super::Facts;
use crate::doctor::LEAST_OF_ROUTER;

/// Lines of the file are no longer.
const WIDTH: usize = 100;

impl Facts {
    /// The configuration that fits, as the file's text. It is the same as long as the machine is.
    #[must_use]
    pub fn document(&self) -> String {
        let mut text = String::new();
        comment(
            &mut text,
            "Proposed by `ctguard init`. Change it as you like, then: ctguard config check",
        );
        comment(&mut text, &format!("This machine: {}.", self.roles.join(", ")));
        for (protocol, ports) in self.served.iter().filter(|(_, ports)| !ports.is_empty()) {
            let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
            comment(&mut text, &format!("It serves {protocol} {}.", ports.join(", ")));
        }
        self.interfaces(&mut text);
        text.push('\n');
        comment(
            &mut text,
            "Decide and count, but drop nothing. `ctguard status` names the sources that a limit would refuse; `ctguard enforce` ends this.",
        );
        text.push_str("dry-run = true\n");
        self.target(&mut text);
        if !self.clients.is_empty() {
            text.push('\n');
            comment(
                &mut text,
                "You are logged in from here: no limit on the rate. Name your whole network if it has more administrators.",
            );
            let clients: Vec<_> =
                self.clients.iter().map(|client| format!("\"{client}\"")).collect();
            let _ = writeln!(text, "allow = [{}]", clients.join(", "));
        }
        if self.serves_dns {
            text.push('\n');
            comment(
                &mut text,
                "DNS is served over UDP and TCP: during a flood, ask resolvers to come back over TCP instead of leaving them without an answer. Set it to false if most clients are simple ones that never use TCP (busybox, musl before 1.2.4).",
            );
            text.push_str("dns = true\n");
        }
        text.push('\n');
        comment(
            &mut text,
            "All else has its default: ctguard config default. Limits on the rates of single sources hold only while the table is under pressure, unless you set them.",
        );
        text
    }

    fn interfaces(&self, text: &mut String) {
        text.push('\n');
        for guarded in &self.interfaces {
            comment(text, &format!("{} ({}): {}.", guarded.name, guarded.driver, guarded.reason));
        }
        for passed in &self.passed {
            comment(text, &format!("Not {}: {}.", passed.name, passed.reason));
        }
        // A string of JSON is one of TOML.
        let quoted = |name: &str| serde_json::Value::from(name).to_string();
        let names: Vec<_> = self.interfaces.iter().map(|it| quoted(&it.name)).collect();
        if names.is_empty() {
            comment(text, "No interface with a route can be guarded; name one here.");
            text.push_str("#interfaces = []\n");
        } else {
            let _ = writeln!(text, "interfaces = [{}]", names.join(", "));
        }
    }

    fn target(&self, text: &mut String) {
        text.push('\n');
        let forwards = !self.roles.iter().any(|role| role == "server");
        let table = match self.table_max {
            None => "Conntrack is not loaded yet, so the table has no size yet.".to_owned(),
            Some(0) => "The table has no maximum, so only ceilings apply.".to_owned(),
            Some(max) if forwards && max < LEAST_OF_ROUTER => {
                format!("The table takes {max} entries, which is little: see `ctguard tune`.")
            }
            Some(max) => format!("The table takes {max} entries."),
        };
        comment(text, &format!("{table} The guard keeps it below this share."));
        text.push_str("target = \"85%\"\n");
    }
}

/// Writes comment lines. Nothing from outside can end a comment.
fn comment(text: &mut String, words: &str) {
    let mut line = "#".to_owned();
    for word in words.split_whitespace() {
        let word = word.replace(char::is_control, "?");
        if line.chars().count() + 1 + word.chars().count() > WIDTH && line != "#" {
            text.push_str(&line);
            text.push('\n');
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(&word);
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ctguard_kernel::net::Link;
    use ctguard_settings::{Entry, read_document};

    use super::{
        super::facts::tests::{facts, link, machine},
        *,
    };

    fn written(facts: &Facts) -> Vec<Entry> {
        let text = facts.document();
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
        let entries = read_document(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        entries.into_iter().map(|(entry, _)| entry).collect()
    }

    #[test]
    fn every_proposal_can_be_read_and_is_a_dry_run() {
        let routes = [("en-0.7", true), ("wg0", false)];
        let machine = machine("init-file", true, true, &routes);
        let links = [
            link(2, "en-0.7", None, None),
            Link { hardware: 65_534, ..link(7, "wg0", Some("wireguard"), None) },
        ];
        let mut all = facts(&machine, &links);
        all.clients = BTreeSet::from(["2001:db8::7".parse().unwrap()]);
        all.serves_dns = true;
        for facts in [all.clone(), Facts::default()] {
            let entries = written(&facts);
            let dry_run: Entry = Entry::Setting("dry-run=on".parse().unwrap());
            assert!(entries.contains(&dry_run), "{entries:?}");
        }
        let entries = written(&all);
        assert!(entries.contains(&Entry::Interfaces(vec!["en-0.7".to_owned()])));
        assert!(entries.contains(&Entry::Setting("dns=on".parse().unwrap())));
        assert!(entries.iter().any(|entry| matches!(entry, Entry::Listed(..))));
    }

    /// Fails when `init` writes a file that no start can use.
    #[test]
    fn an_interface_may_have_any_name_that_the_kernel_takes() {
        let name = "a\"b\\c'd#e[";
        let routes = [(name, true)];
        let machine = machine("init-names", true, true, &routes);
        let entries = written(&facts(&machine, &[link(2, name, None, None)]));
        assert!(entries.contains(&Entry::Interfaces(vec![name.to_owned()])), "{entries:?}");
    }

    /// Fails when an interface's name or a driver's can write a line of the file.
    #[test]
    fn what_others_named_stays_in_its_comment() {
        let mut text = String::new();
        comment(&mut text, "a\u{1b}b: x\nallow = [\"0.0.0.0/1\"]");
        assert_eq!(text, "# a?b: x allow = [\"0.0.0.0/1\"]\n");
    }
}
