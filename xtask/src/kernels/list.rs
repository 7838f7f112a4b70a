//! The kernels that ctguard is tried on: a line each.

use anyhow::{Result, bail};

/// A kernel that the distribution has packages of.
pub(crate) struct Kernel {
    /// What it is asked for by.
    pub(crate) name: &'static str,
    /// How the names of its packages start.
    package_start: &'static str,
    /// How they end; `-unsigned` may follow.
    package_end: &'static str,
}

/// For each, the newest package that apt offers.
const KERNELS: &[Kernel] = &[
    debian("6.1", "linux-image-6.1.0-", "-cloud-amd64"),
    debian("6.12", "linux-image-6.12.", "+deb12-cloud-amd64"),
];

/// The kernels of these names, or all.
pub(crate) fn wanted(names: &[String]) -> Result<Vec<&'static Kernel>> {
    if let Some(unknown) = names.iter().find(|name| KERNELS.iter().all(|it| it.name != **name)) {
        let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
        bail!("there is no kernel {unknown} in the list; there are {}", known.join(", "));
    }
    let is_wanted = |kernel: &&Kernel| names.is_empty() || names.iter().any(|it| it == kernel.name);
    Ok(KERNELS.iter().filter(is_wanted).collect())
}

const fn debian(
    name: &'static str,
    package_start: &'static str,
    package_end: &'static str,
) -> Kernel {
    Kernel { name, package_start, package_end }
}

impl Kernel {
    /// The newest of `packages` that holds this kernel.
    pub(crate) fn newest<'p>(&self, packages: impl Iterator<Item = &'p str>) -> Option<&'p str> {
        packages
            .filter_map(|package| Some((self.version(package)?, package)))
            // Of two that are equal, the signed one.
            .max_by_key(|(version, package)| (version.clone(), !package.ends_with(UNSIGNED)))
            .map(|(_, package)| package)
    }

    /// Its packages in words.
    pub(crate) fn described(&self) -> String {
        format!("{}*{}", self.package_start, self.package_end)
    }

    /// The numbers in the middle of a package's name; none if it is another kernel's.
    fn version(&self, package: &str) -> Option<Vec<u32>> {
        let name = package.strip_suffix(UNSIGNED).unwrap_or(package);
        let middle = name.strip_prefix(self.package_start)?.strip_suffix(self.package_end)?;
        middle.split('.').map(|number| number.parse().ok()).collect()
    }
}

const UNSIGNED: &str = "-unsigned";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_is_the_one_with_the_highest_number() {
        let kernel = debian("6.12", "linux-image-6.12.", "+deb12-cloud-amd64");
        let packages = [
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.100+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.100+deb12-cloud-amd64",
            "linux-image-6.12.200+deb12-cloud-amd64-dbg",
            "linux-image-6.12.200+deb12-rt-amd64",
        ];
        let newest = kernel.newest(packages.into_iter());
        assert_eq!(newest, Some("linux-image-6.12.100+deb12-cloud-amd64"));
        assert_eq!(kernel.newest(packages[..1].iter().copied()), None);
    }

    #[test]
    fn an_unsigned_package_does_when_it_is_newer() {
        let kernel = debian("6.1", "linux-image-6.1.0-", "-cloud-amd64");
        let packages =
            ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-10-cloud-amd64-unsigned"];
        assert_eq!(kernel.newest(packages.into_iter()), Some(packages[1]));
    }

    #[test]
    fn an_unknown_kernel_is_told_with_those_that_there_are() {
        let error = wanted(&["5.4".to_owned()]).err().unwrap().to_string();
        assert!(error.ends_with("there are 6.1, 6.12"), "{error}");
        assert_eq!(wanted(&["6.1".to_owned()]).unwrap().len(), 1);
        assert_eq!(wanted(&[]).unwrap().len(), KERNELS.len());
    }
}
