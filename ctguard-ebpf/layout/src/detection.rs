//! What the data path asks whether conntrack knows a flow, and why.

/// What is asked whether conntrack knows the flow of a TCP or UDP packet.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// Conntrack itself (`bpf_xdp_ct_lookup`).
    Conntrack = 0,
    /// The flow cache: the operator asked for it.
    Forced = 1,
    /// The flow cache: the kernel has no such function (older than 5.18, or without BTF).
    FunctionsMissing = 2,
    /// The flow cache: the kernel refuses the program that calls the function.
    Refused = 3,
    /// The flow cache: `/sys/kernel/btf` cannot be read (a kernel without BTF, or hidden).
    TypesUnreadable = 4,
    /// The flow cache: `struct bpf_ct_opts` is of a size that the program does not know.
    OptionsUnknown = 5,
    /// The flow cache: the functions are a module's, which takes `CAP_SYS_ADMIN` to refer to.
    NotPermitted = 6,
    /// The flow cache: a start that changes the detection is under way, or was cut short.
    Changing = 7,
    /// The flow cache: conntrack was not loaded when the guard was started.
    NotLoaded = 8,
}

impl Detection {
    /// The detection of this number; `None` if it is from a later version.
    pub const fn of(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Conntrack),
            1 => Some(Self::Forced),
            2 => Some(Self::FunctionsMissing),
            3 => Some(Self::Refused),
            4 => Some(Self::TypesUnreadable),
            5 => Some(Self::OptionsUnknown),
            6 => Some(Self::NotPermitted),
            7 => Some(Self::Changing),
            8 => Some(Self::NotLoaded),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_detection_has_its_number_back() {
        let known: Vec<_> = (0..).map_while(Detection::of).collect();
        assert_eq!(known.len(), 9);
        for (number, detection) in (0..).zip(known) {
            assert_eq!(detection as u32, number);
        }
    }
}
