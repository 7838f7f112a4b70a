//! What kube-proxy is told: by its command line, by its file, by k3s's configuration, or by the file of
//! arguments that `MicroK8s` has.

use crate::host::Host;

const ARGUMENTS_OF_MICROK8S: &str = "/var/snap/microk8s/current/args/kube-proxy";
const K3S: &str = "/etc/rancher/k3s/config.yaml";
const DROP_INS_OF_K3S: &str = "/etc/rancher/k3s/config.yaml.d";

/// A setting that kube-proxy makes unless it is told 0, its option, and the entry of its file …
const UNLESS_ZERO: [(&str, &str, &str); 3] = [
    ("max", "conntrack-max-per-core", "maxPerCore"),
    ("tcp_timeout_established", "conntrack-tcp-timeout-established", "tcpEstablishedTimeout"),
    ("tcp_timeout_close_wait", "conntrack-tcp-timeout-close-wait", "tcpCloseWaitTimeout"),
];
/// … and those that it makes only if it is told a value.
const IF_GIVEN: [(&str, &str, &str); 2] = [
    ("udp_timeout", "conntrack-udp-timeout", "udpTimeout"),
    ("udp_timeout_stream", "conntrack-udp-timeout-stream", "udpStreamTimeout"),
];

#[derive(Debug)]
pub(super) struct Told {
    words: Vec<String>,
    /// Of its file.
    entries: Vec<(String, String)>,
    /// Its file, where it cannot be read.
    pub(super) unread: Option<String>,
}

impl Told {
    /// `line` is the command line of a process of this name and number.
    pub(super) fn read(host: &Host, (pid, name): (u32, &str), line: &str) -> Self {
        let text = |path: &str| host.text(path).ok().flatten().unwrap_or_default();
        let mut words = words(line);
        if name == "kubelite" {
            let own = value(&words, "proxy-args-file").map(str::to_owned);
            words.extend(words_of(&text(own.as_deref().unwrap_or(ARGUMENTS_OF_MICROK8S))));
        } else if name.starts_with("k3s") {
            let own = value(&words, "config").or_else(|| value(&words, "c")).map(str::to_owned);
            words.retain(|word| !word.trim_start_matches('-').starts_with("config"));
            words.extend(words_of(&text(own.as_deref().unwrap_or(K3S))));
            for file in host.names(DROP_INS_OF_K3S).unwrap_or_default() {
                words.extend(words_of(&text(&format!("{DROP_INS_OF_K3S}/{file}"))));
            }
        }
        // In a pod, as kubeadm runs it, the path is one of the pod's.
        let seen = host.seen_by(pid);
        let seen = seen.as_ref().unwrap_or(host);
        let path = value(&words, "config");
        let file = path.and_then(|path| seen.text(path).ok().flatten());
        let unread = path.filter(|_| file.is_none()).map(str::to_owned);
        let file = file.unwrap_or_default();
        let pairs = file.lines().filter_map(|line| line.split('#').next()?.split_once(':'));
        let bare = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
        let entries = pairs.map(|(key, value)| (bare(key), bare(value))).collect();
        Self { words, entries, unread }
    }

    pub(super) fn is_disabled(&self) -> bool {
        value(&self.words, "disable-kube-proxy").is_some_and(|value| value != "false")
    }

    /// The settings that it makes.
    pub(super) fn sets(&self) -> impl Iterator<Item = &'static str> {
        let given = |option: &str, entry: &str| {
            let in_file = self.entries.iter().find(|(key, _)| key == entry);
            let in_file = in_file.map(|(_, value)| value.as_str());
            value(&self.words, option).or(in_file).map(|value| !["0", "0s"].contains(&value))
        };
        let unless = UNLESS_ZERO.iter().filter(move |it| given(it.1, it.2) != Some(false));
        let only_if = IF_GIVEN.iter().filter(move |it| given(it.1, it.2) == Some(true));
        let all: Vec<_> = unless.chain(only_if).map(|(key, ..)| *key).collect();
        all.into_iter()
    }
}

/// The words of options and of YAML, without what encloses and separates them.
fn words(text: &str) -> Vec<String> {
    let all = text.split([' ', '\t', '"', '\'', ',', '[', ']']);
    all.filter(|word| !word.is_empty() && *word != "-").map(str::to_owned).collect()
}

fn words_of(file: &str) -> Vec<String> {
    let lines = file.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(words).collect()
}

/// The value of `--NAME=VALUE`, `--NAME VALUE`, `NAME: VALUE`, also below `--kube-proxy-arg=`; a switch
/// without one has "true". The last counts.
fn value<'w>(words: &'w [String], name: &str) -> Option<&'w str> {
    words.iter().enumerate().rev().find_map(|(at, word)| {
        let bare = word.trim_start_matches('-');
        let bare = bare.strip_prefix("kube-proxy-arg=").unwrap_or(bare).trim_start_matches('-');
        let rest = bare.strip_prefix(name)?;
        match rest {
            "" | ":" => {
                let next = words.get(at + 1).filter(|next| !next.starts_with('-'));
                Some(next.map_or("true", String::as_str))
            }
            _ => rest.strip_prefix('='),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::Fake;

    const ALL: [&str; 3] = ["max", "tcp_timeout_established", "tcp_timeout_close_wait"];

    fn told(name: &str, line: &str, files: &[(&str, &str)]) -> (bool, Vec<&'static str>) {
        let fake = Fake::new("kube-proxy", files);
        let told = Told::read(&fake.host, (9, name), line);
        (told.is_disabled(), told.sets().collect())
    }

    #[test]
    fn what_kube_proxy_is_told_to_leave_alone_is_read_wherever_it_is_said() {
        let config = "conntrack:\n  maxPerCore: 0 # ours\n  tcpEstablishedTimeout: \"0s\"\n\
            kind: KubeProxyConfiguration\n";
        let file = ("/var/lib/kube-proxy/config.conf", config);
        for (name, line, files, sets) in [
            ("kube-proxy", "kube-proxy", &[][..], &ALL[..]),
            ("kube-proxy", "kube-proxy --conntrack-max-per-core=0", &[], &ALL[1..]),
            ("kube-proxy", "kube-proxy --conntrack-max-per-core 0 -v 2", &[], &ALL[1..]),
            ("kube-proxy", "kube-proxy --conntrack-max-per-core=10", &[], &ALL[..]),
            (
                "kube-proxy",
                "kube-proxy --config=/var/lib/kube-proxy/config.conf",
                &[file],
                &ALL[2..],
            ),
            (
                "kube-proxy",
                "kube-proxy --config /var/lib/kube-proxy/config.conf",
                &[file],
                &ALL[2..],
            ),
            (
                "kubelite",
                "/snap/microk8s/1/kubelite --kubelet-args-file=x",
                &[(ARGUMENTS_OF_MICROK8S, "--conntrack-max-per-core=0\n--profiling=false\n")],
                &ALL[1..],
            ),
            (
                "kubelite",
                "kubelite --proxy-args-file=/srv/args",
                &[(
                    "/srv/args",
                    "#--conntrack-max-per-core=0\n--conntrack-tcp-timeout-close-wait=0s\n",
                )],
                &ALL[..2],
            ),
            (
                "k3s-server",
                "/usr/local/bin/k3s server --kube-proxy-arg=conntrack-max-per-core=0",
                &[],
                &ALL[1..],
            ),
            (
                "k3s-agent",
                "k3s agent",
                &[(
                    K3S,
                    "kube-proxy-arg:\n  - \"conntrack-max-per-core=0\"\n  - conntrack-tcp-timeout-close-wait=0s\n",
                )],
                &ALL[1..2],
            ),
            (
                "k3s-server",
                "k3s server",
                &[(
                    "/etc/rancher/k3s/config.yaml.d/a.yaml",
                    "kube-proxy-arg: ['conntrack-max-per-core=0']\n",
                )],
                &ALL[1..],
            ),
        ] {
            assert_eq!(told(name, line, files), (false, sets.to_vec()), "{line} {files:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let fake = Fake::new("kube-proxy-unread", &[("/there", "mode: nftables\n")]);
        let unread = |line: &str| Told::read(&fake.host, (9, "kube-proxy"), line).unread;
        assert_eq!(unread("kube-proxy --config=/absent").as_deref(), Some("/absent"));
        assert_eq!([unread("kube-proxy --config=/there"), unread("kube-proxy")], [None, None]);
    }

    #[test]
    fn a_kube_proxy_that_is_turned_off_is_known() {
        let is_off = |line: &str, files: &[(&str, &str)]| told("k3s-server", line, files).0;
        assert!(is_off("k3s server --disable-kube-proxy", &[]));
        assert!(is_off("k3s server --disable-kube-proxy --flannel-backend=none", &[]));
        assert!(is_off("k3s server", &[(K3S, "disable-kube-proxy: true\n")]));
        assert!(!is_off("k3s server", &[(K3S, "# disable-kube-proxy: true\n")]));
        assert!(!is_off("k3s server --disable-kube-proxy=false", &[]));
    }

    #[test]
    fn timeouts_of_udp_are_kube_proxys_only_if_it_is_told_one() {
        let (_, sets) = told("kube-proxy", "kube-proxy --conntrack-udp-timeout-stream=3m", &[]);
        assert_eq!(sets.last(), Some(&"udp_timeout_stream"));
        assert_eq!(sets.len(), 4);
    }
}
