//! The digest of what an eBPF object is made of: the code of its crates without their tests, the
//! profile, locked dependencies and the compiler's flags.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use toml::Table;

const PROFILE: &str = "bpf";

/// Sets `cfg`s for build scripts and is locked itself; what it needs never reaches an object.
const BUILD_ONLY: &str = "aya-build";

/// Named pieces of content; their order of arrival does not matter.
#[derive(Default)]
pub(super) struct Sources(BTreeMap<String, Vec<u8>>);

impl Sources {
    /// Gathers all that decides what the objects are, save the compiler.
    pub(super) fn gather(root: &Path, crates: &[&str], flags: &[&str]) -> Result<Self> {
        let mut sources = Self::default();
        let (mut packages, mut dependencies) = (BTreeSet::new(), BTreeSet::new());
        for directory in crates {
            sources.add_directory(root, &format!("{directory}/src"))?;
            let manifest = parse(root, &format!("{directory}/Cargo.toml"))?;
            let name = lookup(&manifest, &["package", "name"]).and_then(toml::Value::as_str);
            packages.extend(name.map(str::to_owned));
            dependencies.extend(direct_dependencies(&manifest));
            for table in ["features", "bin", "dependencies"] {
                sources.add(&format!("{directory} {table}"), format!("{:?}", manifest.get(table)));
            }
        }

        let workspace = parse(root, "Cargo.toml")?;
        sources.add("workspace dependencies", workspace_dependencies(&workspace, &dependencies));
        sources.add(
            "edition",
            format!("{:?}", lookup(&workspace, &["workspace", "package", "edition"])),
        );
        let lock: Lock = parse(root, "Cargo.lock")?
            .try_into()
            .context("Cargo.lock is not as cargo writes it")?;
        let locked = lock.needed(&dependencies);
        packages.extend(locked.iter().map(|package| package.name.clone()));
        sources.add("profile", profiles(&workspace, PROFILE, &packages));
        sources.add("lock", locked.iter().map(|package| package.entry()).collect::<String>());
        sources.add("flags", flags.join("\n"));
        Ok(sources)
    }

    /// The SHA-256 of all pieces, in hexadecimal.
    pub(super) fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        for (name, content) in &self.0 {
            // Lengths keep one piece from being taken for another's end.
            for part in [name.as_bytes(), content] {
                hasher.update((part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        hexadecimal(&hasher.finalize())
    }

    fn add(&mut self, name: &str, content: impl Into<Vec<u8>>) {
        self.0.insert(name.to_owned(), content.into());
    }

    fn add_file(&mut self, root: &Path, name: &str) -> Result<()> {
        let path = root.join(name);
        let content =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        self.add(name, without_tests(&content));
        Ok(())
    }

    fn add_directory(&mut self, root: &Path, name: &str) -> Result<()> {
        let path = root.join(name);
        let cannot_list = || format!("cannot list {}", path.display());
        for entry in fs::read_dir(&path).with_context(cannot_list)? {
            let entry = entry.with_context(cannot_list)?;
            let file_name = entry.file_name().to_string_lossy().into_owned();
            let inner = format!("{name}/{file_name}");
            if entry.file_type().with_context(cannot_list)?.is_dir() {
                if file_name != "tests" {
                    self.add_directory(root, &inner)?;
                }
            } else if !is_leftover(&file_name) && !is_test(&file_name) {
                self.add_file(root, &inner)?;
            }
        }
        Ok(())
    }
}

/// The SHA-256 of `bytes`, in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Whether an editor left this file behind.
fn is_leftover(file_name: &str) -> bool {
    file_name.starts_with('.') || file_name.ends_with('~')
}

/// Whether a file holds tests, or what they need, alone.
fn is_test(file_name: &str) -> bool {
    matches!(file_name, "tests.rs" | "testing.rs")
}

/// A file's code up to its tests, which are the last thing in it.
fn without_tests(code: &str) -> &str {
    code.split_once("\n#[cfg(test)]\nmod tests {").map_or(code, |(product, _)| product)
}

fn parse(root: &Path, name: &str) -> Result<Table> {
    let text =
        fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"))?;
    text.parse().with_context(|| format!("cannot parse {name}"))
}

/// The profile `name` and those it inherits from, with what they say of `packages` but no others.
fn profiles(workspace: &Table, name: &str, packages: &BTreeSet<String>) -> String {
    let mut text = String::new();
    let mut next = Some(name);
    while let Some(name) = next {
        let profile = lookup(workspace, &["profile", name]).and_then(toml::Value::as_table);
        let own = profile.cloned().map(|mut own| {
            if let Some(toml::Value::Table(mut overrides)) = own.remove("package") {
                overrides.retain(|spec, _| applies_to(spec, packages));
                if !overrides.is_empty() {
                    own.insert("package".to_owned(), overrides.into());
                }
            }
            own
        });
        _ = writeln!(text, "{name} {own:?}");
        next = profile
            .and_then(|profile| profile.get("inherits"))
            .and_then(toml::Value::as_str)
            // Cargo refuses a circle, but may not have been asked yet.
            .filter(|inherited| *inherited != name);
    }
    text
}

/// Whether an override for the package `spec` reaches one of `packages`.
fn applies_to(spec: &str, packages: &BTreeSet<String>) -> bool {
    let name = spec.split('@').next().unwrap_or_default();
    name == "*" || name.contains([':', '#']) || packages.contains(name)
}

/// The direct dependencies of the crate whose manifest this is, those of its tests apart.
fn direct_dependencies(manifest: &Table) -> BTreeSet<String> {
    let names = |table: &str| manifest.get(table).and_then(toml::Value::as_table).map(Table::keys);
    let tables = ["dependencies", "build-dependencies"];
    tables.into_iter().filter_map(names).flatten().cloned().collect()
}

/// What the workspace says of `names`, for where the crate inherits it.
fn workspace_dependencies(workspace: &Table, names: &BTreeSet<String>) -> String {
    let said = |name: &String| {
        let dependency = lookup(workspace, &["workspace", "dependencies", name])?;
        Some(format!("{name} {dependency:?}\n"))
    };
    names.iter().filter_map(said).collect()
}

fn lookup<'t>(table: &'t Table, path: &[&str]) -> Option<&'t toml::Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(*key))
}

/// Cargo.lock, as far as it matters here.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

impl Lock {
    /// `roots` and all they need, sorted.
    fn needed(&self, roots: &BTreeSet<String>) -> BTreeSet<&Locked> {
        let mut found = BTreeSet::new();
        let mut wanted: Vec<&str> = roots.iter().map(String::as_str).collect();
        while let Some(reference) = wanted.pop() {
            for package in self.package.iter().filter(|package| package.is(reference)) {
                if found.insert(package) && package.name != BUILD_ONLY {
                    wanted.extend(package.dependencies.iter().map(String::as_str));
                }
            }
        }
        found
    }
}

impl Locked {
    /// What tells it from all others, in a line.
    fn entry(&self) -> String {
        let checksum = self.checksum.as_deref().unwrap_or_default();
        format!("{} {} {checksum}\n", self.name, self.version)
    }

    /// Whether `reference` means this package: its name, and its version where there are several.
    fn is(&self, reference: &str) -> bool {
        let mut words = reference.split(' ');
        words.next() == Some(&self.name)
            && words.next().is_none_or(|version| version == self.version)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[(&str, &str)]) -> String {
        let mut sources = Sources::default();
        for (name, content) in pieces {
            sources.add(name, *content);
        }
        sources.digest()
    }

    fn lock(text: &str) -> String {
        let lock: Lock = toml::from_str(text).unwrap();
        let needed = lock.needed(&BTreeSet::from(["aya-ebpf".to_owned()]));
        needed.iter().map(|package| package.entry()).collect()
    }

    const LOCK: &str = r#"
        package = [
            { name = "anyhow", version = "1.0.0" },
            { name = "aya-build", version = "0.2.0", dependencies = ["anyhow"] },
            { name = "aya-ebpf", version = "0.2.1", dependencies = ["aya-build", "syn 2.0.0"] },
            { name = "syn", version = "1.0.0" },
            { name = "syn", version = "2.0.0", checksum = "c0" },
            { name = "tokio", version = "1.0.0" },
        ]
    "#;

    #[test]
    fn the_digest_does_not_depend_on_the_order_of_files() {
        assert_eq!(of(&[("a.rs", "1"), ("b.rs", "2")]), of(&[("b.rs", "2"), ("a.rs", "1")]));
    }

    #[test]
    fn the_digest_changes_with_any_name_or_content() {
        let original = of(&[("a.rs", "1"), ("b.rs", "2")]);
        assert_ne!(original, of(&[("a.rs", "1"), ("b.rs", "3")]));
        assert_ne!(original, of(&[("a.rs", "1"), ("c.rs", "2")]));
        assert_ne!(original, of(&[("a.rs", "1")]));
        assert_ne!(original, of(&[("a.rs", "1b.rs2"), ("b.rs", "")]));
    }

    #[test]
    fn locked_entries_are_those_the_objects_are_made_of() {
        assert_eq!(lock(LOCK), "aya-build 0.2.0 \naya-ebpf 0.2.1 \nsyn 2.0.0 c0\n");
    }

    #[test]
    fn an_unrelated_dependency_does_not_change_the_entries() {
        let bumped = LOCK
            .replace(r#""tokio", version = "1.0.0""#, r#""tokio", version = "1.1.0""#)
            .replace(r#""anyhow", version = "1.0.0""#, r#""anyhow", version = "1.1.0""#);
        assert_ne!(LOCK, bumped);
        assert_eq!(lock(LOCK), lock(&bumped));
    }

    #[test]
    fn profiles_include_those_they_inherit_from() {
        let profiles = bpf_profiles("");
        assert!(profiles.contains("thin") && !profiles.contains("opt-level"), "{profiles}");
    }

    #[test]
    fn a_profile_for_another_package_needs_no_new_object() {
        let of = |spec: &str| {
            bpf_profiles(&format!("[profile.release.package.{spec}]\nopt-level = \"s\""))
        };
        assert_eq!(of("clap_builder"), bpf_profiles(""));
        for spec in ["aya-ebpf", "\"aya-ebpf@0.2.1\"", "\"*\""] {
            assert_ne!(of(spec), bpf_profiles(""), "{spec}");
        }
    }

    fn bpf_profiles(more: &str) -> String {
        let workspace = r#"
            [profile.dev]
            opt-level = 1
            [profile.release]
            lto = "thin"
            [profile.bpf]
            inherits = "release"
        "#;
        let workspace: Table = format!("{workspace}\n{more}").parse().unwrap();
        profiles(&workspace, "bpf", &BTreeSet::from(["aya-ebpf".to_owned()]))
    }

    #[test]
    fn dependencies_of_tests_are_left_out() {
        let manifest: Table =
            "[dependencies]\na = \"1\"\n[dev-dependencies]\nb = \"1\"".parse().unwrap();
        assert_eq!(direct_dependencies(&manifest), BTreeSet::from(["a".to_owned()]));
    }

    #[test]
    fn a_change_of_tests_alone_needs_no_new_object() {
        let code = "fn judge() {}\n";
        let tested = format!("{code}\n#[cfg(test)]\nmod tests {{\n    fn one() {{}}\n}}\n");
        assert_eq!(without_tests(&tested), code);
        assert_eq!(without_tests(code), code);
        assert!(is_test("tests.rs") && is_test("testing.rs") && !is_test("guard.rs"));
    }

    #[test]
    fn what_editors_leave_behind_is_no_source() {
        assert!(is_leftover(".main.rs.swp") && is_leftover("main.rs~") && !is_leftover("main.rs"));
    }

    #[test]
    fn sha256_is_the_published_one() {
        let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), of_nothing);
    }
}
