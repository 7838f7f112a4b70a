//! The only place that reads packet memory.

use core::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::verifier::OpaqueZero;

/// A 16-bit field in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
pub(crate) struct Be16(u16);

impl Be16 {
    #[inline(always)]
    pub(crate) const fn new(value: u16) -> Self {
        Self(value.to_be())
    }

    #[inline(always)]
    pub(crate) const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// A 32-bit field in network byte order, at an even offset.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
pub struct Be32([Be16; 2]);

impl Be32 {
    #[inline(always)]
    pub(crate) const fn new(value: u32) -> Self {
        Self([Be16::new((value >> 16) as u16), Be16::new((value & 0xffff) as u16)])
    }

    #[inline(always)]
    pub(crate) const fn get(self) -> u32 {
        (self.0[0].get() as u32) << 16 | self.0[1].get() as u32
    }
}

/// The 32-bit field in network byte order at `AT`, an even offset in `header`.
///
/// One load: LLVM would load two halves, because it knows only that they are aligned to two bytes. The
/// verifier allows it where the kernel aligns what follows a link header of 14 bytes.
#[inline(always)]
pub(crate) fn word<const AT: usize, H: WireHeader>(header: &H) -> u32 {
    const { assert!(AT.is_multiple_of(2) && AT + 4 <= size_of::<H>()) };
    #[cfg(not(target_arch = "bpf"))]
    {
        let bytes = header.as_bytes();
        u32::from_be_bytes([bytes[AT], bytes[AT + 1], bytes[AT + 2], bytes[AT + 3]])
    }
    #[cfg(target_arch = "bpf")]
    {
        let word: u64;
        // SAFETY: four bytes of `header`, which the verifier allows to be read at once.
        unsafe {
            core::arch::asm!(
                "{word} = *(u32 *)({header} + {at})",
                "{word} = be32 {word}",
                header = in(reg) core::ptr::from_ref(header),
                at = const AT,
                word = lateout(reg) word,
                options(pure, readonly, nostack),
            );
        }
        // SAFETY: a load of four bytes leaves the upper half zero. LLVM clears it again unless told.
        unsafe { core::hint::assert_unchecked(word >> 32 == 0) };
        word as u32
    }
}

/// A header that may be viewed in place: any bytes are valid, and it has no padding.
pub trait WireHeader: Copy + FromBytes + IntoBytes + Immutable {}
impl<H: Copy + FromBytes + IntoBytes + Immutable> WireHeader for H {}

/// Bytes of a frame not parsed yet.
#[derive(Clone)]
pub struct Reader<'p> {
    at: *const u8,
    end: *const u8,
    zero: OpaqueZero,
    frame: PhantomData<&'p [u8]>,
}

impl<'p> Reader<'p> {
    /// # Safety
    /// `at..end` is readable for `'p`, and `at` is 2-byte aligned.
    #[inline(always)]
    pub const unsafe fn new(at: *const u8, end: *const u8, zero: OpaqueZero) -> Self {
        Self { at, end, zero, frame: PhantomData }
    }

    /// The next header, or `None` if the frame ends inside it.
    #[inline(always)]
    pub(crate) fn take<H: WireHeader>(&mut self) -> Option<&'p H> {
        const { assert!(size_of::<H>().is_multiple_of(2) && align_of::<H>() <= 2) };
        let header = self.at;
        self.advance(size_of::<H>())?;
        // SAFETY: `advance` found `size_of::<H>()` readable bytes at `header`, which is 2-byte
        // aligned because every step is even; any bytes are a `WireHeader`.
        Some(unsafe { &*header.cast::<H>() })
    }

    /// Steps over `words` 32-bit words, the unit in which headers give their length.
    #[inline(always)]
    pub(crate) fn skip_words(&mut self, words: u16) -> Option<()> {
        self.advance(usize::from(words) * 4)
    }

    /// Steps over `words` 32-bit words, at most `MOST`, that a clone of this reader has stepped
    /// over already, and returns them in bytes. The number is hidden from the verifier, so that the
    /// clone's paths meet here; it allows offsets of 64 KiB in all.
    #[inline(always)]
    pub(crate) fn skip_read_words<const MOST: u32>(&mut self, words: u16) -> Option<u32> {
        const { assert!((MOST + 1).is_power_of_two()) };
        let bytes = (self.zero.hide(u32::from(words)) & MOST) * 4;
        self.advance(bytes as usize)?;
        Some(bytes)
    }

    /// The verifier learns a bound only from `pointer + n > end`, never from `end - pointer`.
    #[inline(always)]
    fn advance(&mut self, bytes: usize) -> Option<()> {
        let next = self.at.wrapping_add(bytes);
        if next > self.end {
            return None;
        }
        self.at = next;
        Some(())
    }
}

/// Frames for tests: a reader over a copy that is aligned as the kernel aligns it.
#[cfg(test)]
pub(crate) mod testing {
    use super::{OpaqueZero, Reader};

    #[repr(align(2))]
    pub(crate) struct AlignedFrame {
        bytes: [u8; 2048],
        length: usize,
    }

    impl AlignedFrame {
        pub(crate) fn new(frame: &[u8]) -> Self {
            let mut bytes = [0; 2048];
            bytes[..frame.len()].copy_from_slice(frame);
            Self { bytes, length: frame.len() }
        }

        pub(crate) fn reader(&self) -> Reader<'_> {
            let range = self.bytes[..self.length].as_ptr_range();
            // SAFETY: the range lies in `self`, which is 2-byte aligned and outlives the reader.
            unsafe { Reader::new(range.start, range.end, OpaqueZero::new(0)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::AlignedFrame, *};

    #[test]
    fn a_field_is_read_in_network_order() {
        let frame = AlignedFrame::new(&[0x12, 0x34, 0x56, 0x78]);
        assert_eq!(frame.reader().take::<Be32>().unwrap().get(), 0x1234_5678);
        assert_eq!(frame.reader().take::<Be16>().unwrap().get(), 0x1234);
    }

    #[test]
    fn nothing_is_read_past_the_end() {
        let frame = AlignedFrame::new(&[1, 2, 3]);
        let mut reader = frame.reader();
        assert!(reader.take::<Be32>().is_none());
        assert!(reader.take::<Be16>().is_some());
        assert!(reader.take::<Be16>().is_none());
        assert!(reader.skip_words(1).is_none());
    }
}
