//! The scenarios that justify the defaults, each run to its end by the real `ctguard simulate`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use ctguard_tests::{product, require};

/// Fails when a default, or the controller, no longer gives what a scenario expects of it.
#[test]
fn every_scenario_comes_to_what_it_expects() -> Result<()> {
    if !require::release_binary("every_scenario_comes_to_what_it_expects") {
        return Ok(());
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scenarios");
    let files = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut files: Vec<PathBuf> =
        files.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    ensure!(!files.is_empty(), "{} has no scenarios", directory.display());

    let binary = product::binary()?;
    let waiting = Mutex::new(files);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let runs = thread::scope(|scope| {
        let work = || {
            let mut runs = Vec::new();
            while let Some(file) = next() {
                runs.push(Command::new(&binary).arg("simulate").arg(&file).output()?);
            }
            Ok(runs)
        };
        let workers = [(); 2].map(|()| scope.spawn(work));
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;

    let mut missed = Vec::new();
    for run in runs.into_iter().flatten() {
        let told = String::from_utf8_lossy(&run.stdout).into_owned();
        println!("{told}{}", String::from_utf8_lossy(&run.stderr));
        missed.extend((!run.status.success()).then_some(told));
    }
    ensure!(missed.is_empty(), "not as expected:\n{}", missed.join("\n"));
    Ok(())
}
