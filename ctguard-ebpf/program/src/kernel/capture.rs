//! Copies of dropped packets for `ctguard capture`.

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, programs::XdpContext};
use ctguard_datapath::capture;
use ctguard_layout::{CaptureOrder, Captured, units::Jiffies};

use super::{headers, maps};

/// Sends a copy of the packet to the capture, if the order and its budget allow it.
#[inline(always)]
pub(crate) fn copy(
    context: &XdpContext,
    order: &CaptureOrder,
    outcome: u32,
    passed: bool,
    now: Jiffies,
) {
    let ifindex = context.ingress_ifindex() as u32;
    if order.ifindex != 0 && order.ifindex != ifindex {
        return;
    }
    let Some(state) = maps::CAPTURE_STATE.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's value of the map.
    if !capture::takes(unsafe { &mut *state }, order, now) {
        return;
    }
    let frame_bytes = headers::bytes_of_frame(context);
    let captured_bytes =
        if order.snap_bytes < frame_bytes { order.snap_bytes } else { frame_bytes };
    let captured = Captured {
        // SAFETY: the helper reads a clock and takes no argument.
        at: unsafe { bpf_ktime_get_ns() },
        ifindex,
        outcome,
        frame_bytes,
        captured_bytes,
        passed: passed.into(),
        reserved: 0,
    };
    // The upper half of the flags is the number of the packet's bytes that the kernel appends
    // (`BPF_F_CTXLEN_MASK`).
    maps::CAPTURED.output(context, &captured, captured_bytes);
}
