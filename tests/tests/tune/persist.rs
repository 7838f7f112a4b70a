//! What is written for the next boot, beside what others have written.

use anyhow::{Result, ensure};
use ctguard_tests::require;

use super::machine::Machine;

fn tune(machine: &Machine, arguments: &[&str]) -> Result<String> {
    let output = machine.tune(arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fails when somebody believes in a file that another's undoes at each boot.
#[test]
fn a_line_of_anothers_that_counts_all_the_same_is_named() -> Result<()> {
    if !require::release_binary("a_line_of_anothers_that_counts_all_the_same_is_named") {
        return Ok(());
    }
    let machine = Machine::new("persist-ufw")?;
    machine.write("etc/ufw/ufw.conf", "ENABLED=yes\n")?;
    machine.write("etc/ufw/sysctl.conf", "# of ufw\nnet/netfilter/nf_conntrack_max=65536\n")?;
    let said = tune(&machine, &["--max", "20000", "--apply", "--persist"])?;
    ensure!(
        said.contains("/etc/ufw/sysctl.conf:2 sets net.netfilter.nf_conntrack_max to 65536"),
        "{said}"
    );
    Ok(())
}

#[test]
fn without_apply_files_are_told_and_not_written() -> Result<()> {
    if !require::release_binary("without_apply_files_are_told_and_not_written") {
        return Ok(());
    }
    let machine = Machine::new("persist-dry")?;
    let before = machine.files()?;
    let said = tune(&machine, &["--persist"])?;
    ensure!(said.contains("would write /etc/sysctl.d/zz-ctguard.conf"), "{said}");
    ensure!(machine.files()? == before, "something was written");
    Ok(())
}

/// Fails when what was set for now alone is told to be as it shall be when it is to be persisted.
#[test]
fn what_was_applied_is_persisted_afterwards_as_well() -> Result<()> {
    if !require::release_binary("what_was_applied_is_persisted_afterwards_as_well") {
        return Ok(());
    }
    let machine = Machine::new("persist-later")?;
    let before = machine.files()?;
    tune(&machine, &["--max", "20000", "--apply"])?;
    let said = tune(&machine, &["--apply", "--persist"])?;
    ensure!(said.contains("wrote /etc/sysctl.d/zz-ctguard.conf"), "{said}");
    let again = tune(&machine, &["--apply", "--persist"])?;
    ensure!(again.contains("all settings fit"), "{again}");
    tune(&machine, &["--revert"])?;
    ensure!(machine.files()? == before, "something is left");
    Ok(())
}
