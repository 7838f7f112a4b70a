//! The only place that writes packet memory.

use core::marker::PhantomData;

use super::{Reader, reader::WireHeader};
use crate::verifier::OpaqueZero;

/// A frame whose headers are replaced in place.
pub struct Writer<'p> {
    start: *mut u8,
    end: *mut u8,
    frame: PhantomData<&'p mut [u8]>,
}

/// The greatest offset of a header that is written, as a mask, from which the verifier learns the
/// bound.
const MOST_OFFSET: u32 = 0x7e;

impl<'p> Writer<'p> {
    /// # Safety
    /// `start..end` is readable and writable for `'p`, by nobody else, and `start` is 2-byte
    /// aligned.
    #[inline(always)]
    pub const unsafe fn new(start: *mut u8, end: *mut u8) -> Self {
        Self { start, end, frame: PhantomData }
    }

    /// A writer over a frame in this process's memory; `None` if it lies at an odd address.
    pub fn over(frame: &'p mut [u8]) -> Option<Self> {
        let range = frame.as_mut_ptr_range();
        // SAFETY: the range is borrowed for `'p`, mutably, and found to be aligned.
        range.start.addr().is_multiple_of(2).then(|| unsafe { Self::new(range.start, range.end) })
    }

    /// A reader of the frame.
    #[inline(always)]
    pub const fn reader(&self, zero: OpaqueZero) -> Reader<'_> {
        // SAFETY: the range that `new` was promised, which nobody writes while it is borrowed.
        unsafe { Reader::new(self.start, self.end, zero) }
    }

    /// The header at an even `offset`, or `None` if the frame ends inside it.
    #[inline(always)]
    pub(crate) fn get<H: WireHeader>(&self, offset: u32) -> Option<H> {
        let header = self.at::<H>(offset)?;
        // SAFETY: `at` found it aligned and in the frame; any bytes are a `WireHeader`.
        Some(unsafe { *header })
    }

    /// Replaces the header at an even `offset`; `None`, and nothing is written, if the frame ends
    /// inside it.
    #[inline(always)]
    pub(crate) fn put<H: WireHeader>(&mut self, offset: u32, header: H) -> Option<()> {
        let place = self.at::<H>(offset)?;
        // SAFETY: `at` found it aligned and in the frame, which `self` alone may write.
        unsafe { *place = header };
        Some(())
    }

    /// The bound is `pointer + n > end` as in the reader, for the verifier.
    #[inline(always)]
    fn at<H: WireHeader>(&self, offset: u32) -> Option<*mut H> {
        const { assert!(align_of::<H>() <= 2) };
        let header = self.start.wrapping_add((offset & MOST_OFFSET) as usize);
        if header.wrapping_add(size_of::<H>()) > self.end {
            return None;
        }
        Some(header.cast::<H>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::reader::{Be16, Be32};

    #[repr(align(2))]
    struct Aligned([u8; 8]);

    #[test]
    fn a_field_is_written_in_network_order() {
        let mut frame = Aligned([0; 8]);
        let mut writer = Writer::over(&mut frame.0).unwrap();
        writer.put(2, Be32::new(0x1234_5678)).unwrap();
        assert_eq!(writer.get::<Be16>(4).unwrap().get(), 0x5678);
        assert_eq!(frame.0, [0, 0, 0x12, 0x34, 0x56, 0x78, 0, 0]);
    }

    #[test]
    fn nothing_is_written_past_the_end() {
        let mut frame = Aligned([7; 8]);
        let mut writer = Writer::over(&mut frame.0[..6]).unwrap();
        assert!(writer.put(4, Be32::new(0)).is_none());
        assert!(writer.put(6, Be16::new(0)).is_none());
        assert_eq!(frame.0, [7; 8]);
    }

    #[test]
    fn a_frame_at_an_odd_address_is_not_written() {
        let mut frame = Aligned([7; 8]);
        assert!(Writer::over(&mut frame.0[1..]).is_none());
    }
}
