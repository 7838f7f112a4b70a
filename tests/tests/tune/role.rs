//! What tune takes a machine for.

use anyhow::{Result, ensure};
use ctguard_tests::{exec, product, require, router::Network};
use serde_json::Value;

fn role(network: &Network) -> Result<String> {
    let mut command = product::command_in(&network.router, &["tune", "--json"])?;
    let shown: Value = serde_json::from_str(&exec::run(&mut command)?)?;
    Ok(shown["role"].as_str().unwrap_or_default().to_owned())
}

/// Fails when NAT of nftables is not seen, and its router gets a gateway's timeouts.
#[test]
fn who_masquerades_by_nftables_is_taken_for_a_nat_router() -> Result<()> {
    const TEST: &str = "who_masquerades_by_nftables_is_taken_for_a_nat_router";
    if !require::root(TEST) || !require::release_binary(TEST) {
        return Ok(());
    }
    let network = Network::build()?;
    let found = role(&network)?;
    ensure!(found == "nat-router", "{found}");
    exec::run(network.router.command("nft").args(["delete", "table", "ip", "nat"]))?;
    let found = role(&network)?;
    ensure!(found == "gateway", "without NAT: {found}");
    Ok(())
}
