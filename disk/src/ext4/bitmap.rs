//! A set of block or inode numbers.

/// One bit for each number from 0 on.
#[derive(Clone)]
pub(super) struct Bitmap {
    words: Vec<u64>,
    length: u64,
}

impl Bitmap {
    /// An empty set of numbers below `length`.
    pub(super) fn new(length: u64) -> Self {
        Bitmap { words: vec![0; length.div_ceil(64) as usize], length }
    }

    /// Whether `number` is in it.
    pub(super) fn has(&self, number: u64) -> bool {
        number < self.length && self.words[(number / 64) as usize] >> (number % 64) & 1 == 1
    }

    /// Puts `count` numbers in; false if one is out of range or was in it before.
    #[must_use]
    pub(super) fn put(&mut self, first: u64, count: u64) -> bool {
        if first.checked_add(count).is_none_or(|end| end > self.length) {
            return false;
        }
        for number in first..first + count {
            let word = &mut self.words[(number / 64) as usize];
            let bit = 1 << (number % 64);
            if *word & bit != 0 {
                return false;
            }
            *word |= bit;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Bitmap;

    #[test]
    fn a_number_goes_in_once_and_in_range() {
        let mut set = Bitmap::new(130);
        assert!(set.put(63, 3) && set.put(129, 1) && set.put(130, 0));
        assert!([63, 64, 65, 129].iter().all(|number| set.has(*number)));
        assert!(![62, 66, 128, 130, u64::MAX].iter().any(|number| set.has(*number)));
        assert!(!set.put(60, 4), "63 is in it");
        assert!(!set.put(129, 2) && !set.put(u64::MAX, 2), "out of range");
    }
}
