//! The kernel's random generator. Clones of one machine begin with the same state of it, so each gets a seed of its own before
//! anything that could draw from it runs.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::path::Path;

use guest::control::SEED_BYTES;
use rustix::fs::{FileType, fstat, major, minor};
use rustix::ioctl::{NoArg, Opcode, Updater, ioctl, opcode};
use zeroize::Zeroize;

/// Where the kernel's generator is, before a recipe can put something else there.
const DEVICE: &str = "/dev/urandom";
/// Major and minor number of the generator (Documentation/admin-guide/devices.txt).
const NUMBERS: (u32, u32) = (1, 9);
/// `_IOW('R', 0x03, int[2])` of `linux/random.h`.
const RNDADDENTROPY: Opcode = opcode::write::<[c_int; 2]>(b'R', 0x03);
/// `_IO('R', 0x07)` of `linux/random.h`.
const RNDRESEEDCRNG: Opcode = opcode::none(b'R', 0x07);
/// Each bit of the host's seed is random.
const SEED_BITS: c_int = 8 * SEED_BYTES as c_int;

/// `struct rand_pool_info` of `linux/random.h`, with room for a seed.
#[repr(C)]
struct Credit {
    /// In bits.
    entropy_count: c_int,
    /// In bytes.
    buf_size: c_int,
    buf: [u8; SEED_BYTES],
}

/// The kernel's generator, held open.
#[derive(Debug)]
pub(crate) struct Pool(File);

impl Pool {
    /// Opens it by its path: before anything but the agent has run.
    ///
    /// # Errors
    /// `InvalidData` if something else lies there.
    pub(crate) fn open() -> io::Result<Self> {
        Self::at(DEVICE)
    }

    fn at(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = File::open(path)?;
        let stat = fstat(&file)?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        if is_device && (major(stat.st_rdev), minor(stat.st_rdev)) == NUMBERS {
            Ok(Self(file))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "not the kernel's random generator"))
        }
    }

    /// Mixes `seed` in, credits it in full, and has the generator draw a new key from it at once.
    ///
    /// # Errors
    /// From the system: only root can do so.
    pub(crate) fn reseed(&self, seed: &[u8; SEED_BYTES]) -> io::Result<()> {
        let mut credit = Credit { entropy_count: SEED_BITS, buf_size: SEED_BYTES as c_int, buf: *seed };
        // SAFETY: RNDADDENTROPY takes a pointer to a rand_pool_info, of which it reads both counts and as many bytes of
        // `buf` as `buf_size` says (drivers/char/random.c, random_ioctl); `Credit` has that layout (repr(C), tested below), and
        // `buf_size` is the length of its `buf`. It is borrowed until the call returns, and the kernel writes nothing to it.
        #[allow(unsafe_code, reason = "rustix has no wrapper of RNDADDENTROPY")]
        let credited = unsafe { ioctl(&self.0, Updater::<RNDADDENTROPY, Credit>::new(&mut credit)) };
        credit.buf.zeroize();
        credited?;
        // SAFETY: RNDRESEEDCRNG takes no argument (same function): no memory is read or written.
        #[allow(unsafe_code, reason = "rustix has no wrapper of RNDRESEEDCRNG")]
        let reseeded = unsafe { ioctl(&self.0, NoArg::<RNDRESEEDCRNG>::new()) };
        Ok(reseeded?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn numbers_and_layout_are_the_kernels() {
        assert_eq!(RNDADDENTROPY, 0x4008_5203);
        assert_eq!(RNDRESEEDCRNG, 0x5207);
        assert_eq!((offset_of!(Credit, entropy_count), offset_of!(Credit, buf_size)), (0, 4));
        assert_eq!((offset_of!(Credit, buf), size_of::<Credit>()), (8, 8 + SEED_BYTES));
        assert_eq!(SEED_BITS, 512);
    }

    #[test]
    fn only_the_generator_itself_is_taken() {
        Pool::open().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        for other in [Path::new("/dev/null"), Path::new("/dev/random"), file.path()] {
            assert_eq!(Pool::at(other).unwrap_err().kind(), io::ErrorKind::InvalidData, "{other:?}");
        }
    }

    #[test]
    fn the_kernel_takes_a_seed() {
        // What is credited must be random, also on the machine that runs this test.
        let mut seed = [0; SEED_BYTES];
        let pool = Pool::open().unwrap();
        (&pool.0).read_exact(&mut seed).unwrap();
        pool.reseed(&seed).expect("only root can credit a seed: run this test as root");
    }
}
