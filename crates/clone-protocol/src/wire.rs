// SPDX-License-Identifier: GPL-2.0-only

//! Taking a packet apart from the front, and the few things that are put together in one way.

/// What is left of a packet. Each method takes from the front, or returns `None` and takes nothing.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn bytes(&mut self, len: u32) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(len).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    /// A little-endian `u32` and as many bytes as it says, the plugin's form of a string.
    pub(crate) fn counted_le(&mut self) -> Option<&'a [u8]> {
        let mut ahead = self.clone();
        let len = ahead.u32_le()?;
        let bytes = ahead.bytes(len)?;
        *self = ahead;
        Some(bytes)
    }

    pub(crate) fn chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.chunk().copied()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u32_le(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64_le(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i32_le(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn u32_be(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }
}

/// The counterpart of [`Reader::counted_le`].
pub(crate) fn put_counted_le(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&len_u32(bytes.len()).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A length as the wire writes it. No packet reaches 4 GiB; a peer would refuse what saturates.
pub(crate) fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn takes_nothing_when_too_little_is_left() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32_le(), None);
        assert_eq!(reader.bytes(u32::MAX), None);
        assert_eq!(reader.bytes(2).unwrap(), &[1, 2]);
        assert_eq!(reader.array::<2>(), None);
        assert_eq!(reader.u8(), Some(3));
        assert!(reader.is_empty());
        assert_eq!(reader.u8(), None);
    }

    #[test]
    fn counted_checks_the_bytes_before_it_takes_the_count() {
        let mut reader = Reader::new(&[4, 0, 0, 0, 9, 9, 9]);
        assert_eq!(reader.counted_le(), None);
        assert_eq!(reader.u32_le(), Some(4));
    }

    #[test]
    fn byte_orders() {
        assert_eq!(Reader::new(&[1, 2, 3, 4]).u32_le(), Some(0x0403_0201));
        assert_eq!(Reader::new(&[1, 2, 3, 4]).u32_be(), Some(0x0102_0304));
        assert_eq!(Reader::new(&[0xfe, 0xff, 0xff, 0xff]).i32_le(), Some(-2));
    }
}
