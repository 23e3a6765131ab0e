//! The hash of a name that decides in which block of a directory the kernel looks for it: half of MD4.

const ROUND_2: u32 = 0x5a82_7999;
const ROUND_3: u32 = 0x6ed9_eba1;
/// MD4's own start value, if the file system has none.
const DEFAULT_SEED: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
/// The highest hash is kept free to mean "the end".
const END: u32 = 0xffff_fffe;
/// Bytes of a name that go into one transformation.
const CHUNK: usize = 32;

/// How a file system hashes names.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameHash {
    /// Seed of the superblock; zeros if it has none.
    pub(super) seed: [u32; 4],
    /// Whether bytes from 0x80 on count as positive numbers.
    pub(super) is_unsigned: bool,
}

impl NameHash {
    /// The hash of `name`; its lowest bit is always 0.
    pub(super) fn of(&self, name: &[u8]) -> u32 {
        let mut state = if self.seed == [0; 4] { DEFAULT_SEED } else { self.seed };
        let mut rest = name;
        while !rest.is_empty() {
            transform(&mut state, &self.words(rest));
            rest = &rest[CHUNK.min(rest.len())..];
        }
        match state[1] & !1 {
            END => END - 2,
            hash => hash,
        }
    }

    /// The first bytes as big-endian words, filled up with the length of all that is left.
    fn words(&self, rest: &[u8]) -> [u32; 8] {
        let filling = u32::from_ne_bytes([rest.len() as u8; 4]);
        let mut words = [filling; 8];
        for (word, bytes) in words.iter_mut().zip(rest[..CHUNK.min(rest.len())].chunks(4)) {
            for byte in bytes {
                // A negative byte borrows from those before it.
                let value = if self.is_unsigned { u32::from(*byte) } else { i32::from(*byte as i8) as u32 };
                *word = (*word << 8).wrapping_add(value);
            }
        }
        words
    }
}

fn transform(state: &mut [u32; 4], words: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    let choose: Mix = |x, y, z| z ^ (x & (y ^ z));
    let majority: Mix = |x, y, z| (x & y).wrapping_add((x ^ y) & z);
    let parity: Mix = |x, y, z| x ^ y ^ z;
    let rounds: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (choose, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (majority, ROUND_2, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (parity, ROUND_3, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, shifts) in rounds {
        for (step, index) in order.into_iter().enumerate() {
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(words[index]).wrapping_add(constant);
            // Each step's result takes the place of the second; the others move on.
            (a, b, c, d) = (d, sum.rotate_left(shifts[step % 4]), b, c);
        }
    }
    for (word, sum) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(sum);
    }
}
