//! CRC-32C as ext4 uses it: without a final inversion, so that it can be carried on.

use crc::{Algorithm, Crc, Table};

const ALGORITHM: Algorithm<u32> = Algorithm {
    width: 32,
    poly: 0x1edc_6f41,
    init: 0xffff_ffff,
    refin: true,
    refout: true,
    xorout: 0,
    check: 0x1cf9_6d7c,
    residue: 0xb798_b438,
};
static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&ALGORITHM);

/// A checksum that has seen some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checksum(pub(super) u32);

impl Checksum {
    /// One that has seen none.
    pub(super) const START: Checksum = Checksum(u32::MAX);

    /// The checksum after these bytes too.
    pub(super) fn and(self, bytes: &[u8]) -> Self {
        // The crate takes the start value unreflected.
        let mut digest = CRC32C.digest_with_initial(self.0.reverse_bits());
        digest.update(bytes);
        Checksum(digest.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::Checksum;

    #[test]
    fn it_is_crc32c_without_the_last_inversion() {
        // RFC 3720 §B.4: 32 bytes of zeros.
        assert_eq!(!Checksum::START.and(&[0; 32]).0, 0x8a91_36aa);
        assert_eq!(Checksum::START.and(b"12345").and(b"6789"), Checksum::START.and(b"123456789"));
        assert_eq!(!Checksum::START.and(b"123456789").0, 0xe306_9283);
    }
}
