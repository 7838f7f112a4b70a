//! Keeps the guard pinned: whoever removes pins, or unmounts them, leaves maps and programs that only
//! this process holds, and that no command and no later daemon finds.

use anyhow::anyhow;

use super::Guard;
use ctguard_kernel::bpf;

/// Pins what is missing, once a second. Links are not among it: without its pin a link is gone, and its
/// interface is attached to again.
pub(super) fn follow(guard: &mut Guard) {
    if guard.pins.lack().is_none() {
        return;
    }
    let path = guard.pins.path().display().to_string();
    let pins = guard.pins.clone();
    let prepared = guard.outside.run(move || bpf::try_prepare(&pins));
    let pinned = prepared
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(guard.programs.pin_again(&guard.pins)?));
    if pinned.is_ok() {
        // Whoever removed them may do so again and again.
        let kept = Err(anyhow!("somebody removed them"));
        guard.attempted(&format!("keep the pins at {path}"), "they are made again", &kept);
    }
    guard.attempted(&format!("pin the guard at {path} again"), "no command finds it", &pinned);
}
